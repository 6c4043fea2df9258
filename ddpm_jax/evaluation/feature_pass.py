"""One pass over the samples for all metrics of one feature network."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Sequence

import jax
import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.evaluation import cards, feature_networks, image_sets, references
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import proxy, table
from ddpm_jax.runtime import distributed
from ddpm_jax.sampling import sampler


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
    """Metrics that read the features of one network.

    Attributes:
        names: keys of `table.METRICS`.
        source: of the network.
        reference: what is compared with; None where nothing is.
    """

    names: tuple[str, ...]
    source: feature_networks.Source
    reference: references.Reference | None

    @property
    def summed(self) -> tuple[str, ...]:
        """Features whose moments are needed."""
        return self._united("summed")

    @property
    def kept(self) -> tuple[str, ...]:
        """Features that are needed image by image."""
        return self._united("kept")

    @property
    def compared(self) -> tuple[str, ...]:
        """Features that are needed image by image of the reference too."""
        names = [n for n in self.names if table.METRICS[n].compares == "features"]
        return ("pool",) if names else ()

    @property
    def cards(self) -> tuple[str, ...]:
        """Names of the numbers that the metrics give."""
        return tuple(card for n in self.names for card in table.METRICS[n].cards)

    @property
    def digest(self) -> str:
        """Eight digits that change with the network or the reference."""
        reference = self.reference.hash if self.reference else ""
        return cards.short_hash(self.source.identity, reference)

    def _united(self, field):
        found = [f for n in self.names for f in getattr(table.METRICS[n], field)]
        return tuple(dict.fromkeys(found))

    def check(self, network, *, shape, crop) -> None:
        """Refuse a comparison that would say nothing, see `references.check`."""
        if self.reference:
            references.check(
                self.reference,
                network,
                summed=self.summed,
                kept=self.compared,
                shape=shape,
                crop=crop,
            )


def grouped(
    config,
    names: Sequence[str],
    *,
    shape: tuple[int, int, int],
    dataset: Callable[[], dataset_lib.Dataset] | None,
) -> list[Group]:
    """Return the groups of some metrics, by evaluation.*.

    Args:
        config: says where the weights and the reference are.
        names: keys of `table.METRICS`.
        shape: (H, W, C) of the samples.
        dataset: gives the training split of the run; None without a run.

    Raises:
        Refusal: no weights, no labels, no reference.
    """
    evaluation = config.evaluation
    training_split = functools.cache(dataset) if dataset else None

    @functools.cache
    def reference():
        if evaluation.reference:
            return references.of_path(evaluation.reference)
        if training_split is None:
            raise errors.Refusal(
                "evaluation.reference is empty and there is no --workdir whose data "
                "could be the reference: give one of them"
            )
        images = image_sets.of_dataset(training_split(), config.data.crop)
        return references.of_images(images)

    def trained():
        split = training_split()
        if tuple(split.shape) != shape:
            raise errors.Refusal(
                f"{proxy.TRAINED} is trained on the run's images, "
                f"{list(split.shape)}, and the samples are {list(shape)} "
                "(height, width, channels): score samples of that size"
            )
        return feature_networks.trained(
            split, image_sets.hash_of(split, config.data.crop)
        )

    sources = {
        features_lib.INCEPTION: lambda: feature_networks.published(
            evaluation.inception, evaluation.resize
        ),
        proxy.TRAINED: trained,
        proxy.RANDOM: lambda: feature_networks.random(shape),
    }
    groups = []
    for name, source in sources.items():
        own = tuple(n for n in names if table.METRICS[n].network == name)
        if not own:
            continue
        compares = any(table.METRICS[n].compares != "nothing" for n in own)
        groups.append(Group(own, source(), reference() if compares else None))
    distributed.check_alike(
        {
            f"the network and reference of {' and '.join(g.names)}": g.digest
            for g in groups
        },
        "give every host the same files",
    )
    return groups


def even_batch(count: int, limit: int, mesh: jax.sharding.Mesh) -> int:
    """Return a batch size near `limit` that gives the jackknife equal parts."""
    rounds = math.ceil(count / (features_lib.GROUPS * limit))
    return sampler.rounded_batch(
        math.ceil(count / (features_lib.GROUPS * rounds)), mesh
    )


def compared(
    group: Group,
    network: features_lib.FeatureNetwork,
    *,
    folder: pathlib.Path,
    mesh: jax.sharding.Mesh,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> table.Compared | None:
    """Return what the samples are compared with, measured now or before.

    Args:
        folder: where statistics that are made are kept.
        mesh: devices to share each batch.
        batch_size: images measured at a time.
        should_stop: asked between parts of the images.

    Returns:
        None if stopped.
    """
    options = {
        "mesh": mesh,
        "batch_size": sampler.rounded_batch(batch_size, mesh),
        "should_stop": should_stop,
    }
    found = features = None
    if group.summed:
        found = references.load_statistics(
            group.reference, network, group.summed, folder=folder, **options
        )
        if found is None:
            return None
    if group.compared:
        features = references.load_features(group.reference, network, **options)
        if features is None:
            return None
    return table.Compared(found, features)


def score(
    group: Group,
    network: features_lib.FeatureNetwork,
    images: Iterable[np.ndarray],
    compared_with: table.Compared,
    *,
    count: int,
    mesh: jax.sharding.Mesh,
    batch_size: int,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[table.Score] | None:
    """Return the scores of some images by all metrics of a group.

    Args:
        images: uint8 [n, H, W, C] parts of them, `count` images in all.
        compared_with: from `compared`.
        count: number of images.
        mesh: devices to share each batch.
        batch_size: images measured at a time, at most.
        should_stop: asked between parts of the images.

    Returns:
        None if stopped.
    """
    measured = features_lib.measure(
        network,
        references.until(images, should_stop),
        mesh=mesh,
        batch_size=even_batch(count, batch_size, mesh),
        summed=group.summed,
        kept=group.kept,
        on_batch=references.progress_printer(count),
    )
    if measured.num_images < count:
        return None
    return [
        score
        for name in group.names
        for score in table.METRICS[name].score(measured, compared_with, mesh)
    ]
