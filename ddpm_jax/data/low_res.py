"""Small versions of images: what a network for super-resolution reads beside x_t.

Every image gets one by area averaging, the exact mean of each block of pixels, as
Improved DDPM and ADM train their upsamplers. It is made of the finished image, so that
it is of the same crop and mirrored with it, whatever the source.

Noise-conditioning augmentation (Cascaded Diffusion Models, Ho et al. 2021, section 4.2)
is an option: the small image z becomes √ᾱ z + √(1−ᾱ) ε, and the network is given how
much noise that is. A level k stands for the noise of timestep k−1, and 0 for none.
"""

import dataclasses
import zlib

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.data.dataset import Dataset

KEY = "low_res"  # float32 [B, h, w, C] in [−1, 1]
LEVEL = "low_res_level"  # int32 [B], 0 … T


def area_mean(images: np.ndarray, factor: int) -> np.ndarray:
    """Return images [n, H, W, C] with the mean of every block of factor² pixels.

    Args:
        images: floats; H and W are multiples of `factor`.
        factor: side of a block in pixels.

    Returns:
        [n, H/factor, W/factor, C] of the same type.
    """
    total = np.zeros_like(images[:, ::factor, ::factor])
    for row in range(factor):
        for column in range(factor):
            total += images[:, row::factor, column::factor]
    return total / images.dtype.type(factor**2)


def noised(small: np.ndarray, level, noise: np.ndarray, alpha_bar) -> np.ndarray:
    """Return √ᾱ z + √(1−ᾱ) ε, and z itself where the level is 0.

    Args:
        small: float32 [n, h, w, C], z.
        level: integers [n], 0 … T.
        noise: as `small`, ε.
        alpha_bar: float64 [T] of the process.
    """
    kept = np.concatenate([[1.0], alpha_bar])[level][:, None, None, None]
    signal, scale = np.sqrt(kept), np.sqrt(1 - kept)
    return (signal * small + scale * noise).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class SmallVersions:
    """Makes the condition of images: see the module.

    Attributes:
        factor: sides of the image over those of its small version.
        alpha_bar: float64 [T] of the noise; None for a network that knows none.
    """

    factor: int
    alpha_bar: np.ndarray | None = None

    def __call__(self, images: np.ndarray, draws=None) -> dict[str, np.ndarray]:
        """Return the condition of images, arrays [n, ...] by key.

        Args:
            images: float32 [n, H, W, C].
            draws: (seed, place of the first image in the endless order) in training,
                where level and noise of an image depend on seed and place alone; None
                for no noise.
        """
        small = area_mean(images, self.factor)
        if self.alpha_bar is None:
            return {KEY: small}
        if draws is None:
            return {KEY: small, LEVEL: np.zeros(len(small), np.int32)}
        level, noise = _drawn(*draws, len(self.alpha_bar), small.shape)
        return {KEY: noised(small, level, noise, self.alpha_bar), LEVEL: level}


def check_factor(shape, factor: int) -> None:
    """Refuse a factor by which images cannot be made smaller.

    Args:
        shape: of one example.
        factor: data.low_res_factor.

    Raises:
        Refusal: no images, or sides that are no multiples.
    """
    if not images_lib.is_image(shape):
        raise errors.Refusal(
            f"data.low_res_factor={factor}: one example of the data is {list(shape)} "
            "and no image; set it to 0"
        )
    height, width, _ = shape
    if factor < 2 or height % factor or width % factor:
        raise errors.Refusal(
            f"data.low_res_factor={factor}: images of {height}x{width} have no means "
            f"of blocks of {factor}x{factor}; give a divisor of both sides, from 2 on"
        )


def with_small_versions(dataset: Dataset, make: SmallVersions) -> Dataset:
    """Return a data set whose examples come with small versions of their images.

    Raises:
        Refusal: see `check_factor`.
    """
    check_factor(dataset.shape, make.factor)
    return dataclasses.replace(dataset, derive=make)


def _drawn(seed, first_position, num_steps, shape):
    """Return a level of 0 … num_steps and noise for each of `shape[0]` images."""
    level = np.empty(shape[0], np.int32)
    noise = np.empty(shape, np.float32)
    purpose = zlib.crc32(b"data/low_res")
    for row in range(shape[0]):
        # The place stands in the upper half of the counter, so that no two images
        # share a block of it.
        generator = np.random.Generator(
            np.random.Philox(
                key=np.array([seed, purpose], np.uint64),
                counter=np.array([0, 0, first_position + row, 0], np.uint64),
            )
        )
        level[row] = generator.integers(num_steps + 1)
        noise[row] = generator.standard_normal(shape[1:], np.float32)
    return level, noise
