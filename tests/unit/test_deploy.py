"""What deploy/ says of the fleet is true: metrics that exist, and time enough to drain."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from actors.pulse import LATE_S
from novawf.clock import ManualClock
from novawf.fleet_metrics import Snapshot, families
from novawf.limits.config import LimitSettings
from novawf.limits.metrics import LimitFigures
from novawf.processes.signals import ENDED_NOW, NUMBERS
from novawf.safety.gate import GateView
from novawf.supervision.config import SupervisionSettings
from novawf.tasks.protocol import Compliance
from novawf.workflow.identity import ChildRecord

yaml = pytest.importorskip("yaml", reason="comes with ray")

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
OF_PROMETHEUS = {"up"}
OF_THE_COLLECTOR = {"novawf_store_up": set[str]()}
"""Shown by `telemetry.prometheus.FleetCollector` itself, in front of the families."""
ENDING_S = 15
"""For Ray and the store, after all children (docs/operations.md)."""


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((DEPLOY / "prometheus" / "novawf.rules.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def series() -> dict[str, set[str]]:
    """Every series that a scrape can show, with the names of its labels."""
    row = {"id": "torch", "alive": True, "listening": True, "state": "work_discovery"}
    full = Snapshot(
        document={"store": {"loss_window_s": 1.0}, "limits": {}},
        novas=(row,),
        cycles={"torch": 1},
        records={"torch": ChildRecord("nova", 1, True, 0, "running", "")},
        gate=GateView(),
        memories={},
        safety={"violation:api_hammering": "1"},
        now_ms=ManualClock().now_ms(),
        counts={},
        depth={"medium": 1},
        streams={"nova.tasks.torch.todo": 1},
        lags={"nova.work.queue": 1},
        quarantined={"nova.work.queue": 1},
        compliance=Compliance(1, 2),
        limits=LimitFigures({}, {"anthropic": "open|5|1|1||0"}, 0, 0, 0, LimitSettings()),
    )
    shown = dict(OF_THE_COLLECTOR)
    for family in families(full):
        for sample in family.samples:
            shown.setdefault(sample.name, set()).update(sample.labels)
    return shown


SERIES = series()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alerts_ask_for_series_and_labels_that_exist(rule: dict[str, Any]) -> None:
    """An alert over a misspelt series never fires."""
    expression = rule["expr"]
    names = set(re.findall(r"\bnovawf_\w+", expression))
    assert names <= set(SERIES)
    assert names or re.search(r"\bup\{", expression)
    for name, matchers in re.findall(r"\b(novawf_\w+)\{([^}]*)\}", expression):
        asked = set(re.findall(r"(\w+)\s*[!=]", matchers))
        assert asked <= SERIES[name], name


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alerts_say_what_and_how_grave(rule: dict[str, Any]) -> None:
    """Whoever is woken by one is told what it is and what to do."""
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description"}


def test_prometheus_loads_the_rules_and_scrapes_the_default_port() -> None:
    """The example works as it is beside a fleet with its defaults."""
    document = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    for name in document["rule_files"]:
        assert (DEPLOY / "prometheus" / name).is_file()
    (job,) = document["scrape_configs"]
    assert job["job_name"] == "novawf"
    assert job["static_configs"] == [{"targets": ["127.0.0.1:9464"]}]


UNIT = DEPLOY / "systemd" / "novawf.service"


def service() -> Mapping[str, str]:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    return unit["Service"]


def test_the_unit_lets_the_supervisor_drain() -> None:
    """SIGTERM reaches the supervisor alone, and SIGKILL comes well after a drain."""
    shipped = SupervisionSettings()
    assert service()["KillMode"] == "mixed"
    assert int(service()["TimeoutStopSec"]) >= shipped.drain_s + shipped.shutdown_s + ENDING_S
    assert service()["Restart"] == "on-failure"
    assert service()["ExecStart"].endswith("/novawf up --json")


def test_the_unit_hears_the_supervisor() -> None:
    """It is ready when it says so, and a loop that hangs is noticed, but no slow round of it."""
    assert (service()["Type"], service()["NotifyAccess"]) == ("notify", "main")
    assert int(service()["WatchdogSec"]) >= 2 * LATE_S


def test_a_stop_that_was_asked_for_is_no_failure() -> None:
    """Whichever signal it was, and whether the fleet had started."""
    asked = {str(128 + number) for number in NUMBERS} | {str(ENDED_NOW)}
    assert set(service()["SuccessExitStatus"].split()) == asked
    assert service()["RestartPreventExitStatus"] == "2"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("manager", ["--user", "--system"])
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path, manager: str) -> None:
    """A misspelt directive is ignored with a warning that nobody reads."""
    text = re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", UNIT.read_text())
    (tmp_path / "novawf.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", manager, "verify", str(tmp_path / "novawf.service")],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    if "Failed to initialize manager" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert (done.returncode, done.stderr) == (0, "")
