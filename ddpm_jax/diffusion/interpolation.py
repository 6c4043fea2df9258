"""Interpolation between two images: mixes of their noisy states, to be decoded.

In x_t (DDPM, section 4.4): both images are noised to the same t, mixed linearly, and
decoded by the stochastic chain from t. In latents (DDIM, section 4.3): both are encoded
to x_T, mixed on a sphere, and decoded without noise.
"""

import jax
import jax.numpy as jnp

from ddpm_jax.core import arrays
from ddpm_jax.diffusion import process

NARROW = 1e-3  # sin θ from which on the arc between two latents is known to float32


def in_x_t(
    tables: process.Tables,
    x_0,
    other,
    t,
    share,
    *,
    noise,
    other_noise=None,
    preserves_variance: bool = False,
):
    """Return (1−λ) x_t + λ x'_t, a mix of two images at the same t, [B, ..., C].

    With independent noise the mix has less noise than x_t has, (1−λ)² + λ² of its
    variance, and the network takes it for a smoother image. `preserves_variance` scales
    the noise alone, so that the mix is a draw of q(x_t | (1−λ) x_0 + λ x'_0).

    Args:
        tables: the (respaced) process.
        x_0, other: the images, [B, ..., C].
        t: int32 [B]; t = 0 is one step of noise.
        share: λ, a number or [B]; 0 gives x_t, 1 gives x'_t.
        noise: [B, ..., C], of x_0. For a row of images that change smoothly, the same
            for all λ.
        other_noise: of the other image; None for the same noise, whose variance any
            mix keeps.
        preserves_variance: see above; DDPM's own figure is without it.

    Reference: Ho et al. 2020, section 4.4 and figure 8.
    """
    share = _per_image(share, x_0)
    if other_noise is None:
        other_noise = noise
    elif preserves_variance:
        length = jnp.sqrt((1 - share) ** 2 + share**2)
        noise, other_noise = noise / length, other_noise / length
    first = process.q_sample(tables, x_0, t, noise)
    return (1 - share) * first + share * process.q_sample(tables, other, t, other_noise)


def spherical(latent, other, share):
    """Return the spherical interpolation of two latents, image by image.

    The direction goes along the arc between those of a and b over all axes of an image,
    sin((1−λ)θ)/sin θ · a/|a| + sin(λθ)/sin θ · b/|b|, and the length evenly from |a| to
    |b|. For latents of one length this is DDIM's formula, whose mixes of others grow
    without bound near θ = π. Where a and b are nearly parallel or nearly opposite,
    sin θ says nothing, and a linear mix of the directions is scaled to length 1. One
    form passes into the other without a jump. Between latents that are exactly opposite
    there is no arc to choose: their mix passes through 0 at λ = ½.

    Args:
        latent, other: a and b, [B, ..., C].
        share: λ, a number or [B]; 0 gives a, 1 gives b.

    Reference: Song et al. 2021 (DDIM), appendix D.5.
    """
    share = _per_image(share, latent)
    length, other_length = _length(latent), _length(other)
    one = latent / jnp.where(length > 0, length, 1.0)
    two = other / jnp.where(other_length > 0, other_length, 1.0)
    # Exact near 0 and near π, where the arc cosine is not.
    angle = 2 * jnp.arctan2(_length(one - two), _length(one + two))
    sine = jnp.sin(angle)
    arc = jnp.sin((1 - share) * angle) * one + jnp.sin(share * angle) * two
    line = (1 - share) * one + share * two
    arc = arc / jnp.maximum(sine, NARROW)
    line = line / jnp.maximum(_length(line), NARROW)
    weight = jnp.clip(sine / NARROW - 1, 0.0, 1.0)  # 0 up to NARROW, 1 from its double
    direction = weight * arc + (1 - weight) * line
    return ((1 - share) * length + share * other_length) * direction


def circular(latent, other, angle):
    """Return cos θ · a + sin θ · b, ADM's interpolation of latents.

    It keeps the variance of independent latents of variance 1, and not that of others.

    Args:
        latent, other: a and b, [B, ..., C]; embeddings and log-probabilities too.
        angle: θ, a number or [B], from 0, which gives a, to π/2, which gives b.

    Reference: Dhariwal & Nichol 2021, appendix on interpolations.
    """
    angle = _per_image(angle, latent)
    return jnp.cos(angle) * latent + jnp.sin(angle) * other


def _per_image(values, like) -> jax.Array:
    values = jnp.broadcast_to(jnp.asarray(values, like.dtype), like.shape[:1])
    return arrays.expand_to(values, like)


def _length(values):
    """Return the length of each image, [B, 1, ...]."""
    squares = jnp.sum(jnp.square(values).reshape(values.shape[0], -1), axis=1)
    return arrays.expand_to(jnp.sqrt(squares), values)
