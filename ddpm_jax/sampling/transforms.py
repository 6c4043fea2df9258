"""What a recipe changes a chain by, besides solver, hooks and guidance by mixing.

A transform is a function here, or in a file of its own, and an entry of `TRANSFORMS`.
It belongs to one of the three places of `diffusion.samplers.sample`:

    "denoiser"      denoise → denoise, which may be differentiated
    "prediction"    (x_t, t, prediction) → prediction, such as a classifier's gradient
    "step"          (x, t_next, noise) → x, on x_T and after every step
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ddpm_jax.core import arrays
from ddpm_jax.diffusion import (
    guidance,
    inpainting,
    interpolation,
    inversion,
    operators,
    process,
    reconstruction,
)
from ddpm_jax.models import clip

DENOISER, PREDICTION, STEP = PLACES = ("denoiser", "prediction", "step")


class Tools(NamedTuple):
    """What a transform is made with, inside the compiled program.

    Attributes:
        tables: the (respaced) process; its arrays are longer than T′.
        index: int32 [B], numbers of the images.
        turn: int32 [B], index // repeats: which of the given things an image is of.
        condition: of these images, by key; more than the network reads, where a
            transform `reads` it.
        arrays: what the caller gave by name, such as an image and its mask.
        networks: by name, `(x_t, t_seen) → output` with their weights and what they
            read of the condition.
    """

    tables: process.Tables
    index: jax.Array
    turn: jax.Array
    condition: Mapping[str, jax.Array]
    arrays: Mapping[str, Any]
    networks: Mapping[str, Callable]

    def of_images(self, name: str) -> jax.Array:
        """Return the rows [B, ...] of an array [n, ...] that images take in turn."""
        rows = self.arrays[name]
        return rows[self.turn % rows.shape[0]]


class Transform(NamedTuple):
    """An entry of `TRANSFORMS`.

    Attributes:
        place: one of `PLACES`.
        make: `(tools, **options) → callable` of that place; options are the numbers of
            the recipe's part, traced.
        form: of a prediction transform, "mean" or "score": what the solver must read;
            "" for both.
        reads: keys of the condition that it needs.
    """

    place: str
    make: Callable
    form: str = ""
    reads: tuple[str, ...] = ()


# ---- guidance by the gradient of a classifier, or of CLIP ----------------------------

CLASSIFIER = "classifier"  # among the networks
CLASS = "class"  # in the condition: int32 [B], the classes it guides to


def _by_gradient(form, quantity):
    """Return the maker of guidance in a form, see `guidance.classifier`.

    `quantity` makes `(x_t, t_seen) → [B]`, whose gradient guides, from the network.
    """

    def make(tools, *, scale, below):
        guide = guidance.ClassifierGuidance(
            tools.tables, quantity(tools.networks[CLASSIFIER], tools), scale, form
        )

        def transform(x_t, t, prediction):
            # All images of a chain are at the same t.
            return jax.lax.cond(
                t[0] < below, guide, lambda x_t, t, kept: kept, x_t, t, prediction
            )

        return transform

    return make


def log_prob_of(classifier, tools: Tools):
    """Return `(x_t, t_seen) → log p(class | x_t)`, [B], of the classes asked for."""
    wanted = tools.condition[CLASS]

    def log_prob(x_t, t_seen):
        logits = classifier(x_t, t_seen).astype(jnp.float32)
        each = jax.nn.log_softmax(logits, axis=-1)
        return jnp.take_along_axis(each, wanted[:, None], axis=-1)[:, 0]

    return log_prob


def agreement_of(network, tools: Tools):
    """Return `(x_t, t_seen) → 100·cos of image and text`, [B], what CLIP returns.

    Reference: GLIDE (Nichol et al. 2021), section 2.4.
    """
    del tools
    return network


# ---- inpainting: see `diffusion.inpainting` ------------------------------------------

PICTURE, HOLE = "picture", "hole"  # among the arrays: [n, ...], and bool [n, H, W, 1]


def _known_region(tools):
    picture, hole = tools.of_images(PICTURE), tools.of_images(HOLE)
    return inpainting.known_region(tools.tables, picture, hole)


def _pasted(tools):
    return inpainting.pasted(tools.of_images(PICTURE), tools.of_images(HOLE))


def _overwritten(tools):
    hook = inpainting.overwritten(tools.of_images(PICTURE), tools.of_images(HOLE))

    def transform(denoise):
        # In front of the others: what is known is not clipped away from them.
        return dataclasses.replace(denoise, x_0_hooks=(hook, *denoise.x_0_hooks))

    return transform


def _known(tools):
    return tools.of_images(PICTURE).astype(jnp.float32)


def _known_mask(tools):
    return 1 - tools.of_images(HOLE).astype(jnp.float32)


def _reconstruction(likelihood):
    def make(tools, *, scale):
        return inpainting.reconstruction(
            tools.tables,
            tools.of_images(PICTURE),
            tools.of_images(HOLE),
            likelihood=likelihood,
            scale=scale,
        )

    return make


# ---- restoration: see `diffusion.operators` ------------------------------------------

# Among the arrays: y, [n, ...] of each of n, and what they were measured by.
MEASURED, OPERATOR = "measured", "operator"


def _restoration(likelihood):
    def make(tools, *, scale, iterations, measurement_std):
        return reconstruction.reconstruction(
            tools.tables,
            tools.arrays[OPERATOR].of(tools.turn),
            tools.of_images(MEASURED),
            likelihood=likelihood,
            scale=scale,
            iterations=iterations.astype(jnp.int32),
            measurement_std=measurement_std,
        )

    return make


def _projected(tools, *, iterations):
    return operators.projected(
        tools.arrays[OPERATOR].of(tools.turn),
        tools.of_images(MEASURED),
        iterations=iterations.astype(jnp.int32),
    )


# ---- noise maps: see `diffusion.inversion` -------------------------------------------

RESIDUAL = "residual"  # among the arrays: [n, ...] of each of n images


def _residual(tools):
    return inversion.with_residual(tools.arrays[RESIDUAL][tools.index])


# ---- interpolation: see `diffusion.interpolation` ------------------------------------

# Among the arrays, for each image: λ, and the t where its chain leaves the pictures.
MIX, LEVEL = "mix", "level"
OTHER_NOISE = "other_noise"  # [1, ...], of the second picture, where it has its own


def _mixed(own_noise: bool):
    def make(tools):
        first, other = tools.arrays[PICTURE]
        other_noise = tools.arrays[OTHER_NOISE] if own_noise else None
        share, level = (
            tools.arrays[name][tools.index % tools.arrays[name].shape[0]]
            for name in (MIX, LEVEL)
        )

        def transform(x, t_next, noise):
            t = jnp.maximum(t_next, 0)
            mixed = interpolation.in_x_t(
                tools.tables,
                jnp.broadcast_to(first, x.shape),
                jnp.broadcast_to(other, x.shape),
                t,
                share,
                noise=noise,
                other_noise=other_noise,
                preserves_variance=own_noise,
            )
            return jnp.where(arrays.expand_to(t_next == level, x), mixed, x)

        return transform

    return make


TRANSFORMS: dict[str, Transform] = {
    **{
        f"classifier_{form}": Transform(
            PREDICTION, _by_gradient(form, log_prob_of), form, (CLASS,)
        )
        for form in guidance.FORMS
    },
    **{
        f"clip_{form}": Transform(
            PREDICTION,
            _by_gradient(form, agreement_of),
            form,
            (clip.TOKENS, clip.LENGTH),
        )
        for form in guidance.FORMS
    },
    "known_region": Transform(STEP, _known_region),
    "pasted": Transform(STEP, _pasted),
    "overwritten": Transform(DENOISER, _overwritten),
    "residual": Transform(STEP, _residual),
    "mixed": Transform(STEP, _mixed(own_noise=False)),
    "mixed_preserving": Transform(STEP, _mixed(own_noise=True)),
    **{
        f"reconstruction_{name}": Transform(DENOISER, _reconstruction(name))
        for name in reconstruction.LIKELIHOODS
    },
    **{
        f"restoration_{name}": Transform(DENOISER, _restoration(name))
        for name in reconstruction.LIKELIHOODS
    },
    "projected": Transform(STEP, _projected),
}


CONDITIONS = {"known": _known, "known_mask": _known_mask}
"""Keys of a condition that are computed of the arrays: tools → array [B, ...]."""


def made(names: tuple[str, ...], options, tools: Tools) -> dict[str, list[Callable]]:
    """Return the transforms of each place, in the order of the recipe.

    Args:
        names: keys of `TRANSFORMS`.
        options: the numbers of each, by name.
        tools: what they are made with.
    """
    found = {place: [] for place in PLACES}
    for name, numbers in zip(names, options, strict=True):
        transform = TRANSFORMS[name]
        found[transform.place].append(transform.make(tools, **numbers))
    return found
