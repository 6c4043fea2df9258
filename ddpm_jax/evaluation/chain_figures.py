"""The figures of a run of the 2015 paper: slices of both chains, drift, terms."""

import numpy as np

from ddpm_jax.builders import chains
from ddpm_jax.builders import data as build_data
from ddpm_jax.core import keys
from ddpm_jax.data import images as images_lib
from ddpm_jax.report import chain_plots
from ddpm_jax.runtime import sharding

IMAGES = 36
SHOWN = 1000
GRID = 22  # arrows along each axis of the drift


def slices(num_steps: int) -> tuple[int, ...]:
    """Return the zero-based t whose states are shown: T/2 and T, as in the paper."""
    return ((num_steps - 1) // 2, num_steps - 1)


def every(trained, params, made, details) -> dict[str, bytes]:
    """Return the figures of a run by name, as PNG.

    Args:
        trained: the run.
        params: its weights that were scored.
        made: samples with x_1 and the states of `slices`.
        details: of the card.
    """
    found = {"terms": chain_plots.terms(details["by_t"], details)}
    if images_lib.is_image(trained.facts.shape):
        dataset = build_data.dataset(trained.config, "test")
        data = dataset.fetch(np.arange(min(IMAGES, len(dataset))))["image"]
        panels = (("data", data), ("samples", made.images), ("x_1", made.states[0]))
        found["samples"] = chain_plots.images(
            [(name, images_lib.to_uint8(shown[:IMAGES])) for name, shown in panels]
        )
    else:
        forward = _forward(trained, params)
        backward = [made.images, *made.states[1:]]
        found["chains"] = chain_plots.both_chains(
            forward, backward, slices(trained.config.diffusion.num_steps)
        )
    if trained.facts.shape == (2,):
        found["drift"] = _drift(trained, params)
    return found


def _forward(trained, params):
    """Return data, and draws of q(x_t|x_0) at the slices."""
    config = trained.config
    dataset = build_data.dataset(config, "test")
    data = dataset.fetch(np.arange(min(SHOWN, len(dataset))))["image"]
    chain, tables_of = chains.chain(config)
    states = chains.states(config, trained.facts)
    tables = tables_of(params)
    uniform = np.random.default_rng(0).random(data.shape).astype(np.float32)
    x_0 = states.encode(data, uniform)
    shown = [data]
    for number, t in enumerate(slices(config.diffusion.num_steps)):
        key = keys.key_for(config.evaluation.seed, "figure/noise", step=number)
        at = np.full(len(data), t, np.int32)
        x_t = chain.q_sample(tables, x_0, at, chain.noise(key, data.shape))
        shown.append(np.asarray(states.decode(x_t)))
    return shown


def _drift(trained, params):
    """Return the plot of f_μ(x, t) − x over the plane, at three t."""
    config = trained.config
    chain, tables_of = chains.chain(config)
    tables = tables_of(params)
    line = np.linspace(-2.2, 2.2, GRID)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    x = np.asarray(points, np.float32)
    fields = []
    num_steps = config.diffusion.num_steps
    for t in (num_steps - 1, (num_steps - 1) // 2, max(1, num_steps // 8)):
        at = np.full(len(x), t, np.int32)
        output = trained.network.apply(params, x, at, {})
        law = chain.reverse(tables, output, x, at)
        drift = sharding.to_host(law.mean) - x
        fields.append((t, points, drift))
    return chain_plots.drift(fields)
