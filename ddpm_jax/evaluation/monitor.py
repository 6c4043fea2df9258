"""What training shows of itself: grids, validation loss, bits per dimension, report."""

import time
from collections.abc import Sequence

import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import captions, kinds, low_res, scoring
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import rules
from ddpm_jax.core import conditions
from ddpm_jax.data import images as images_lib
from ddpm_jax.evaluation import likelihood, sample_scorer
from ddpm_jax.metrics import bits, sensitivity, table
from ddpm_jax.report import page, sample_plots
from ddpm_jax.runs import best as best_lib
from ddpm_jax.runtime import distributed, files, image_grid
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation, sampler
from ddpm_jax.training import intervals
from ddpm_jax.training.intervals import GRID, SCORES, VALIDATION

GRID_IMAGES = 40
COMPARED_IMAGES = 512  # training images whose channels the samples are compared with
ERROR_OF_SCORE = "_standard_error"
BITS_RECORD = "test_bits_per_dim"
REPORT_SHARE = 0.02  # of the time, at most, goes into writing the report


def missing(train, run_dir, done: int) -> tuple[str, ...]:
    """Return what was due after `done` steps and is not there: a stop came first.

    Every process calls it.

    Args:
        train: config.train.
        run_dir: the run.
        done: steps taken.
    """
    wanted = intervals.looks(train, done) if done else ()
    if not wanted:
        return ()
    records = [r for r in run_dir.read_metrics() if r.get("step") == done]
    names = {name for record in records for name in record}
    there = {
        VALIDATION: "validation_loss" in names,
        GRID: grid_path(run_dir, done).exists(),
        SCORES: any(name.endswith(ERROR_OF_SCORE) for name in names),
    }
    return tuple(distributed.from_first([part for part in wanted if not there[part]]))


def grid_path(run_dir, done: int):
    """Return where the grid after `done` steps goes."""
    return run_dir.samples / f"step_{done}.png"


def check(config, facts, network, dataset) -> None:
    """Refuse data and fields that would fail after the run is made, or hours later.

    Args:
        config, facts: of the run.
        network: to be trained.
        dataset: its training split.
    """
    kind, first = kinds.of(config), dataset.fetch([0])
    specs = kind.reads(network)
    conditions.check(specs, conditions.selected(specs, first, dataset.name), 1)
    if not kind.makes_images:
        return
    given = enlarged(config, facts, dataset)
    recipe = kind.recipe(config, facts, given=given)
    if config.train.sample_every or config.train.evaluate_every:
        index = np.arange(1)
        recipe.condition_of(index, specs, given and given(index))
    if kind is not kinds.CHAIN:  # whose steps are all taken
        build_process.respaced(config, "evaluation")
    if config.train.evaluate_every:
        names = rules.metric_names(config.evaluation.in_training)
        kinds.check_metrics(config, names, field="evaluation.in_training")
        if table.BITS in names:
            build_data.check_grey(facts, table.BITS, likelihood.INSTEAD)
            build_data.num_test_images(config, len(build_data.dataset(config, "test")))
        sample_scorer.check(config, facts)


def enlarged(config, facts, dataset) -> low_res.Given | None:
    """Return what an upsampler enlarges while it trains; None for other runs.

    Args:
        config, facts: of the run.
        dataset: whose images it shows.
    """
    if config.model.kind != "upsampler":
        return None
    return low_res.given(config, facts, low_res.of_dataset(dataset))


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
        self._average = build_training.ema_name(config)
        self._named = "EMA" if self._average else "raw"
        self._classes = build_sampling.classes(
            config, facts, given=enlarged(config, facts, dataset)
        )
        self._sampler = None
        self._channels = None
        self._validator = None
        self._bits_scorer = None
        self._sample_scorer = None
        self._test = None
        self._next_report = 0.0

    def look(
        self,
        state,
        done: int,
        parts: Sequence[str],
        best: best_lib.Best | None = None,
    ) -> best_lib.Best | None:
        """Do some of what is due after `done` steps.

        Args:
            state: after those steps.
            done: their number.
            parts: from `intervals.looks` or `missing`.
            best: the best step so far.

        Returns:
            The score of this step by the first metric of evaluation.in_training, if it
            was due and is better.
        """
        if VALIDATION in parts:
            self._validate(state, done)
        if GRID in parts:
            self._grid(state, done)
        if SCORES in parts:
            return self._evaluate(state, done, best)
        return None

    def report(self, status: str, *, reason: str = "") -> None:
        """Write report.html, while running unless it takes more than its time.

        Process 0 does.

        Args:
            status: "running", "finished" or "stopped".
            reason: why it stopped.
        """
        began = time.monotonic()
        too_soon = status == "running" and began < self._next_report
        if too_soon or not distributed.is_first():
            return
        base = config_lib.base().to_dict()
        page.write(self._run_dir, status={"state": status, "reason": reason}, base=base)
        ended = time.monotonic()
        self._next_report = ended + (ended - began) / REPORT_SHARE

    def _used(self, state):
        """Return the weights that are looked at: the average where there is one."""
        return state.ema[self._average] if self._average else state.params

    def _test_split(self):
        if self._test is None:
            self._test = captions.dataset(self._config, self._facts, "test")
            build_data.check_alike(self._test)
        return self._test

    def _grid(self, state, done):
        """Write raw and EMA samples of the same noise side by side."""
        (made,) = self._sample(self._used(state), GRID_IMAGES)
        if images_lib.is_image(self._facts.shape):
            sides = [made]
            if self._average:
                sides = [*self._sample(state.params, GRID_IMAGES), made]
            self._write_grid(sides, done)
        else:
            self._write_plot(made, done)
        self._compare_channels(made, done)

    def _write_grid(self, sides, done):
        classes = self._classes
        columns = image_grid.columns_for(classes and classes.in_columns)
        grids = [
            image_grid.grid(images_lib.to_uint8(part), columns=columns)
            for part in sides
        ]
        height, _, channels = grids[0].shape
        gap = np.full((height, image_grid.PAIR_GAP, channels), 255, np.uint8)
        path = grid_path(self._run_dir, done)
        parts = [part for grid in grids for part in (gap, grid)][1:]
        image_grid.write_png(path, np.concatenate(parts, axis=1))
        told = "raw (left) and EMA weights (right)" if self._average else "raw weights"
        say(f"samples of {told}: {path}")
        self._writer.image(done, "samples", path)

    def _write_plot(self, made, done):
        """Write a plot of samples that are no images, in the place of a grid."""
        if distributed.is_first():
            path = grid_path(self._run_dir, done)
            files.write_bytes(path, sample_plots.picture(f"step {done}", made))
            say(f"plot of samples: {path}")

    def _sample(self, params, count, should_stop=lambda: False):
        """Return the first images of the usual noise, all there are when stopped."""
        if self._sampler is None:
            say("compiling the sampler …")
            kind, given = kinds.of(self._config), None
            if self._config.model.kind == "upsampler":
                given = enlarged(self._config, self._facts, self._test_split())
            recipe = kind.recipe(self._config, self._facts, given=given)
            self._sampler = kind.make_sampler(
                recipe,
                self._config,
                self._facts,
                self._network,
                self._mesh,
                given=given,
            )
        parts = generation.batches(
            self._sampler,
            params,
            start=0,
            stop=count,
            batch_size=sampler.rounded_batch(GRID_IMAGES, self._mesh),
            should_stop=should_stop,
        )
        return [made.images for _, made in parts]

    def _compare_channels(self, made, done):
        """Append mean and deviation of each channel, of samples and of data."""
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
            self._validator = kinds.of(self._config).validator(
                self._config,
                self._facts,
                self._network,
                self._test_split(),
                self._dataset,
                mesh=self._mesh,
            )
        record = {"step": done, **self._validator(self._used(state))}
        self._writer.write(record)
        accuracy = record.get("validation_accuracy")
        named = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
        to_text = record.get(sensitivity.NAME)
        if to_text is not None:
            named = f", sensitivity to the text {to_text:.3f} (0: it is ignored)"
        say(
            f"validation loss of the {self._named} weights "
            f"{record['validation_loss']:.4f}{named} (fixed test images, noise and t)"
        )

    def _evaluate(self, state, done, best):
        """Append the scores of the weights; return the first if it is the best."""
        names = rules.metric_names(self._config.evaluation.in_training)
        parts = [self._bits] if table.BITS in names else []
        if sample_scorer.metrics_of(self._config):
            parts.append(self._scores_of_samples)
        record = {"step": done}
        for part in parts:
            scores = part(state)
            if scores is None:
                return None  # stopped: half a mean would not compare with others
            for name, value, error in scores:
                record |= {name: value, f"{name}{ERROR_OF_SCORE}": error}
        self._writer.write(record)
        name, lower_is_better = table.first_card(names[0])
        name = BITS_RECORD if name == table.BITS else name
        protocol = sample_scorer.protocol(self._config, names[0])
        # Whether it is the best decides on a save: rounding must not divide processes.
        value = distributed.from_first(float(record[name]))
        found = best_lib.Best(done, name, value, protocol)
        if best and not found.is_like(best):
            say(
                f"{name} is the first measured like this: the best step so far, "
                f"{best.step} by {best.metric}, does not compare with it"
            )
        return found if found.beats(best, lower_is_better=lower_is_better) else None

    def _bits(self, state):
        """Return the bits per dimension of test images, with fixed noise."""
        config = self._config
        if self._bits_scorer is None:
            say("compiling the evaluation …")
            self._bits_scorer = scoring.scorer(config, self._facts, self._network)
        num_images = min(
            build_data.num_test_images(config, len(self._test_split())),
            config.evaluation.in_training_samples,
        )
        schedule = build_process.respaced(config, "evaluation")
        batch_size = min(config.evaluation.batch_size, num_images)
        sums = bits.evaluate(
            self._bits_scorer,
            self._mesh,
            self._used(state),
            self._test_split(),
            sums=bits.Sums.empty(schedule.num_steps),
            num_images=num_images,
            batch_size=sampler.rounded_batch(batch_size, self._mesh),
            condition_spec=self._network.condition_spec,
            should_stop=self._should_stop,
        )
        if sums.count < num_images:
            return None
        found = sums.result()
        say(f"test bits/dim of the {self._named} weights {found.total:.4f}")
        return [(BITS_RECORD, found.total, found.standard_error)]

    def _scores_of_samples(self, state):
        """Return the scores of the same images each time."""
        if self._sample_scorer is None:
            self._sample_scorer = sample_scorer.SampleScorer(
                self._config,
                self._facts,
                self._dataset,
                folder=self._run_dir.evaluation,
                mesh=self._mesh,
                should_stop=self._should_stop,
            )
        count = self._config.evaluation.in_training_samples
        made = self._sample(self._used(state), count, self._should_stop)
        made = [images_lib.to_uint8(part) for part in made]
        if sum(map(len, made)) < count:
            return None
        scores = self._sample_scorer.score(np.concatenate(made))
        told = ", ".join(f"{score.metric} {score.value:.4f}" for score in scores)
        say(f"{count} images of the {self._named} weights: {told}")
        return [(score.metric, score.value, score.standard_error) for score in scores]


def channels_of(images, name: str) -> dict[str, list[float]]:
    """Return mean and standard deviation of each channel of images [n, ..., C]."""
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
    return {
        f"{name}_channel_mean": pixels.mean(axis=0).tolist(),
        f"{name}_channel_std": pixels.std(axis=0).tolist(),
    }
