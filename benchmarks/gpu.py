"""Measure all that needs a GPU, and write the section of RESULTS.md about it.

    pip install -e '.[cuda12]' torch
    python -m benchmarks.gpu --minutes=8 --out=measured
    python -m benchmarks.gpu --tiny --minutes=20 --out=/tmp/tiny     # on a CPU

Everything that was measured is kept in the folder --out at once, and is not measured
again: a call that is ended loses one job, and the next call goes on, programs that were
compiled included. The section is --out/section.md. On a machine that does nothing else.
"""

import argparse
import json
import os
import pathlib
import time
from collections.abc import Iterable, Mapping

# Before JAX starts: the jobs, one at a time, need the GPU that this process looks at.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from benchmarks import all as every
from benchmarks import apart, gpu_jobs, registry
from ddpm_jax.core import errors

PACKAGES = (*every.PACKAGES, "jax-cuda12-plugin", "nvidia-cudnn-cu12")
NOTE = (
    "The columns are explained at the head of `train_step.py`; peak memory is that of "
    "the job's process. Where float32 is computed, matrix products and convolutions "
    "are TF32 on both sides."
)


def parser() -> argparse.ArgumentParser:
    """Return the flags."""
    flags = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    flags.add_argument("--minutes", default="8", help="that it may take; 8")
    flags.add_argument("--out", type=pathlib.Path, help="folder of what was measured")
    flags.add_argument("--only", default="", help="the name of one job")
    flags.add_argument("--list", action="store_true", help="names and about how long")
    flags.add_argument("--tiny", action="store_true", help="numbers that mean nothing")
    return flags


def check(args, backend: str) -> None:
    """Refuse what cannot be measured.

    Raises:
        Refusal: no folder is named, or there is no GPU.
    """
    if args.out is None:
        raise errors.Refusal(
            "nothing is named to keep the figures in: give a folder, such as "
            "--out=measured"
        )
    if backend != "gpu" and not args.tiny:
        raise errors.Refusal(
            f"JAX computes on {backend!r} here, and this measures a GPU: run it where "
            "there is one, or with --tiny, to see whether it works"
        )


def section(
    machine: str,
    command: str,
    parts: Iterable[gpu_jobs.Part],
    left_out: Mapping[str, str],
) -> str:
    """Return the section in Markdown; rows of one title come into one table.

    Args:
        machine: a line about it.
        command: that measured.
        parts: in the order of the jobs.
        left_out: the reason of each job that is missing.
    """
    tables: dict[tuple, list] = {}
    for title, columns, rows in parts:
        tables.setdefault((title, tuple(columns)), []).extend(rows)
    lines = ["## On a GPU", "", f"{machine}: `{command}`. {NOTE}"]
    for (title, columns), rows in tables.items():
        lines += ["", f"### {title}", "", f"| {' | '.join(columns)} |"]
        lines.append("|---" * len(columns) + "|")
        lines += [f"| {' | '.join(row)} |" for row in rows]
    if left_out:
        lines += ["", "### Not measured", ""]
        lines += [f"* {name}: {reason}" for name, reason in left_out.items()]
    return "\n".join(lines) + "\n"


def kept(folder: pathlib.Path, name: str) -> list[gpu_jobs.Part] | None:
    """Return what an earlier call measured, or None."""
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    return [gpu_jobs.Part(*part) for part in json.loads(file.read_text())]


def keep(folder: pathlib.Path, name: str, parts: list[gpu_jobs.Part]) -> None:
    """Write what a job measured, all of it or nothing."""
    unfinished = folder / f"{name}.json.unfinished"
    unfinished.write_text(json.dumps(parts, indent=1))
    unfinished.rename(folder / f"{name}.json")


def measure(args, jobs, end: float) -> dict[str, str]:
    """Do the jobs that fit before a time; return why the others were not done."""
    left_out = {}
    for name, job in jobs.items():
        if kept(args.out, name) is not None:
            continue
        left = end - time.monotonic()
        if job.seconds > left:
            left_out[name] = every.no_time(job, left)
            continue
        print(f"{name}: {job.what}, {left:.0f} s left", flush=True)
        given = (args.out, args.tiny, *job.flags)
        parts, failure = apart.measured(job.measure, given, left)
        if failure:
            left_out[name] = failure
        else:
            keep(args.out, name, parts)
    return left_out


def run(args) -> int:
    """Do what the flags ask for; return the exit status, 1 where a job failed.

    Raises:
        Refusal: no time to measure in, no GPU, no folder or an unknown job.
    """
    end = time.monotonic() + every.seconds_of(args.minutes)
    jobs = gpu_jobs.JOBS
    if args.only:
        jobs = {args.only: errors.choose("job", jobs, args.only)}
    if args.list:
        print(every.listing(jobs))
        return 0
    check(args, jax.default_backend())
    args.out.mkdir(parents=True, exist_ok=True)
    # For the jobs: what one has compiled before it was ended is there the next time.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(args.out.absolute() / "compiled")
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "1"
    left_out = measure(args, jobs, end)
    parts = [part for name in gpu_jobs.JOBS for part in kept(args.out, name) or ()]
    machine = f"{registry.imported('presets').machine()}, {every.versions(PACKAGES)}"
    command = f"python -m benchmarks.gpu{' --tiny' * args.tiny}"
    text = section(machine, command, parts, left_out)
    (args.out / "section.md").write_text(text)
    print(f"\n{text}")
    return 1 if apart.FAILED in left_out.values() else 0


if __name__ == "__main__":
    every.main(run, parser)
