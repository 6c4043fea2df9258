"""The feature networks that metrics are defined on, and when each is at hand."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ddpm_jax.convert.formats import inception as inception_weights
from ddpm_jax.core import arrays, errors
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.data import images as images_lib
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import proxy
from ddpm_jax.models import inception
from ddpm_jax.runtime.console import say

PROXY_IMAGES = 10_000  # that a proxy is trained on, at most …
PROXY_BYTES = 2**29  # … and as many of them as this holds


class Source(NamedTuple):
    """A feature network before it is loaded or trained.

    Attributes:
        identity: changes with what the network will be.
        load: () → (network, notes for the reader of a card).
    """

    identity: str
    load: Callable[[], tuple[features_lib.FeatureNetwork, list[str]]]


def published(path: str, mode: str) -> Source:
    """Return the Inception of FID.

    Args:
        path: of its weights; "" for what the environment names.
        mode: a key of `resize.RULES`.

    Raises:
        Refusal: no weights; tells where to get them.
    """
    weights = inception_weights.load(
        inception_weights.find(path), inception.build().shapes
    )
    network = features_lib.inception_network(
        weights.params, fingerprint=weights.fingerprint, mode=mode
    )
    return Source(f"{weights.fingerprint}{mode}", lambda: (network, [*weights.notes]))


def random(image_shape: tuple[int, int, int]) -> Source:
    """Return the network that was never trained."""
    return Source(
        f"{proxy.RANDOM}{image_shape}", lambda: (proxy.random_network(image_shape), [])
    )


def trained(dataset: dataset_lib.Dataset, data_hash: str) -> Source:
    """Return the network that is trained on the spot, on the labels of a data set.

    Args:
        dataset: images and labels.
        data_hash: of the images, see `image_sets.hash_of`.

    Raises:
        Refusal: the data has no labels.
    """
    check_labels(dataset.name, dataset.num_classes)
    return Source(f"{proxy.TRAINED}{data_hash}", functools.partial(_train, dataset))


def check_labels(name: str, num_classes: int | None) -> None:
    """Refuse to train a feature network on data without two classes.

    Args:
        name: of the data.
        num_classes: of the data; None without labels.
    """
    if not num_classes or num_classes < 2:
        raise errors.Refusal(
            f"{proxy.TRAINED} is trained on labels, and {name!r} has "
            f"{num_classes or 'no'} classes: use {proxy.RANDOM}, which needs none"
        )


def _train(dataset):
    held = PROXY_BYTES // int(np.prod(dataset.shape))
    count = min(PROXY_IMAGES, held, len(dataset))
    say(f"training the feature network of {proxy.TRAINED} on {count} images …")
    chosen = arrays.spread(len(dataset), count)
    batch = dataset.fetch(chosen)
    made = proxy.train_feature_network(
        images_lib.to_uint8(batch["image"]), batch["label"]
    )
    say(f"it names the class of {100 * made.accuracy:.1f} % of them")
    note = (
        f"features of a classifier trained on {count} images of the data, "
        f"{100 * made.accuracy:.1f} % of which it names"
    )
    return made.network, [note]
