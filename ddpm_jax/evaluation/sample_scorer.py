"""Scoring samples while a run trains: few images, the same noise every time."""

import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import class_labels
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.config import rules
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.evaluation import feature_networks, feature_pass
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
    return feature_networks.digest(*decisive)


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
    """Refuse metrics that would fail at the first look; say what few samples mean.

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


class SampleScorer:
    """The metrics of samples, with their networks and references loaded or made."""

    def __init__(
        self,
        config,
        facts,
        dataset: dataset_lib.Dataset,
        *,
        folder: pathlib.Path,
        mesh: jax.sharding.Mesh,
        should_stop: Callable[[], bool],
    ):
        """Load the networks, train those that are trained, measure the reference.

        Args:
            config, facts: of the run.
            dataset: its training split.
            folder: where statistics that are made are kept.
            mesh: devices to share each batch.
            should_stop: asked while the reference is measured; nothing can be scored
                once it has said so.

        Raises:
            Refusal: a reference that does not fit the run.
        """
        self._mesh = mesh
        self._batch_size = config.evaluation.batch_size
        self._loaded = []
        groups = feature_pass.grouped(
            config,
            metrics_of(config),
            shape=facts.shape,
            dataset=lambda: dataset,
        )
        for group in groups:
            network, _ = group.source.load()
            group.check(network, shape=facts.shape, crop=config.data.crop)
            compared = feature_pass.compared(
                group,
                network,
                folder=folder,
                mesh=mesh,
                batch_size=self._batch_size,
                should_stop=should_stop,
            )
            self._loaded.append((group, network, compared))

    def score(self, images: np.ndarray) -> Sequence[table.Score]:
        """Return the scores of uint8 images [n, H, W, C]."""
        return [
            score
            for group, network, compared in self._loaded
            for score in feature_pass.score(
                group,
                network,
                [images],
                compared,
                count=len(images),
                mesh=self._mesh,
                batch_size=self._batch_size,
            )
        ]
