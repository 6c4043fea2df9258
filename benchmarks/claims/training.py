"""Training the seeds of an arm by one compiled step: the rest is as in --mode=train.

The program of --mode=train holds the seed as a constant, and compiling it takes longer
than half of these runs. Here the seed is an argument of the same train step, so that
the seeds of an arm compile once; draws, data and step are those of the ordinary run.
What is left out is what watches long runs: looks, records, going back. A run ends as an
ordinary one, which --mode=sample and the others open.
"""

import functools
import pathlib
import time

import jax
import numpy as np

from benchmarks.claims import arms, store
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import data_marks
from ddpm_jax.builders import step as build_step
from ddpm_jax.builders import training as build_training
from ddpm_jax.core import errors, flags
from ddpm_jax.data import order as order_lib
from ddpm_jax.modes import train as mode
from ddpm_jax.runs import checkpoints, directory
from ddpm_jax.runtime import compilation
from ddpm_jax.runtime.console import say

FIRST = 20  # steps by which the time of a run is measured


class NoTimeLeft(errors.Refusal):
    """A run that would not end in time."""


class Trainer:
    """Trains runs, and keeps the compiled step of the last arm."""

    def __init__(self):
        self._compiled = {}

    def train(
        self, config, record: dict, folder: pathlib.Path, *, ends: float | None = None
    ) -> bool:
        """Train a run to its end unless it is there.

        Args:
            config: of the run.
            record: what decides it but for the seed, see `arms.record`.
            folder: of the run.
            ends: `time.perf_counter()` by which it must be trained; None for any time.

        Returns:
            Whether it was trained just now.

        Raises:
            NoTimeLeft: by its first steps it would take longer.
            FloatingPointError: the loss of the last step is not finite.
        """
        run_dir = directory.RunDir.at(folder)
        with checkpoints.Checkpoints(run_dir.checkpoints, keep=1) as saved:
            if saved.latest_step() == config.train.steps:
                return False
        mesh = build_training.mesh(config)
        dataset = arms.dataset(config, "train")
        facts = build_data.DataInfo.of(dataset)
        network = arms.network(config, facts)
        abstract = build_training.abstract_state(config, network, mesh)
        step = self._step(config, record, facts, network, abstract, mesh)
        params = build_training.initial_params(config, network, mesh)
        state = build_training.initial_state(config, params, abstract)
        order = order_lib.Order(len(dataset), config.train.batch_size, config.seed)
        batches = mode.local_batches(config, network, dataset, order, mesh)(0)
        with batches as given:
            began = time.perf_counter()
            for done in range(config.train.steps):
                if done == FIRST:
                    jax.block_until_ready(state)
                    check_time(time.perf_counter() - began, config.train.steps, ends)
                state, metrics = step(state, next(given)[1], np.uint32(config.seed))
        loss = float(metrics["loss"])
        if not np.isfinite(loss):
            raise FloatingPointError(f"{folder}: the loss of the last step is {loss}")
        run_dir = directory.RunDir.create(folder)
        marks = data_marks.check(None, facts, dataset)
        mode.write_config(run_dir, config, facts, network, marks)
        with checkpoints.Checkpoints(run_dir.checkpoints, keep=1) as saved:
            saved.save(config.train.steps, state)
        return True

    def _step(self, config, record, facts, network, abstract, mesh):
        """Return the compiled `(state, batch, seed) → (state, metrics)`."""
        key = store.fingerprint(record)
        if key in self._compiled:
            return self._compiled[key]
        take_step = build_step.train_step(config, facts, network)

        @flags.as_written()
        def seeded(state, batch, seed):
            return functools.partial(take_step, seed=seed)(state, batch)

        program = build_step.jitted_step(seeded, abstract, mesh)
        batch = build_step.abstract_batch(config, facts, network, mesh)
        seed = jax.ShapeDtypeStruct((), np.uint32)
        compiled = compilation.compile_ahead(
            program, abstract, batch, seed, what="the train step of all seeds"
        )
        self._compiled = {key: compiled}
        return compiled


def check_time(seconds: float, steps: int, ends: float | None) -> None:
    """Say how long a run takes by its first steps, and refuse one that ends too late.

    Args:
        seconds: that the first `FIRST` steps took.
        steps: of the whole run.
        ends: see `Trainer.train`.
    """
    left = seconds * (steps - FIRST) / FIRST
    say(f"  {steps} steps take about {left + seconds:.0f} s on this machine")
    if ends is not None and time.perf_counter() + left > ends:
        there = max(0.0, ends - time.perf_counter())
        raise NoTimeLeft(
            f"no time left: {steps} steps take {left:.0f} s more on this machine, and "
            f"{there:.0f} s are there: give more --minutes"
        )
