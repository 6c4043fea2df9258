"""Scoring samples while a run trains: few images, the same noise every time."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import class_labels
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.config import rules
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.evaluation import cards, feature_pass
from ddpm_jax.metrics import table
from ddpm_jax.runtime.console import say

INSTEAD = "leave it out: metrics of samples compare images"


def metrics_of(config) -> tuple[str, ...]:
    """Return the metrics of evaluation.in_training that are of samples."""
    names = rules.metric_names(config.evaluation.in_training)
    return tuple(name for name in names if name != table.BITS)


# What decides a score besides the weights and the data, which a run does not change.
OF_BITS = ("num_images", "in_training_samples", "steps", "respacing", "clip", "seed")
OF_SAMPLES = ("in_training_samples", "reference", "inception", "resize")
# The sampling fields of version 0.1, as the digests in its runs' best.json have them.
OF_0_1 = (
    *("method", "steps", "respacing", "eta", "labels", "guidance_scale", "clip"),
    *("dynamic_threshold", "seed"),
)


def protocol(config, name: str) -> str:
    """Return eight digits that change with how a metric is measured in training."""
    fields = OF_BITS if name == table.BITS else OF_SAMPLES
    decisive = [str(config.evaluation[field]) for field in fields]
    if name != table.BITS:
        decisive += _of_images(config)
    return cards.short_hash(*decisive)


def _of_images(config) -> list[str]:
    """Return the sampling fields that change images.

    Fields that came later count where they are unusual: what older runs kept in
    best.json still compares.
    """
    skipped = (*build_sampling.CHANGE_NO_IMAGE, *build_sampling.OF_WEIGHTS, *OF_0_1)
    of_0_1 = {name: config.sampling[name] for name in OF_0_1}
    of_0_1["labels"] = class_labels.listed(of_0_1["labels"])
    return [str(value) for value in of_0_1.values()] + [
        f"{name}={config.sampling[name]}"
        for name, usual in config_lib.base().sampling.items()
        if name not in skipped and config.sampling[name] != usual
    ]


def check(config, facts) -> None:
    """Refuse metrics that would fail later; say what few samples mean.

    Raises:
        Refusal: no weights, labels or reference, too few samples, or no images.
    """
    names = metrics_of(config)
    if not names:
        return
    for note in table.check_count(names, config.evaluation.in_training_samples):
        say(f"note: {note}")
    for name in names:
        build_data.check_pictures(facts, name, INSTEAD)
    dataset = build_data.dataset(config, "train")
    feature_pass.grouped(config, names, shape=facts.shape, dataset=lambda: dataset)


def make(
    config,
    facts,
    dataset: dataset_lib.Dataset,
    *,
    folder: pathlib.Path,
    mesh: jax.sharding.Mesh,
    should_stop: Callable[[], bool],
) -> Callable[[np.ndarray], list[table.Score]]:
    """Return `images → scores` of uint8 images [n, H, W, C].

    The networks are loaded, or trained, and the references measured before.

    Args:
        config, facts: of the run.
        dataset: its training split.
        folder: where statistics that are made are kept.
        mesh: devices to share each batch.
        should_stop: asked while the reference is measured; nothing can be scored once
            it has said so.

    Raises:
        Refusal: a reference that does not fit the run.
    """
    names, shared = metrics_of(config), {"mesh": mesh}
    shared["batch_size"] = config.evaluation.batch_size
    loaded = []
    for group in feature_pass.grouped(
        config, names, shape=facts.shape, dataset=lambda: dataset
    ):
        network, _ = group.source.load()
        group.check(network, shape=facts.shape, crop=config.data.crop)
        compared = feature_pass.compared(
            group, network, folder=folder, should_stop=should_stop, **shared
        )
        loaded.append((group, network, compared))

    def score(images):
        return [
            score
            for group, network, compared in loaded
            for score in feature_pass.score(
                group, network, [images], compared, count=len(images), **shared
            )
        ]

    return score
