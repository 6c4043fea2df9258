"""Noise maps of given pictures, as one compiled program, sharded over the mesh."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, keys
from ddpm_jax.diffusion import inversion, process
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import branches, sampler, starts, transforms
from ddpm_jax.sampling.recipe import Recipe


def of_pictures(
    recipe: Recipe,
    network,
    mesh,
    params,
    pictures: np.ndarray,
    count: int,
    *,
    batch_size: int,
) -> Mapping[str, np.ndarray]:
    """Return what a recipe needs to return pictures: arrays [count, ...] by name.

    See `diffusion.inversion.noise_maps`. Each image has its own draws.

    Args:
        recipe: of the chain, under the condition of the pictures; it is not changed by
            other networks.
        network, mesh: as of `sampler.Sampler`.
        params: parameters on the mesh.
        pictures: float32 [n, ...], which the images take in turn.
        count: of images.
        batch_size: images at a time.

    Raises:
        Refusal: a solver without noise.
    """
    size = sampler.rounded_batch(min(batch_size, count), mesh)
    program, parts = _program(recipe, network), []
    for start in range(0, count, size):
        # By number of the image; what lies beyond the last one is padding.
        index = arrays.padded_range(start, size, count).astype(np.int32)
        rows = pictures[index // recipe.repeats % len(pictures)]
        condition = recipe.condition_of(index, network.condition_spec)
        batch = sharding.put_whole(mesh, (index, condition, rows))
        maps = program(params, *batch)
        own = maps.x_start, maps.noise, maps.residual
        parts.append([sharding.to_host(values)[: count - start] for values in own])
    names = starts.MAPPED, starts.NOISE_MAPS, transforms.RESIDUAL
    return dict(zip(names, map(np.concatenate, zip(*parts, strict=True)), strict=True))


def _program(recipe, network):
    tables, solver = process.tables(recipe.schedule), recipe.make_solver()
    inputs = {**recipe.inputs(), "kept": np.zeros(0, np.int32), "arrays": {}}

    @jax.jit
    def program(params, index, condition, x_0):
        def noise_of(purpose):
            stream = keys.key_for(recipe.seed, purpose, index=index)
            return lambda position: process.GAUSSIAN.noise_each(
                keys.fold_in_each(stream, position), recipe.shape
            )

        tools = transforms.Tools(
            tables=tables,
            index=index,
            turn=index // recipe.repeats,
            condition=condition,
            arrays={},
            networks={},
        )
        main = branches.Given.of(network, params, condition)
        loop = sampler.loop_of(recipe.structure(), inputs, tools, main, {}, noise_of)
        maps = inversion.noise_maps(
            tables,
            loop.denoise,
            x_0,
            step=solver,
            noise_fn=noise_of("edit/noise_map"),
            path=recipe.whole_path,
            plain=loop.plain,
        )
        return maps._replace(noise=jnp.swapaxes(maps.noise, 0, 1))

    return program
