"""Small feature networks that need no download; their distances are not FID.

`proxy_fd` uses a classifier trained on the spot on the data set's own labels,
`proxy_fd_random` one that was never trained. Both order models of one data set
by quality; neither number means anything beside another data set, seed or paper.
"""

import hashlib
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from ddpm_jax.core import errors
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import resize, table
from ddpm_jax.runtime import distributed

TRAINED, RANDOM = table.PROXY, table.PROXY_RANDOM
DIMENSION = table.PROXY_DIMENSION
FIRST_WIDTH, WIDTH = 32, 64
SMALLEST = 4
"""Pixels of the last map: images are halved until no side is longer."""

BATCH_SIZE = 64
LEARNING_RATE = 2e-3
ACCURACY_BATCH = 1024


# ---- the network: 3×3 convolutions and halvings, a dense layer, a classifier ---------


def _stages(height, width):
    """Return how often an image is halved."""
    return max(0, math.ceil(math.log2(max(height, width) / SMALLEST)))


def _draw(image_shape, num_classes, seed):
    """Return parameters by He's rule; NumPy draws the same ones everywhere."""
    height, width, channels = image_shape
    random = np.random.default_rng(seed)

    def layer(*shape):
        fan_in = np.prod(shape[:-1])
        kernel = random.normal(0.0, np.sqrt(2 / fan_in), shape)
        return {
            "kernel": kernel.astype(np.float32),
            "bias": np.zeros(shape[-1], np.float32),
        }

    params = {}
    for stage in range(_stages(height, width) + 1):
        features = WIDTH if stage else FIRST_WIDTH
        params[f"conv_{stage}"] = layer(3, 3, channels, features)
        channels = features
        if stage:
            height, width = -(-height // 2), -(-width // 2)
    params["dense"] = layer(height * width * channels, DIMENSION)
    params["classifier"] = layer(DIMENSION, num_classes)
    return params


def _forward(params, images):
    """Return features [B, DIMENSION] and logits of uint8 images."""
    x = images.astype(jnp.float32) / 127.5 - 1.0
    for stage in range(sum(name.startswith("conv_") for name in params)):
        if stage:
            x = _halve(x)
        layer = params[f"conv_{stage}"]
        x = jax.lax.conv_general_dilated(
            x,
            layer["kernel"],
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,
        )
        x = jax.nn.relu(x + layer["bias"])
    x = _dense(params["dense"], x.reshape(x.shape[0], -1))
    return x, _dense(params["classifier"], jax.nn.relu(x))


def _halve(x):
    """Average 2×2 pixels; random features of strided convolutions see noise worse."""
    window = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, "SAME") / 4


def _dense(layer, x):
    product = jnp.matmul(x, layer["kernel"], precision=jax.lax.Precision.HIGHEST)
    return product + layer["bias"]


def _features(params, images):
    return {"pool": _forward(params, images)[0]}


def _network(name, params):
    digest = hashlib.sha256()
    for layer in sorted(params):
        digest.update(layer.encode())
        digest.update(params[layer]["kernel"].tobytes())
        digest.update(params[layer]["bias"].tobytes())
    return features_lib.FeatureNetwork(name, digest.hexdigest(), "", params, _features)


# ---- the two proxies -----------------------------------------------------------------


def random_network(
    image_shape: tuple[int, int, int], *, seed: int = 0
) -> features_lib.FeatureNetwork:
    """Return a network that was never trained, for `proxy_fd_random`.

    It needs no labels. It sees noise, blur and repetition about as well as the trained
    one, and missing classes less than half as well.

    Args:
        image_shape: (H, W, C) of the images to compare.
        seed: of the weights; keep it, since distances of different seeds differ.

    Returns:
        A network with the feature "pool", 64 numbers.
    """
    return _network(RANDOM, _draw(image_shape, 1, seed))


class Trained(NamedTuple):
    """A feature network made from a data set's labels.

    Attributes:
        network: with the feature "pool", 64 numbers.
        accuracy: of its classes on the images it was trained on; where that is near
            chance, the labels say nothing and neither do the features.
    """

    network: features_lib.FeatureNetwork
    accuracy: float


def train_feature_network(
    images: np.ndarray, labels: np.ndarray, *, seed: int = 0, steps: int = 600
) -> Trained:
    """Train a small classifier, whose last hidden layer makes `proxy_fd`.

    The same images, labels and seed give the same network on the same machine.

    Args:
        images: uint8 [n, H, W, C], real images only.
        labels: int [n], classes from 0.
        seed: of the weights and of the order of the images.
        steps: of Adam on batches of 64; seconds on a CPU for 8×8 images.

    Raises:
        Refusal: images of another kind, no label for each, a single class.
    """
    labels = np.asarray(labels)
    resize.check(images)
    _check_labels(images, labels)
    params = _draw(images.shape[1:], int(labels.max()) + 1, seed)
    optimizer = optax.adam(optax.cosine_decay_schedule(LEARNING_RATE, steps))

    @jax.jit
    def update(params, state, images, labels):
        gradient = jax.grad(_loss)(params, images, labels)
        change, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, change), state

    state = optimizer.init(params)
    for rows in _rows(len(images), steps, seed):
        params, state = update(params, state, images[rows], labels[rows])
    # Accelerators round differently from run to run; all processes need one network.
    params = distributed.arrays_from_first(jax.tree.map(np.asarray, params))
    return Trained(_network(TRAINED, params), _accuracy(params, images, labels))


def _loss(params, images, labels):
    _, logits = _forward(params, images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def _rows(count, steps, seed):
    """Yield the images of each step: whole random orders, one after the other."""
    random = np.random.default_rng(seed)
    orders = -(-steps * BATCH_SIZE // count)
    stream = np.concatenate([random.permutation(count) for _ in range(orders)])
    return stream[: steps * BATCH_SIZE].reshape(steps, BATCH_SIZE)


def _accuracy(params, images, labels):
    classify = jax.jit(lambda part: jnp.argmax(_forward(params, part)[1], axis=1))
    guesses = [
        np.asarray(classify(images[start : start + ACCURACY_BATCH]))
        for start in range(0, len(images), ACCURACY_BATCH)
    ]
    return float(np.mean(np.concatenate(guesses) == labels))


def _check_labels(images, labels):
    if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
        raise errors.Refusal(
            f"labels {labels.dtype}{list(labels.shape)} for {len(images)} images: "
            f"{TRAINED} needs one whole number for each"
        )
    if labels.min() < 0 or labels.min() == labels.max():
        raise errors.Refusal(
            f"labels from {labels.min()} to {labels.max()} are not two or more classes "
            f"counted from 0: use {RANDOM}, which needs none"
        )
