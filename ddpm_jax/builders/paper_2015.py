"""The parts of a run of the 2015 paper: step, validation, scores, samples."""

import functools
import math

import numpy as np

from ddpm_jax.builders import chains
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.training import learning_rate, optimizer
from ddpm_jax.core import arrays, errors
from ddpm_jax.data import images
from ddpm_jax.diffusion import nonequilibrium
from ddpm_jax.metrics import chain_bound
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import chain_sampler, sampler
from ddpm_jax.sampling.naming import Setting
from ddpm_jax.sampling.transforms import HOLE, PICTURE
from ddpm_jax.training import chain_step

VALIDATION_IMAGES = 128


def unit(facts: DataInfo) -> tuple[float, str]:
    """Return nats in one unit of the bound, and its name: bits, of images a pixel."""
    if images.is_image(facts.shape):
        pixels = math.prod(facts.shape[:2])
        return nonequilibrium.NATS_PER_BIT * pixels, "bits/pixel"
    return nonequilibrium.NATS_PER_BIT, "bits"


def train_step(config, facts: DataInfo, network):
    """Return `(state, batch) → (state, metrics)` for this config."""
    found, tables_of = chains.chain(config)
    return functools.partial(
        chain_step.train_step,
        seed=config.seed,
        apply=network.apply,
        chain=found,
        tables_of=tables_of,
        states=chains.states(config, facts),
        unit=unit(facts)[0],
        optimizer=optimizer(config),
        learning_rate=learning_rate(config),
        ema_ramp=config.train.ema_ramp,
        microbatches=config.train.microbatches,
    )


def setup(config, facts: DataInfo, network) -> chain_bound.Setup:
    """Return what scores the chain."""
    found, tables_of = chains.chain(config)
    return chain_bound.Setup(
        apply=network.apply,
        chain=found,
        tables_of=tables_of,
        states=chains.states(config, facts),
        unit=unit(facts)[0],
        seed=config.evaluation.seed,
    )


def validator(config, facts: DataInfo, network, test, train, *, mesh):
    """Return the compiled validation, see `metrics.chain_bound`."""
    del train
    count = min(VALIDATION_IMAGES, len(test))
    batch = test.fetch(arrays.spread(len(test), count))
    return chain_bound.make_validator(
        setup(config, facts, network),
        num_steps=config.diffusion.num_steps,
        images=batch["image"],
        mesh=mesh,
        batch_size=sampler.rounded_batch(min(count, config.train.batch_size), mesh),
    )


def recipe(
    config, facts: DataInfo, *, given=None, texts=None
) -> chain_sampler.ChainRecipe:
    """Return what decides the samples, apart from the weights.

    Args:
        config: of the run.
        facts: of its data.
        given, texts: of upsamplers and of runs with texts, always None here.
    """
    del given, texts
    chains.check(config, facts)
    seed, steps = config.sampling.seed, config.diffusion.num_steps
    settings = (
        Setting("method", "chain", "chain"),
        Setting("steps", steps, steps),
        Setting("seed", seed, 0),
    )
    return chain_sampler.ChainRecipe(facts.shape, steps, settings, seed)


def make_sampler(
    asked: chain_sampler.ChainRecipe,
    config,
    facts,
    network,
    mesh,
    *,
    weights=None,
    arrays=None,
    trajectory=(),
    given=None,
    kept=(),
) -> chain_sampler.ChainSampler:
    """Return the sampler of a recipe.

    Args:
        asked: from `recipe`.
        config, facts, network: of the run.
        mesh: devices to share each batch.
        weights, given, trajectory: as `sampling.make_sampler` takes them; the first two
            tell it nothing, the last is refused.
        arrays: of an inpainting, PICTURE and HOLE; the recipe has their fingerprints.
        kept: zero-based t whose states are kept.

    Raises:
        Refusal: positions of a trajectory are asked for.
    """
    del weights, given
    if len(trajectory):
        raise errors.Refusal(
            f"trajectory={tuple(trajectory)}: a run of model.kind="
            f"{config.model.kind!r} keeps none; leave it out"
        )
    known = None
    if arrays:
        mask = np.broadcast_to(~arrays[HOLE], arrays[PICTURE].shape)
        known = chain_sampler.Known(arrays[PICTURE], mask)
    found, tables_of = chains.chain(config)
    return chain_sampler.ChainSampler(
        asked,
        network,
        mesh,
        chain=found,
        tables_of=tables_of,
        states=chains.states(config, facts),
        kept=kept,
        known=known,
    )


def drift(config, network, params, t: int, points) -> np.ndarray:
    """Return f_μ(x, t) − x of a Gaussian chain, float32 [n, ...], as data are.

    The chain's states are (x − mean)/std of the data: places are taken there, and what
    is found is led back.

    Args:
        config, network: of the run.
        params: on the mesh.
        t: zero-based, from 1.
        points: x, [n, ...], as data are.
    """
    chain, tables_of = chains.chain(config)
    mean, std = config.diffusion.data_mean, config.diffusion.data_std
    x = ((np.asarray(points) - mean) / std).astype(np.float32)
    at = np.full(len(x), t, np.int32)
    output = network.apply(params, x, at, {})
    law = chain.reverse(tables_of(params), output, x, at)
    return np.float32(std) * (sharding.to_host(law.mean) - x)
