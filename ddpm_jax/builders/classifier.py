"""The parts of a run that trains a classifier of noisy images."""

import functools

from ddpm_jax.builders import network as build_network
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.process import schedule
from ddpm_jax.builders.training import learning_rate, optimizer
from ddpm_jax.config import guided
from ddpm_jax.core import arrays, conditions
from ddpm_jax.diffusion import process
from ddpm_jax.metrics import classifier_validation
from ddpm_jax.sampling import sampler
from ddpm_jax.training import classifier_step

LABEL = {"label": conditions.Spec((), "int32")}  # what a batch holds besides images
VALIDATION_IMAGES = 256  # of each split, times 4 timesteps: a few training steps' work


def check_new(config, facts) -> None:
    """Refuse a new run that does not fit the one that it is to guide.

    A run that exists needs that one no more.

    Raises:
        Refusal: see `guided.check`.
    """
    if not config.model.guides:
        return  # of a published process, or one that the config spells out
    stored, theirs = guided.read(config.model.guides)
    their_facts = DataInfo.from_dict(stored["data"])
    imported = stored.get("imported") is not None
    guided.check(config, facts, theirs, their_facts, imported=imported)


def train_step(config, facts, network):
    """Return `(state, batch) → (state, metrics)` for this config.

    Raises:
        Refusal: fields that only diffusion models have.
    """
    build_network.refuse_fields(config, build_network.NOT_OF_THEIR_TRAINING)
    return functools.partial(
        classifier_step.train_step,
        seed=config.seed,
        apply=network.apply,
        tables=process.tables(schedule(config)),
        num_classes=facts.num_classes,
        optimizer=optimizer(config),
        learning_rate=learning_rate(config),
        ema_ramp=config.train.ema_ramp,
        dropout=config.model.dropout > 0,
        microbatches=config.train.microbatches,
    )


def validator(config, facts, network, test, train, *, mesh):
    """Return the compiled validation, see `metrics.classifier_validation`."""
    del facts
    count = min(VALIDATION_IMAGES, len(test), len(train))
    splits = {
        classifier_validation.TEST: _spread(test, count),
        classifier_validation.TRAINING: _spread(train, count),
    }
    return classifier_validation.make_validator(
        schedule(config),
        network.apply,
        splits,
        seed=config.evaluation.seed,
        mesh=mesh,
        batch_size=sampler.rounded_batch(min(count, config.train.batch_size), mesh),
    )


def _spread(dataset, count):
    """Return images and labels from all over a split, which may be sorted by class."""
    batch = dataset.fetch(arrays.spread(len(dataset), count))
    return batch["image"], batch["label"]
