"""How long a Nova pauses, as functions of profile, pace, load and hour.

Pauses pace the rhythm of a Nova that has nothing to do; they never delay work. A pause of 0 means
"do not pause", not "spin": an idle Nova still waits for work by a blocking read.
"""

from __future__ import annotations

from novawf.personality.config import CYCLE_MAX_S
from novawf.personality.profiles import Profile

MAX_LOAD_FACTOR = 2.0
"""An overloaded machine at most doubles the pause."""

NIGHT_HOURS = range(6)
"""Local hours 0 to 5, from midnight to six, in which Novas go slower."""

NIGHT_FACTOR = 1.5


def idle_pause_s(profile: Profile, pace: float, load_per_core: float, hour: int) -> float:
    """Seconds between two idle cycles, from 0 to 600.

    `pace` is the `--pace` factor (0 removes pauses), `load_per_core` the one-minute load average
    divided by the cores, `hour` the local hour from 0 to 23.
    """
    # Written so that a NaN load, from a machine that cannot tell, counts as no load.
    load_factor = min(load_per_core, MAX_LOAD_FACTOR) if load_per_core > 1.0 else 1.0
    night_factor = NIGHT_FACTOR if hour in NIGHT_HOURS else 1.0
    return _bounded(profile.cycle_s * pace * load_factor * night_factor, CYCLE_MAX_S)


def _bounded(pause_s: float, cap_s: float) -> float:
    return max(0.0, min(pause_s, cap_s))
