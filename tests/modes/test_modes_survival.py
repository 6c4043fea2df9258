"""Training that is killed at any moment, again and again, ends with the same bits."""

import re
import time

import numpy as np
import processes
import pytest
from small_runs import STEPS, TINY, assert_same_bits, checkpoints, metrics

SEED = 5
KILLS = 20
KILLS_A_RUN = 4
EVERY = ("--config.train.checkpoint_every=1", "--config.train.log_every=1")
# Few timesteps, so that the sampler's history fills within the run and matters.
LEARNING_T = (
    *TINY,
    "--config.diffusion.schedule=cosine",
    "--config.diffusion.num_steps=4",
    "--config.diffusion.timestep_sampler=loss_second_moment",
    "--config.train.steps=12",
    *EVERY,
)
MOMENTS = {  # and the longest wait after them, in seconds
    "starting": 4.0,
    "compiling": 1.0,
    "training": 0.5,
    "saving": 0.03,
    "publishing": 0.01,
    "ending": 0.3,
}


def newest(run):
    return max(processes.published(run), default=0)


def has_come(moment, run, process):
    """Return a function that tells whether a moment of a process has come."""
    last, folder = newest(run), run / "checkpoints"
    return {
        "starting": lambda: True,
        "compiling": lambda: process.has_said("compiling"),
        "training": lambda: process.has_said("\nstep "),
        "saving": lambda: (
            process.has_said(f"\nstep {last + 1:>2}/")
            or process.has_said(f"\nstep {last + 1}/")
        )
        and [*folder.glob("staging-*")],
        "publishing": lambda: newest(run) > last,
        "ending": lambda: process.has_said("\nfinished") or newest(run) == STEPS,
    }[moment]


def disturb(run, folder, moments, generator, *arguments, devices=1):
    """Start a run again and again and kill it at one moment after the other.

    Returns:
        The moments at which it was killed, fewer where it came to its end before.
    """
    killed = []
    for moment in moments:
        last = newest(run)
        said = folder / f"{len(killed)}-{moment}"
        with processes.started(
            said, *arguments, f"--workdir={run}", devices=devices
        ) as (process,):
            process.wait_for(has_come(moment, run, process))
            time.sleep(generator.uniform(0, MOMENTS[moment]))
            process.running.kill()
            told = process.finish()
        if told.status == 0:
            break  # it was faster
        assert told.status == -9, told.out + told.err
        killed.append(moment)
        resumed = re.search(r"resumed at step (\d+)", told.out)
        assert int(resumed[1]) == last if resumed else not told.out.count("\nstep ")
    return killed


def assert_nothing_is_lost(run, expected):
    """A run has the bits, the records and the files of one that was never killed."""
    assert_same_bits(processes.whole_state(run), processes.whole_state(expected))
    found, wanted = (
        [(r["step"], r["loss"]) for r in metrics(w) if "loss" in r]
        for w in (run, expected)
    )
    assert found == wanted
    names = [name for name in checkpoints(run) if name != "best.json"]
    assert [name for name in names if not re.match(r"\d+(\.sha256\.json)?$", name)] == []
    for step in processes.published(run):
        assert f"{step}.sha256.json" in names
