"""What training shows of itself: grids, validation loss, bits per dimension, report."""

import time

import numpy as np

from ddpm_jax import builders, generate
from ddpm_jax import config as config_lib
from ddpm_jax.data import images as images_lib
from ddpm_jax.metrics import bits
from ddpm_jax.report import page
from ddpm_jax.runtime import pictures
from ddpm_jax.runtime.console import say

GRID_IMAGES = 40
COMPARED_IMAGES = 512  # training images whose channels the samples are compared with
REPORT_SHARE = 0.02  # of the time, at most, goes into writing the report


def due(done: int, every: int) -> bool:
    """Return whether an interval ends after `done` steps; 0 means never."""
    return every > 0 and done % every == 0


def looks(train, done: int) -> bool:
    """Return whether anything is to be looked at after `done` steps."""
    return any(
        due(done, every)
        for every in (train.sample_every, train.validate_every, train.evaluate_every)
    )


def check(config, facts) -> None:
    """Refuse sampling and evaluation fields that would fail hours later."""
    builders.recipe(config, facts)
    builders.sampling_labels(config, facts)
    builders.respaced(config, "evaluation")
    if config.train.evaluate_every:
        builders.num_test_images(config, len(builders.dataset(config, "test")))


class Observer:
    """Looks at the state while it trains; compiles what it needs at the first look."""

    def __init__(
        self, config, facts, network, mesh, *, dataset, run_dir, writer, should_stop
    ):
        self._config = config
        self._facts = facts
        self._network = network
        self._mesh = mesh
        self._dataset = dataset
        self._run_dir = run_dir
        self._writer = writer
        self._should_stop = should_stop
        self._labels = builders.sampling_labels(config, facts)
        self._sampler = None
        self._channels = None
        self._validator = None
        self._scorer = None
        self._test = None
        self._next_report = 0.0

    def look(self, state, done: int) -> None:
        """Do what is due after `done` steps."""
        train = self._config.train
        if due(done, train.validate_every):
            self._validate(state, done)
        if due(done, train.sample_every):
            self._grid(state, done)
        if due(done, train.evaluate_every):
            self._evaluate(state, done)

    def report(self, status: str, *, reason: str = "") -> None:
        """Write report.html, while running unless it takes more than its time.

        Args:
            status: "running", "finished" or "stopped".
            reason: why it stopped.
        """
        began = time.monotonic()
        if status == "running" and began < self._next_report:
            return
        base = config_lib.base().to_dict()
        page.write(self._run_dir, status={"state": status, "reason": reason}, base=base)
        ended = time.monotonic()
        self._next_report = ended + (ended - began) / REPORT_SHARE

    def _ema(self, state):
        return state.ema[builders.ema_name(self._config)]

    def _test_split(self):
        if self._test is None:
            self._test = builders.dataset(self._config, "test")
        return self._test

    def _grid(self, state, done):
        """Write raw and EMA samples of the same noise side by side."""
        if self._sampler is None:
            say("compiling the sampler …")
            recipe = builders.recipe(self._config, self._facts)
            self._sampler = generate.make_sampler(recipe, self._network.apply)
        columns = pictures.columns_for(self._labels)
        grids = []
        for params in (state.params, self._ema(state)):
            made = generate.images(
                self._sampler,
                self._mesh,
                params,
                start=0,
                stop=GRID_IMAGES,
                batch_size=generate.rounded_batch(GRID_IMAGES, self._mesh),
                labels=self._labels,
            )
            grids.append(pictures.grid(images_lib.to_uint8(made), columns=columns))
        height, _, channels = grids[0].shape
        gap = np.full((height, pictures.PAIR_GAP, channels), 255, np.uint8)
        path = self._run_dir.samples / f"step_{done}.png"
        pictures.write_png(path, np.concatenate([grids[0], gap, grids[1]], axis=1))
        say(f"samples of raw (left) and EMA weights (right): {path}")
        self._writer.image(done, "samples", path)
        self._compare_channels(made, done)

    def _compare_channels(self, made, done):
        """Append mean and deviation of each channel, of EMA samples and of data."""
        if self._channels is None:
            count = min(COMPARED_IMAGES, len(self._dataset))
            chosen = np.linspace(0, len(self._dataset) - 1, count).astype(np.int64)
            self._channels = channels_of(self._dataset.fetch(chosen)["image"], "data")
        record = {"step": done, **channels_of(made, "sample"), **self._channels}
        self._writer.write(record)

    def _validate(self, state, done):
        """Append the loss of test images at fixed noise and timesteps."""
        if self._validator is None:
            say("compiling the validation …")
            self._validator = builders.validator(
                self._config,
                self._facts,
                self._network,
                self._test_split(),
                mesh=self._mesh,
            )
        record = {"step": done, **self._validator(self._ema(state))}
        self._writer.write(record)
        say(
            f"validation loss of the EMA weights {record['validation_loss']:.4f} "
            "(fixed test images, noise and t)"
        )

    def _evaluate(self, state, done):
        """Append the bits per dimension of test images, with fixed noise."""
        if self._scorer is None:
            say("compiling the evaluation …")
            self._scorer = builders.scorer(self._config, self._facts, self._network)
        num_images = builders.num_test_images(self._config, len(self._test_split()))
        schedule = builders.respaced(self._config, "evaluation")
        batch_size = min(self._config.evaluation.batch_size, num_images)
        sums = bits.evaluate(
            self._scorer,
            self._mesh,
            self._ema(state),
            self._test_split(),
            sums=bits.Sums.empty(schedule.num_steps),
            num_images=num_images,
            batch_size=generate.rounded_batch(batch_size, self._mesh),
            conditional=self._config.model.class_conditional,
            should_stop=self._should_stop,
        )
        if sums.count < num_images:
            return  # stopped on request: half a mean would not compare with others
        scores = sums.result()
        self._writer.write(
            {
                "step": done,
                "test_bits_per_dim": scores.total,
                "test_bits_per_dim_standard_error": scores.standard_error,
            }
        )
        say(f"test bits/dim of the EMA weights {scores.total:.4f}")


def channels_of(images, name: str) -> dict[str, list[float]]:
    """Return mean and standard deviation of each channel of images [n, H, W, C]."""
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
    return {
        f"{name}_channel_mean": pixels.mean(axis=0).tolist(),
        f"{name}_channel_std": pixels.std(axis=0).tolist(),
    }
