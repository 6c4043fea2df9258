"""What training shows of itself: grids of samples and bits per dimension."""

import numpy as np

from ddpm_jax import builders, generate
from ddpm_jax.data import images as images_lib
from ddpm_jax.metrics import bits
from ddpm_jax.runtime import pictures

GRID_IMAGES = 40
MAX_CLASS_COLUMNS = 16


def due(done: int, every: int) -> bool:
    """Return whether an interval ends after `done` steps; 0 means never."""
    return every > 0 and done % every == 0


def grid_columns(labels) -> int:
    """Return the columns of a grid: one for each label if there are few, else 8."""
    if labels is not None and 1 < len(labels) <= MAX_CLASS_COLUMNS:
        return len(labels)
    return 8


def check(config, facts) -> None:
    """Refuse sampling and evaluation fields that would fail hours later."""
    builders.recipe(config, facts)
    builders.sampling_labels(config, facts)
    builders.respaced(config, "evaluation")


class Observer:
    """Looks at the state while it trains: grids of samples, bits per dimension."""

    def __init__(self, config, facts, network, mesh, *, run_dir, should_stop, say):
        self._config = config
        self._facts = facts
        self._mesh = mesh
        self._run_dir = run_dir
        self._should_stop = should_stop
        self._say = say
        recipe = builders.recipe(config, facts)
        self._labels = builders.sampling_labels(config, facts)
        self._sampler = generate.make_sampler(recipe, network.apply)
        self._network = network
        self._is_compiled = False
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
        batch_size = generate.rounded_batch(GRID_IMAGES, self._mesh)
        if not self._is_compiled:
            self._say("compiling the sampler …")
            self._is_compiled = True
        halves = []
        for params in (state.params, next(iter(state.ema.values()))):
            made = generate.images(
                self._sampler,
                self._mesh,
                params,
                start=0,
                stop=GRID_IMAGES,
                batch_size=batch_size,
                labels=self._labels,
            )
            tiles = images_lib.to_uint8(made)
            halves.append(pictures.grid(tiles, columns=grid_columns(self._labels)))
        gap = np.full((halves[0].shape[0], 16, halves[0].shape[2]), 255, np.uint8)
        path = self._run_dir.samples / f"step_{done}.png"
        pictures.write_png(path, np.concatenate([halves[0], gap, halves[1]], axis=1))
        self._say(f"samples of raw (left) and EMA weights (right): {path}")

    def _evaluate(self, state, done):
        """Append the bits per dimension of test images, with fixed noise."""
        if self._scorer is None:
            self._say("compiling the evaluation …")
            self._scorer = builders.scorer(self._config, self._facts, self._network)
            self._test = builders.dataset(self._config, "test")
        evaluation = self._config.evaluation
        scores = bits.evaluate(
            self._scorer,
            self._mesh,
            next(iter(state.ema.values())),
            self._test,
            num_images=evaluation.num_images or len(self._test),
            batch_size=generate.rounded_batch(evaluation.batch_size, self._mesh),
            conditional=self._config.model.class_conditional,
            should_stop=self._should_stop,
        )
        if scores is None:
            return
        self._run_dir.append_metrics(
            {
                "step": done,
                "test_bits_per_dim": scores.total,
                "test_bits_per_dim_standard_error": scores.standard_error,
            }
        )
        self._say(
            f"test bits/dim {scores.total:.3f} ± {scores.standard_error:.3f} (EMA)"
        )
