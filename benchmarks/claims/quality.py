"""How good made digits are: four numbers, from networks trained on the spot."""

import functools

import jax
import numpy as np
from sklearn import svm

from ddpm_jax.data import images as images_lib
from ddpm_jax.data import sources
from ddpm_jax.metrics import frechet, precision, proxy

LEVELS = 16 / 255  # uint8 to the scale of the digits' grey levels, 0 … 16


class Quality:
    """Scores of made digits against the training split, all from one feature network.

    `proxy_fd` is as in --mode=evaluate; precision and recall (k = 3) are of the same
    64 features; agreement is that of benchmarks/digits_quality.py.
    """

    def __init__(self, mesh):
        self._mesh = mesh

    @functools.cached_property
    def _real(self):
        dataset = sources.load("digits", "train")
        batch = dataset.fetch(np.arange(len(dataset)))
        return images_lib.to_uint8(batch["image"]), batch["label"]

    @functools.cached_property
    def _network(self):
        return proxy.train_feature_network(*self._real).network

    @functools.cached_property
    def _reader(self):
        images, labels = self._real
        return svm.SVC(gamma="scale").fit(self._pixels(images), labels)

    @functools.cached_property
    def _of_real(self):
        features = self._features(self._real[0])
        return features, frechet.moments(features)

    def _pixels(self, images):
        return images.reshape(len(images), -1) * LEVELS

    def _features(self, images):
        apply = jax.jit(self._network.apply)
        return np.asarray(apply(self._network.params, images)["pool"])

    def proxy_fd(self, images: np.ndarray) -> float:
        """Return the Fréchet distance of uint8 images [n, 8, 8, 1]."""
        real, made = self._of_real[1], frechet.moments(self._features(images))
        return frechet.frechet_distance(
            real.mean, real.covariance, made.mean, made.covariance
        ).value

    def scores(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Return all four numbers of images that were asked for by class.

        Args:
            images: uint8 [n, 8, 8, 1].
            labels: int [n].
        """
        near = precision.precision_recall(
            self._of_real[0], self._features(images), mesh=self._mesh
        )
        return {
            "proxy_fd": self.proxy_fd(images),
            "precision": near.precision,
            "recall": near.recall,
            "agreement": float(self._reader.score(self._pixels(images), labels)),
        }
