"""The distances that need no download order what they should order."""

import functools

import jax
import numpy as np
import pytest
from sklearn import datasets

from ddpm_jax.core import errors
from ddpm_jax.metrics import features as features_lib
from ddpm_jax.metrics import frechet, proxy
from ddpm_jax.runtime import sharding


@functools.cache
def digits():
    """Two disjoint halves of the digits as (images, labels), in random order."""
    bunch = datasets.load_digits()
    images = np.round(bunch.images[..., None] * 255 / 16).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(images))
    return [(images[half], bunch.target[half]) for half in np.split(order, [900])]


@functools.cache
def network(name):
    if name == proxy.RANDOM:
        return proxy.random_network((8, 8, 1))
    trained = proxy.train_feature_network(*digits()[0], steps=300)
    assert trained.accuracy > 0.95
    return trained.network


def distance(net, images):
    mesh = sharding.make_mesh(devices=jax.devices()[:1])
    first, second = (
        features_lib.measure(net, part, mesh=mesh, batch_size=128).moments("pool")
        for part in (digits()[0][0], images)
    )
    return frechet.frechet_distance(
        first.mean, first.covariance, second.mean, second.covariance
    ).value


def noisy(images, deviation):
    noise = np.random.default_rng(0).normal(size=images.shape) * deviation
    return np.clip(np.round(images + noise), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", [proxy.TRAINED, proxy.RANDOM])
def test_worse_images_are_further_away(name):
    net = network(name)
    images, labels = digits()[1]
    real = distance(net, images)
    noise = [distance(net, noisy(images, deviation)) for deviation in (16, 32, 64)]
    lost = [distance(net, images[labels < kept]) for kept in (9, 7, 4)]
    few = distance(net, np.tile(images[:30], (30, 1, 1, 1)))
    assert real < noise[0] < noise[1] < noise[2]
    assert real < lost[0] < lost[1] < lost[2]
    # The smallest faults stand clear of what two real halves differ by.
    assert min(noise[0], lost[0], few) > 1.4 * real
    assert few > 5 * real


def test_networks_are_reproducible_and_told_apart():
    images, labels = digits()[0]
    first, again, other = (
        proxy.train_feature_network(images, labels, seed=seed, steps=2).network
        for seed in (0, 0, 1)
    )
    assert first.fingerprint == again.fingerprint != other.fingerprint
    made = [proxy.random_network((8, 8, 1), seed=seed) for seed in (0, 0, 1)]
    assert made[0].fingerprint == made[1].fingerprint != made[2].fingerprint
    assert {first.name, made[0].name} == {"proxy_fd", "proxy_fd_random"}


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 9, 1), (33, 20, 3)])
def test_images_of_any_size(shape):
    net = proxy.random_network(shape)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (2, *shape)).astype(np.uint8)
    found = np.asarray(net.apply(net.params, images)["pool"])
    assert found.shape == (2, 64)
    assert np.abs(found[0] - found[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("labels", "part"),
    [
        (np.zeros(900, int), "use proxy_fd_random"),
        (np.arange(900) - 1, "from -1"),
        (np.zeros(7, int), "one whole number for each"),
        (np.zeros(900), "float64"),
    ],
)
def test_labels_that_teach_nothing(labels, part):
    with pytest.raises(errors.Refusal, match=part):
        proxy.train_feature_network(digits()[0][0], labels)
