"""The likeliest class of a picture, against networks whose classes are known."""

import jax
import numpy as np
import pytest

from ddpm_jax import config as config_lib
from ddpm_jax.core import conditions
from ddpm_jax.editing import likeliest
from ddpm_jax.runtime import sharding

SIDE, CLASSES, SPREAD = 2, 12, 0.3
RANDOM = np.random.default_rng(2)
MEANS = RANDOM.uniform(-1, 1, (CLASSES, SIDE, SIDE, 1)).astype(np.float32)


class Optimal:
    """Predicts the noise of x_0 ~ N(mean of the class, SPREAD² I)."""

    def __init__(self, alpha_bar):
        self._alpha_bar = np.asarray(alpha_bar, np.float32)
        self.condition_spec = {"label": conditions.Spec((), "int32", none=CLASSES)}

    def prepare(self, params, condition):
        return condition

    def apply(self, params, x_t, t_seen, condition):
        signal = params["alpha_bar"][t_seen][:, None, None, None]
        mean = params["means"][condition["label"]]
        gap = x_t - signal**0.5 * mean
        return (1 - signal) ** 0.5 * gap / (SPREAD**2 * signal + 1 - signal)


@pytest.fixture(scope="module")
def config():
    config = config_lib.base()
    config.diffusion.num_steps = 50
    config.diffusion.variance = "fixed_small"
    config.sampling.batch_size = 100
    return config


def found(config, pictures, devices=None):
    betas = np.linspace(20 * 1e-4, 20 * 0.02, 50)  # "linear" at T = 50
    alpha_bar = np.cumprod(1 - betas).astype(np.float32)
    params = {"alpha_bar": alpha_bar, "means": MEANS}
    mesh = sharding.make_mesh(devices=devices)
    return likeliest.of_pictures(
        Optimal(alpha_bar), mesh, params, config, pictures, num_classes=CLASSES
    )


def test_the_class_of_the_nearest_mean(config):
    """Of Gaussian classes of one covariance the nearest mean is the likeliest."""
    noise = RANDOM.normal(size=(30, *MEANS.shape[1:])).astype(np.float32)
    pictures = MEANS[np.arange(30) % CLASSES] + SPREAD * noise
    far = ((pictures[:, None] - MEANS) ** 2).sum(axis=(2, 3, 4))
    made = found(config, pictures)
    nearest, second = np.sort(far, axis=1)[:, :2].T
    clear = made.scores > 3
    assert clear.sum() > 15
    np.testing.assert_array_equal(made.labels[clear], far.argmin(axis=1)[clear])
    # Where it is unsure, the two are about as near.
    assert np.all(second[made.scores < 1] - nearest[made.scores < 1] < 0.5)
    assert np.all(made.losses[:, 0] <= made.losses[:, 1])


def test_a_picture_has_the_same_class_beside_others(config):
    pictures = MEANS[:3] + 0.1
    together = found(config, pictures)
    alone = found(config, pictures[1:2], jax.devices()[:1])
    assert together.labels[1] == alone.labels[0]
    np.testing.assert_allclose(together.losses[1], alone.losses[0], rtol=1e-5)
