"""Run the benchmarks in small sizes, as many as fit, and print one table.

    python -m benchmarks.all --minutes=10
    python -m benchmarks.all --list
    python -m benchmarks.all --only=sample

Races against PyTorch take turns in one process. A ratio above 1 says that ours is
faster. The figures of RESULTS.md come from the scripts themselves, with more rounds, on
a machine that has nothing else to do: this says whether a change moved anything.
"""

import argparse
import importlib.metadata
import importlib.util
import math
import statistics
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from benchmarks import apart, registry
from ddpm_jax.core import errors

COLUMNS = ("benchmark", "what", "median", "lowest", "highest", "rounds")
PACKAGES = ("jaxlib", "torch")  # whose versions the line of the machine lacks


class Plan(NamedTuple):
    """Which benchmarks run, and why the others do not, by name."""

    running: tuple[str, ...]
    left_out: dict[str, str]


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks.all",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument("--minutes", default="10", help="that it may take; 10")
    flags.add_argument("--only", default="", help="the name of one benchmark")
    flags.add_argument("--list", action="store_true", help="names and about how long")
    return flags


def seconds_of(minutes: str) -> float:
    """Return --minutes in seconds.

    Raises:
        Refusal: it is no number above 0.
    """
    try:
        number = float(minutes)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise errors.Refusal(
            f"--minutes={minutes} is no time to measure in: give a number above 0, "
            "such as --minutes=10"
        )
    return 60 * number


def plan(
    benchmarks: Mapping[str, registry.Benchmark], seconds: float, *, has_torch: bool
) -> Plan:
    """Return which benchmarks fit into some seconds, the first of the table first."""
    running, left_out = [], {}
    for name, benchmark in benchmarks.items():
        if benchmark.needs_torch and not has_torch:
            left_out[name] = "it races against PyTorch, which is not here: pip install"
            left_out[name] += " torch"
        elif benchmark.seconds > seconds:
            left_out[name] = no_time(benchmark, seconds)
        else:
            running.append(name)
            seconds -= benchmark.seconds
    return Plan(tuple(running), left_out)


def no_time(benchmark: registry.Benchmark, seconds: float) -> str:
    """Return the sentence about a benchmark that would take too long."""
    return (
        f"it takes about {benchmark.seconds} s, and {max(seconds, 0):.0f} s are left: "
        "give more --minutes"
    )


def listing(benchmarks: Mapping[str, registry.Benchmark]) -> str:
    """Return a line for each benchmark."""
    lines = []
    for name, benchmark in benchmarks.items():
        needs = ", needs torch" if benchmark.needs_torch else ""
        lines.append(
            f"{name:<18} {benchmark.what} (about {benchmark.seconds} s{needs})"
        )
    return "\n".join(lines)


def table(rows: Mapping[str, list[registry.Row]]) -> str:
    """Return a Markdown table of what was measured, by benchmark."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---|---|--:|--:|--:|--:|"]
    for name, measured in rows.items():
        for what, values in measured:
            spread = (statistics.median(values), min(values), max(values))
            cells = (name, what, *map(number, spread), str(len(values)))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Return a positive number with three digits, or more before the point."""
    digits = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def text(machine: str, rows, left_out: Mapping[str, str]) -> str:
    """Return all that is printed at the end.

    Args:
        machine: a line about it.
        rows: what was measured, see `table`.
        left_out: the reason of each benchmark that was not.
    """
    parts = [machine, table(rows)] if rows else [machine, "Nothing was measured."]
    reasons = [f"{name} was left out: {reason}." for name, reason in left_out.items()]
    return "\n\n".join(parts + (["\n".join(reasons)] if reasons else []))


def versions(packages=PACKAGES) -> str:
    """Return "name version" of packages, those that are not installed left out."""
    installed = {each.name: each.version for each in importlib.metadata.distributions()}
    return ", ".join(f"{n} {installed[n]}" for n in packages if n in installed)


def run(args) -> int:
    """Do what the flags ask for; return the status to end with.

    Raises:
        Refusal: no time to measure in, or an unknown benchmark.
    """
    seconds, benchmarks = seconds_of(args.minutes), registry.chosen(args.only)
    if args.list:
        print(listing(benchmarks))
        return 0
    end = time.monotonic() + seconds
    has_torch = importlib.util.find_spec("torch") is not None
    running, left_out = plan(benchmarks, seconds, has_torch=has_torch)
    rows = {}
    for name in running:
        benchmark, left = benchmarks[name], end - time.monotonic()
        if benchmark.seconds > left:  # those before took longer than they should
            left_out[name] = no_time(benchmark, left)
            continue
        print(f"{name}: {benchmark.what}, about {benchmark.seconds} s", flush=True)
        value, failure = apart.measured(benchmark.measure, (), left)
        if failure:
            left_out[name] = failure
        else:
            rows[name] = value
    machine = registry.imported("presets").machine()
    print(f"\n{text(f'{machine}, {versions()}', rows, left_out)}")
    return 1 if apart.FAILED in left_out.values() else 0


def main(run=run, parser=parser) -> None:
    """Run what flags ask for, telling refusals in one sentence.

    Args:
        run: `flags → exit status`.
        parser: `() → ArgumentParser`.
    """
    try:
        sys.exit(run(parser().parse_args()))
    except errors.Refusal as refusal:
        sys.exit(f"error: {refusal}")


if __name__ == "__main__":
    main()
