"""The figures of a run of the 2015 paper: slices of both chains, drift, terms."""

import numpy as np

from ddpm_jax.builders import chains, paper_2015
from ddpm_jax.builders import data as build_data
from ddpm_jax.core import keys
from ddpm_jax.data import images as images_lib
from ddpm_jax.report import chain_plots

IMAGES = 36
SHOWN = 1000


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
        num_steps = trained.config.diffusion.num_steps
        shown = (num_steps - 1, (num_steps - 1) // 2, max(1, num_steps // 8))
        places = chain_plots.lattice()
        made_of = trained.config, trained.network, params
        arrows = [paper_2015.drift(*made_of, t, places) for t in shown]
        found["drift"] = chain_plots.drift(
            [(t, places, each) for t, each in zip(shown, arrows, strict=True)]
        )
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
