"""Evaluation while training: validation loss, sample grids, scores; the report."""

import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import captions, kinds, scoring
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import rules
from ddpm_jax.core import conditions
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.data import images as images_lib
from ddpm_jax.evaluation import likelihood, sample_grids, sample_scorer
from ddpm_jax.metrics import bits, sensitivity, table
from ddpm_jax.models import functional
from ddpm_jax.report import page
from ddpm_jax.runs import best as best_lib
from ddpm_jax.runs import directory, metric_writers
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import sampler
from ddpm_jax.training import loop

VALIDATION, GRID, SCORES = "validation", "grid", "scores"  # the parts of the monitor
ERROR_OF_SCORE = "_standard_error"
BITS_RECORD = "test_bits_per_dim"
REPORT_SHARE = 0.02  # of the time, at most, goes into writing the report


def due(train, done: int) -> tuple[str, ...]:
    """Return which of validation, grid and scores are due after `done` steps.

    Args:
        train: config.train.
        done: steps taken.
    """
    every = {
        VALIDATION: train.validate_every,
        GRID: train.sample_every,
        SCORES: train.evaluate_every,
    }
    return tuple(part for part, steps in every.items() if loop.is_due(done, steps))


def overdue(train, run_dir, done: int) -> tuple[str, ...]:
    """Return what was due after `done` steps and is not there: a stop came first.

    Every process calls it.

    Args:
        train: config.train.
        run_dir: the run.
        done: steps taken.
    """
    wanted = due(train, done) if done else ()
    if not wanted:
        return ()
    records = [r for r in run_dir.read_metrics() if r.get("step") == done]
    names = {name for record in records for name in record}
    there = {
        VALIDATION: "validation_loss" in names,
        GRID: sample_grids.grid_path(run_dir, done).exists(),
        SCORES: any(name.endswith(ERROR_OF_SCORE) for name in names),
    }
    return tuple(distributed.from_first([part for part in wanted if not there[part]]))


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
    given = sample_grids.enlarged(config, facts, dataset)
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


def reporter(run_dir, place):
    """Return `(status, reason="") → None`, which writes report.html in process 0.

    `status` is "running", "finished" or "stopped", `reason` why it stopped. While
    training runs, writing takes at most `REPORT_SHARE` of the time. That the report
    cannot be written is no reason to stop.

    Args:
        run_dir: the run.
        place: its directory: under the old name of a renamed run nothing is written.
    """
    next_report = 0.0

    def report(status, reason=""):
        nonlocal next_report
        if place.moved_to():
            return
        began = time.monotonic()
        too_soon = status == "running" and began < next_report
        if too_soon or not distributed.is_first():
            return
        base = config_lib.base().to_dict()
        try:
            page.write(run_dir, status={"state": status, "reason": reason}, base=base)
        except OSError as error:
            say(f"{error.filename} cannot be written ({error.strerror})")
            return
        ended = time.monotonic()
        next_report = ended + (ended - began) / REPORT_SHARE

    return report


SINCE = "text_matters_since"  # a step, in the record of its validation


class Run(NamedTuple):
    """What the parts of the monitor know of the run, see `make`."""

    config: Any
    facts: build_data.DataInfo
    network: functional.Network
    mesh: jax.sharding.Mesh
    dataset: dataset_lib.Dataset
    test_split: Callable[[], dataset_lib.Dataset]
    run_dir: directory.RunDir
    writer: metric_writers.Writer
    should_stop: Callable[[], bool]

    def weights(self, state):
        """Return the weights that are evaluated: the average where there is one."""
        average = build_training.ema_name(self.config)
        return state.ema[average] if average else state.params

    @property
    def weights_name(self) -> str:
        return "EMA" if self.config.train.ema_decay else "raw"


def make(config, facts, network, mesh, *, dataset, run_dir, writer, should_stop):
    """Return `(state, done, parts, best) → best`, which evaluates a state in training.

    `parts` are names from `due` or `overdue`, `best` is the best step so far or None.
    It returns the score of this step by the first metric of evaluation.in_training, if
    that was due and is better, else None. A part compiles what it needs when it is
    first due.

    Args:
        config, facts, network, mesh: of the run.
        dataset: its training split.
        run_dir: its directory.
        writer: gets the records.
        should_stop: whether training shall stop; scores are then not finished.
    """

    test_split = functools.cache(functools.partial(captions.test_split, config, facts))
    run = Run(
        *(config, facts, network, mesh, dataset, test_split),
        *(run_dir, writer, should_stop),
    )
    sample = sample_grids.sampling(run)
    validate, draw_grid = _validation(run), sample_grids.drawing(run, sample)
    score = _scoring(run, sample)

    def evaluate(state, done, parts, best=None):
        if VALIDATION in parts:
            validate(state, done)
        if GRID in parts:
            draw_grid(state, done)
        return score(state, done, best) if SCORES in parts else None

    return evaluate


def _validation(run):
    """Return `(state, done)`: writes the loss of test images at fixed noise and t."""

    @functools.cache
    def validator():
        say("compiling the validation …")
        make_validator = kinds.of(run.config).validator
        of_run, splits = run[:3], (run.test_split(), run.dataset)
        return make_validator(*of_run, *splits, mesh=run.mesh)

    def validate(state, done):
        record = {"step": done, **validator()(run.weights(state))}
        if _begins_to_matter(run, record):
            record[SINCE] = done
            say(f"the text has begun to matter at step {done:,}")
        run.writer.write(record)
        accuracy = record.get("validation_accuracy")
        named = "" if accuracy is None else f", accuracy {100 * accuracy:.1f} %"
        to_text = record.get(sensitivity.NAME)
        if to_text is not None:
            named = f", sensitivity to the text {to_text:.3f} (0: it is ignored)"
        say(
            f"validation loss of the {run.weights_name} weights "
            f"{record['validation_loss']:.4f}{named} (fixed test images, noise and t)"
        )

    return validate


def _begins_to_matter(run, record) -> bool:
    """Return whether a text changes predictions for the first time in this run.

    The file of the run is asked: it tells of earlier starts, and no longer of what was
    rolled back.
    """
    change = sensitivity.largest(record)
    if change is None or change < sensitivity.MATTERS:
        return False
    return not any(SINCE in earlier for earlier in run.run_dir.read_metrics())


def _scoring(run, sample):
    """Return `(state, done, best) → best`: writes scores; the first, if it is best."""
    config = run.config
    names = rules.metric_names(config.evaluation.in_training)
    scorers = [_bits(run)] if table.BITS in names else []
    if sample_scorer.metrics_of(config):
        scorers.append(_sample_scores(run, sample))

    def score(state, done, best):
        record = {"step": done}
        for scorer in scorers:
            scores = scorer(run.weights(state))
            if scores is None:
                return None  # stopped: half a mean would not compare with others
            for name, value, error in scores:
                record |= {name: value, f"{name}{ERROR_OF_SCORE}": error}
        run.writer.write(record)
        name, lower_is_better = table.first_card(names[0])
        name = BITS_RECORD if name == table.BITS else name
        protocol = sample_scorer.protocol(config, names[0])
        # Whether it is the best decides on a save: rounding must not divide processes.
        value = distributed.from_first(float(record[name]))
        found = best_lib.Best(done, name, value, protocol)
        if best and not found.is_like(best):
            say(
                f"{name} does not compare with the best step so far, {best.step} by "
                f"{best.metric}, which was measured differently"
            )
        return found if found.beats(best, lower_is_better=lower_is_better) else None

    return score


def _bits(run):
    """Return `params → scores`: bits per dimension of test images with fixed noise."""
    config, mesh = run.config, run.mesh

    @functools.cache
    def scorer():
        say("compiling the evaluation …")
        return scoring.scorer(config, run.facts, run.network)

    def score(params):
        make_scores = scorer()
        num_images = min(
            build_data.num_test_images(config, len(run.test_split())),
            config.evaluation.in_training_samples,
        )
        schedule = build_process.respaced(config, "evaluation")
        batch_size = min(config.evaluation.batch_size, num_images)
        sums = bits.evaluate(
            make_scores,
            mesh,
            params,
            run.test_split(),
            sums=bits.Sums.empty(schedule.num_steps),
            num_images=num_images,
            batch_size=sampler.rounded_batch(batch_size, mesh),
            condition_spec=run.network.condition_spec,
            should_stop=run.should_stop,
        )
        if sums.count < num_images:
            return None
        found = sums.result()
        say(f"test bits/dim of the {run.weights_name} weights {found.total:.4f}")
        return [(BITS_RECORD, found.total, found.standard_error)]

    return score


def _sample_scores(run, sample):
    """Return `params → scores` of the same images each time."""

    @functools.cache
    def scorer():
        return sample_scorer.make(
            run.config,
            run.facts,
            run.dataset,
            folder=run.run_dir.evaluation,
            mesh=run.mesh,
            should_stop=run.should_stop,
        )

    def score(params):
        score_images = scorer()
        count = run.config.evaluation.in_training_samples
        made = sample(params, count, run.should_stop)
        made = [images_lib.to_uint8(part) for part in made]
        if sum(map(len, made)) < count:
            return None
        scores = score_images(np.concatenate(made))
        listed = ", ".join(f"{score.metric} {score.value:.4f}" for score in scores)
        say(f"{count} images of the {run.weights_name} weights: {listed}")
        return [(score.metric, score.value, score.standard_error) for score in scores]

    return score
