"""What training shows of itself: grids of samples and bits per dimension."""

import numpy as np

from ddpm_jax import builders, generate
from ddpm_jax.data import images as images_lib
from ddpm_jax.metrics import bits
from ddpm_jax.runtime import pictures
from ddpm_jax.runtime.console import say

GRID_IMAGES = 40
GAP_BETWEEN_GRIDS = 16  # pixels


def due(done: int, every: int) -> bool:
    """Return whether an interval ends after `done` steps; 0 means never."""
    return every > 0 and done % every == 0


def check(config, facts) -> None:
    """Refuse sampling and evaluation fields that would fail hours later."""
    builders.recipe(config, facts)
    builders.sampling_labels(config, facts)
    builders.respaced(config, "evaluation")
    if config.train.evaluate_every:
        builders.num_test_images(config, len(builders.dataset(config, "test")))


class Observer:
    """Looks at the state while it trains; compiles what it needs at the first look."""

    def __init__(self, config, facts, network, mesh, *, run_dir, should_stop):
        self._config = config
        self._facts = facts
        self._network = network
        self._mesh = mesh
        self._run_dir = run_dir
        self._should_stop = should_stop
        self._labels = builders.sampling_labels(config, facts)
        self._sampler = None
        self._scorer = None
        self._test = None

    def look(self, state, done: int) -> None:
        """Do what is due after `done` steps."""
        if due(done, self._config.train.sample_every):
            self._grid(state, done)
        if due(done, self._config.train.evaluate_every):
            self._evaluate(state, done)

    def _grid(self, state, done):
        """Write raw and EMA samples of the same noise side by side."""
        if self._sampler is None:
            say("compiling the sampler …")
            recipe = builders.recipe(self._config, self._facts)
            self._sampler = generate.make_sampler(recipe, self._network.apply)
        columns = pictures.columns_for(self._labels)
        grids = []
        for params in (state.params, state.ema[builders.ema_name(self._config)]):
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
        gap = np.full((height, GAP_BETWEEN_GRIDS, channels), 255, np.uint8)
        path = self._run_dir.samples / f"step_{done}.png"
        pictures.write_png(path, np.concatenate([grids[0], gap, grids[1]], axis=1))
        say(f"samples of raw (left) and EMA weights (right): {path}")

    def _evaluate(self, state, done):
        """Append the bits per dimension of test images, with fixed noise."""
        if self._scorer is None:
            say("compiling the evaluation …")
            self._scorer = builders.scorer(self._config, self._facts, self._network)
            self._test = builders.dataset(self._config, "test")
        num_images = builders.num_test_images(self._config, len(self._test))
        schedule = builders.respaced(self._config, "evaluation")
        batch_size = min(self._config.evaluation.batch_size, num_images)
        sums = bits.evaluate(
            self._scorer,
            self._mesh,
            state.ema[builders.ema_name(self._config)],
            self._test,
            sums=bits.Sums.empty(schedule.num_steps),
            num_images=num_images,
            batch_size=generate.rounded_batch(batch_size, self._mesh),
            conditional=self._config.model.class_conditional,
            should_stop=self._should_stop,
        )
        if sums.count < num_images:
            return  # stopped on request: half a mean would not compare with others
        scores = sums.result()
        self._run_dir.append_metrics(
            {
                "step": done,
                "test_bits_per_dim": scores.total,
                "test_bits_per_dim_standard_error": scores.standard_error,
            }
        )
        say(f"test bits/dim of the EMA weights {scores.total:.4f}")
