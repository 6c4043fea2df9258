"""The chains of the 2015 paper: what is learned, its network and its states."""

import math

import jax.numpy as jnp
import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.schedule import schedule
from ddpm_jax.core import errors
from ddpm_jax.diffusion import binomial, learned_rates
from ddpm_jax.diffusion.states import States
from ddpm_jax.models import functional, multiscale, stepwise
from ddpm_jax.runtime import sharding

GAUSSIAN, BINOMIAL = "gaussian_2015", "binomial_2015"
KINDS = (GAUSSIAN, BINOMIAL)

# Fields that these kinds do not read.
NOT_OF_CHAINS = (
    *("diffusion.prediction", "diffusion.variance", "diffusion.loss"),
    *("diffusion.weighting", "diffusion.timestep_sampler", "diffusion.beta_end"),
    *("diffusion.zero_terminal_snr", "diffusion.rescale_timesteps"),
    *("model.class_conditional", "model.dropout", "model.text_layers"),
    *("model.inpainting", "train.label_dropout", "data.flip", "model.guides"),
    *("sampling.method", "sampling.steps", "sampling.spacing", "sampling.respacing"),
    *("sampling.eta", "sampling.labels", "sampling.per_class"),
    *("sampling.guidance_scale", "sampling.guidance_w", "sampling.classifier"),
    *("sampling.weaker", "sampling.dynamic_threshold", "sampling.temperature"),
    *("evaluation.steps", "evaluation.respacing", "sampling.low_res"),
    *("data.low_res_factor", "model.low_res_noise", "sampling.prompts"),
    *("sampling.negative", "sampling.clip", "sampling.guidance_rescale"),
    *("sampling.guidance_interval", "sampling.guidance_t_max"),
    *("sampling.classifier_scale", "sampling.weaker_scale", "sampling.low_res_t"),
    "sampling.low_res_sigma",
)
# Fields that these kinds alone read: all of them …
OF_CHAINS = (
    *("model.network", "model.hidden_layers", "model.readouts", "model.scales"),
    "model.dense_channels",
)
# … and one of them.
OF_BITS = ("diffusion.prior_mean", "diffusion.bits_of")
OF_GAUSSIANS = (
    *("diffusion.learn_betas", "diffusion.data_mean", "diffusion.data_std"),
    "model.mean_form",
)


def check_unread(config) -> None:
    """Refuse fields of these kinds on another one, which would not read them.

    Raises:
        Refusal: names the field and its usual value.
    """
    if config.model.kind not in KINDS:
        _check_usual(config, (*OF_CHAINS, *OF_BITS, *OF_GAUSSIANS))


def _check_usual(config, paths):
    usual = config_lib.base()
    for path in paths:
        section, name = path.split(".")
        if config[section][name] != usual[section][name]:
            raise errors.Refusal(
                f"{path}={config[section][name]!r} has no meaning for model.kind="
                f"{config.model.kind!r}: set it to {usual[section][name]!r}"
            )


def check(config, facts: DataInfo) -> None:
    """Refuse fields without a meaning for these kinds, and data that they do not take.

    Raises:
        Refusal: names the field and its usual value, or what the data is.
    """
    kind = config.model.kind
    others = OF_GAUSSIANS if kind == BINOMIAL else OF_BITS
    _check_usual(config, (*NOT_OF_CHAINS, *others))
    if config.train.evaluate_every:
        raise errors.Refusal(
            f"train.evaluate_every={config.train.evaluate_every} has no meaning for "
            f"model.kind={kind!r}, whose validation tells the bound: set it to 0"
        )
    if config.diffusion.num_steps < 2:
        raise errors.Refusal(
            f"diffusion.num_steps={config.diffusion.num_steps} with model.kind="
            f"{kind!r}: the first step is not learned; give at least 2"
        )
    if kind == BINOMIAL and facts.levels != 2:
        kind_of_data = (
            "continuous" if facts.levels is None else f"of {facts.levels} levels"
        )
        raise errors.Refusal(
            f"model.kind={kind!r} takes binary data, and {config.data.name!r} is "
            f"{kind_of_data}: choose data of two levels, or model.kind={GAUSSIAN}"
        )


def is_of_plane(config, facts: DataInfo) -> bool:
    """Return whether a run has a drift in the plane: it is Gaussian, of 2 numbers."""
    return config.model.kind == GAUSSIAN and facts.shape == (2,)


def chain(config):
    """Return the chain that is learned, and params → its tables."""
    diffusion = config.diffusion
    if config.model.kind == BINOMIAL:
        with errors.about("diffusion.prior_mean, diffusion.bits_of"):
            found = binomial.Binomial(diffusion.prior_mean, diffusion.bits_of)
        tables = found.tables(schedule(config))
        return found, lambda params: tables
    start = start_betas(config)
    found = learned_rates.LearnedRates(tuple(start), config.model.mean_form)
    if diffusion.learn_betas:
        return found, lambda params: found.tables(params[stepwise.RATES]["offset"])
    fixed = jnp.zeros(len(start), jnp.float32)
    return found, lambda params: found.tables(fixed)


def exact_schedule(config, params):
    """Return the process of a run in float64; learned rates are those of its weights.

    Args:
        config: of a run of any kind.
        params: its weights.
    """
    if config.model.kind != GAUSSIAN:
        return schedule(config)
    offset = np.zeros(config.diffusion.num_steps)
    if stepwise.RATES in params:
        offset = sharding.to_host(params[stepwise.RATES]["offset"])
    return chain(config)[0].schedule(offset)


def start_betas(config) -> np.ndarray:
    """Return the β that a Gaussian chain starts learning from, float64 [T]."""
    diffusion = config.diffusion
    learned_rates.check_beta_1(diffusion.beta_start)
    if diffusion.schedule == "custom":
        return np.asarray(schedule(config).betas)
    _check_usual(config, ("diffusion.schedule",))
    return learned_rates.usual_betas(diffusion.num_steps, diffusion.beta_start)


def states(config, facts: DataInfo) -> States:
    """Return the way between data and states."""
    if config.model.kind == BINOMIAL:
        return States(binary=True)
    width = 0.0 if facts.levels is None else 2 / (facts.levels - 1)
    diffusion = config.diffusion
    return States(diffusion.data_mean, diffusion.data_std, width)


def network(config, facts: DataInfo) -> functional.Network:
    """Return the network of model.network, with the rates of a chain that learns them.

    Raises:
        Refusal: see `check`, and sizes that do not fit together.
    """
    check(config, facts)
    found, _ = chain(config)
    model, num_steps = config.model, config.diffusion.num_steps
    size = math.prod(facts.shape)
    common = {"num_steps": num_steps, "readouts": model.readouts}
    outputs = {"outputs": found.channels * size, **common}
    with errors.about("model"):
        if model.network == "multiscale":
            made = multiscale.multiscale(
                shape=facts.shape,
                width=model.channels,
                layers=model.hidden_layers,
                scales=model.scales,
                dense=model.dense_channels,
                outputs=found.channels,
                **common,
            )
        elif model.network == "rbf":
            made = stepwise.rbf(size=size, width=model.channels, **outputs)
        else:
            layers = model.hidden_layers
            made = stepwise.mlp(
                size=size, width=model.channels, layers=layers, **outputs
            )
    made = multiscale.shaped(made, (*facts.shape[:-1], -1))
    learns = config.model.kind == GAUSSIAN and config.diffusion.learn_betas
    return stepwise.with_rates(made, num_steps) if learns else made
