"""`python -m tests.bench NAME`: measure, print a table or JSON, leave nothing behind."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import uuid
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.bench import (
    bytes_per_task,
    coldstart,
    depth,
    discovery,
    hammer,
    hooks,
    idle,
    keeper,
    latency,
    many,
    permits,
    processes,
    quarantine,
    recovery,
    safety,
    soak,
    stop,
    throughput,
    update,
    wake,
)
from tests.bench.measure import Options, Result, Target, best_of, machine, medians, progress
from tests.bench.peers import comparison

BENCHMARKS: dict[str, ModuleType] = {
    "latency": latency,
    "throughput": throughput,
    "idle": idle,
    "coldstart": coldstart,
    "recovery": recovery,
    "peers": comparison,
    "discovery": discovery,
    "depth": depth,
    "bytes": bytes_per_task,
    "update": update,
    "wake": wake,
    "many": many,
    "quarantine": quarantine,
    "soak": soak,
    "keeper": keeper,
    "safety": safety,
    "stop": stop,
    "hammer": hammer,
    "permits": permits,
    "hooks": hooks,
}


def main() -> int:
    """Exit code 0: measured; 1: a run failed or left processes; 2: wrong usage."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", choices=[*BENCHMARKS, "all"])
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--best-of", type=int, default=1, metavar="N", help="runs of each [1]")
    parser.add_argument(
        "--count", "--tasks", type=int, help="tasks or kills, instead of the default"
    )
    parser.add_argument("--seconds", type=float, help="length of what is timed by the clock")
    parser.add_argument("--rounds", type=int, help="turns of each system (peers)")
    given = parser.parse_args()
    if min(given.best_of, given.count or 1, given.rounds or 1) < 1 or (given.seconds or 1) <= 0:
        parser.error("--best-of, --count, --seconds and --rounds are positive")
    processes.adopt_orphans()
    names = [name for name in BENCHMARKS if name != "soak"] if given.name == "all" else [given.name]
    options = Options(given.count, given.seconds, given.rounds)
    documents, failed = [], False
    for name in names:
        try:
            documents.append(measure(name, options, given.best_of))
        except Exception as error:  # the other benchmarks still have something to say
            progress(f"{name} failed: {type(error).__name__}: {error}")
            failed = True
            continue
        failed = failed or bool(documents[-1]["left_over"])
        if not given.json:
            print_table(documents[-1])
    if given.json:
        whole = {"benchmarks": documents} if given.name == "all" else (documents or [{}])[0]
        print(json.dumps(whole, indent=2))
    return 1 if failed else 0


def measure(name: str, options: Options, runs: int) -> dict[str, Any]:
    """All runs of one benchmark as one document; figures are those of the best run."""
    benchmark = BENCHMARKS[name]
    targets: tuple[Target, ...] = benchmark.TARGETS
    seen = machine()
    results: list[Result] = []
    left: list[str] = []
    loads: list[float] = []
    for number in range(1, runs + 1):
        progress(f"{name}: run {number} of {runs}")
        loads.append(round(os.getloadavg()[0], 2))
        stamp = uuid.uuid4().hex
        # Short: Ray's and the store's sockets have to fit into 107 bytes.
        directory = Path(tempfile.mkdtemp(prefix="nb-", dir="/tmp"))
        try:
            results.append(asyncio.run(_bounded(benchmark, directory, stamp, options)))
        finally:
            living = processes.left_over(stamp)
            left += [f"{process.pid} {process.name()}" for process in living]
            if living:
                progress(f"{name}: left behind and ended now: {', '.join(left)}")
                processes.end(living)
                processes.left_over(stamp)
            shutil.rmtree(directory, ignore_errors=True)
    best = best_of(results, targets[0])
    return {
        "name": name,
        "machine": {**seen, "load_before_each_run": loads},
        "figures": best.figures,
        "baseline": best.baseline,
        "ratios": best.ratios,
        "targets": [_judged(target, best, results) for target in targets],
        "runs": runs,
        "median": {
            "figures": medians([result.figures for result in results]),
            "baseline": medians([result.baseline for result in results]),
            "ratios": medians([result.ratios for result in results]),
        },
        "left_over": left,
    }


async def _bounded(benchmark: ModuleType, directory: Path, stamp: str, options: Options) -> Result:
    async with asyncio.timeout(benchmark.LIMIT_S):
        result: Result = await benchmark.run(directory, stamp, options)
    return result


def _judged(target: Target, best: Result, results: list[Result]) -> dict[str, Any]:
    value = best.value(target.figure)
    met = {
        "<": value < target.limit,
        "<=": value <= target.limit,
        ">=": value >= target.limit,
    }[target.relation]
    return {
        "figure": target.figure,
        "value": value,
        "target": f"{target.relation} {target.limit:g}",
        "met": met,
        "all_runs": [result.value(target.figure) for result in results],
    }


def print_table(document: dict[str, Any]) -> None:
    """For people."""
    on = document["machine"]
    print(
        f"\n{document['name']}, best of {document['runs']}: {on['cpus']} x {on['model']}, "
        f"load {on['load_before_each_run']} before each run, "
        f"others kept {on['others_busy_cores']} cores busy, {on['date']}"
    )
    for part in ("figures", "baseline", "ratios"):
        print(f"  {part}")
        for name, value in document[part].items():
            for label, shown in _lines(name, value):
                print(f"    {label:<36} {shown}")
    print("  targets")
    for target in document["targets"]:
        verdict = "met" if target["met"] else "MISSED"
        runs = ", ".join(f"{value:g}" for value in target["all_runs"])
        print(f"    {target['figure']:<36} {target['target']:<8} {verdict} ({runs})")
    sys.stdout.flush()


def _lines(name: str, value: Any) -> list[tuple[str, str]]:
    """One line for a number or a flat table; one for each entry of a table of tables."""
    if not isinstance(value, dict):
        return [(name, str(value))]
    if any(isinstance(inner, dict) for inner in value.values()):
        return [line for key, inner in value.items() for line in _lines(f"{name} {key}", inner)]
    cells = (f"{k} {v:g}" if isinstance(v, int | float) else f"{k} {v}" for k, v in value.items())
    return [(name, "  ".join(cells))]


if __name__ == "__main__":
    sys.exit(main())
