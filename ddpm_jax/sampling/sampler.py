"""Making images: sharded over the mesh, and image i is image i.

What image i looks like depends on the recipe (its seed among it), the weights and i:
not on the batch that it is made in, the number of devices, or a restart.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import errors, keys
from ddpm_jax.diffusion import guidance, process, reverse, samplers
from ddpm_jax.runtime import sharding

METHODS = {
    "ancestral": lambda eta: samplers.ancestral(),
    "ddim": samplers.ddim,
}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Everything but the weights that decides image i.

    Attributes:
        schedule: the process, respaced to the steps that are taken.
        prediction, variance: what the network's output means.
        image_shape: (H, W, C).
        method: a key of `METHODS`.
        eta: noise share of "ddim".
        guidance_scale: 1 is plain conditional, 0 unconditional.
        null_label: the label of "no class", or None where the network has none.
        clip: whether x̂_0 is clipped to [−1, 1].
        dynamic_threshold: largest threshold of dynamic thresholding; 0 for none.
        seed: decides every draw, together with i.
    """

    schedule: process.Schedule
    prediction: str
    variance: str
    image_shape: tuple[int, int, int]
    method: str = "ancestral"
    eta: float = 0.0
    guidance_scale: float = 1.0
    null_label: int | None = None
    clip: bool = True
    dynamic_threshold: float = 0.0
    seed: int = 0

    def __post_init__(self):
        errors.choose("sampling method", METHODS, self.method)
        if self.eta and self.method != "ddim":
            raise errors.Refusal(
                f"sampling.eta={self.eta} with method {self.method!r}: it belongs to "
                "'ddim'; set sampling.method=ddim or sampling.eta=0"
            )
        if not 0 <= self.eta <= 1:
            raise errors.Refusal(f"sampling.eta={self.eta}: choose 0 … 1")
        if self.guidance_scale != 1 and self.null_label is None:
            raise errors.Refusal(
                f"sampling.guidance_scale={self.guidance_scale} on a run without label "
                "drop-out: it has no unconditional branch; sample with scale 1, or "
                "train a class-conditional run with train.label_dropout=0.1"
            )
        if self.dynamic_threshold and self.dynamic_threshold < 1:
            raise errors.Refusal(
                f"sampling.dynamic_threshold={self.dynamic_threshold}: give the "
                "largest threshold, at least 1, or 0 for none"
            )

    @property
    def hooks(self) -> tuple[reverse.X0Hook, ...]:
        """The hooks on x̂_0, thresholding before clipping."""
        hooks = []
        if self.dynamic_threshold:
            hooks.append(reverse.dynamic_threshold(maximum=self.dynamic_threshold))
        if self.clip:
            hooks.append(reverse.clip(-1, 1))
        return tuple(hooks)


def make_sampler(recipe: Recipe, apply) -> Callable:
    """Return the compiled `(params, index, labels) → images` of a recipe.

    Args:
        apply: `(params, x, t_seen, labels) → output`.

    Returns:
        A jitted function of parameters, int32 index [B] of the images and int32 labels
        [B] or None; gives float32 [B, H, W, C], about [−1, 1].
    """
    tables = process.tables(recipe.schedule)
    step = METHODS[recipe.method](recipe.eta)

    def sample(params, index, labels):
        start = keys.key_for(recipe.seed, "sample/x_T", index=index)
        stream = keys.key_for(recipe.seed, "sample/noise", index=index)

        def noise_fn(position):
            return keys.normal_each(
                keys.fold_in_each(stream, position), recipe.image_shape
            )

        denoise = reverse.denoiser(
            tables,
            _guided(recipe, apply, params, labels),
            prediction=recipe.prediction,
            variance=recipe.variance,
            x_0_hooks=recipe.hooks,
        )
        x_T = keys.normal_each(start, recipe.image_shape)
        chain = samplers.sample(tables, denoise, step=step, x_T=x_T, noise_fn=noise_fn)
        return chain.x

    return jax.jit(sample)


def _guided(recipe, apply, params, labels):
    """Return the network at these labels, mixed as the guidance scale asks."""
    if labels is None:
        return lambda x_t, t_seen: apply(params, x_t, t_seen, None)

    def network(x_t, t_seen, some_labels):
        return apply(params, x_t, t_seen, some_labels)

    null = 0 if recipe.null_label is None else recipe.null_label
    return guidance.classifier_free(
        network, labels, jnp.full_like(labels, null), recipe.guidance_scale
    )


def images(
    sampler,
    mesh,
    params,
    *,
    start: int,
    stop: int,
    batch_size: int,
    labels: Sequence[int] | None,
) -> np.ndarray:
    """Make images start … stop−1 in one batch of fixed size.

    Args:
        sampler: from `make_sampler`.
        mesh: devices to share the batch.
        params: parameters on the mesh.
        start, stop: at most `batch_size` apart.
        batch_size: compiled size, a multiple of the devices; the rest is padding.
        labels: labels to cycle through, image i getting entry i mod len(labels).

    Returns:
        float32 [stop − start, H, W, C].
    """
    index = np.minimum(np.arange(start, start + batch_size), stop - 1).astype(np.int32)
    batch = {"index": index}
    if labels is not None:
        batch["labels"] = labels_of(labels, index)
    batch = sharding.put_whole(mesh, batch)
    made = sampler(params, batch["index"], batch.get("labels"))
    return sharding.to_host(made)[: stop - start]


def labels_of(labels: Sequence[int], index: np.ndarray) -> np.ndarray:
    """Return the label of each image: the given ones in turn, int32."""
    return np.asarray(labels, np.int32)[index % len(labels)]


def rounded_batch(batch_size: int, mesh) -> int:
    """Return the smallest multiple of the number of devices that holds the batch."""
    return -(-batch_size // mesh.size) * mesh.size
