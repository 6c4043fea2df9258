"""From a config to plain objects: the last place that reads one."""

import contextlib
import dataclasses

import jax

from ddpm_jax import generate
from ddpm_jax.core import errors, keys
from ddpm_jax.data import sources
from ddpm_jax.diffusion import (
    losses,
    process,
    respacing,
    reverse,
    schedules,
    timesteps,
)
from ddpm_jax.metrics import bits
from ddpm_jax.models import network as network_lib
from ddpm_jax.models import unet
from ddpm_jax.runtime import mesh as mesh_lib
from ddpm_jax.training import optim
from ddpm_jax.training import state as state_lib


@dataclasses.dataclass(frozen=True)
class DataFacts:
    """What a run must know of its data once the data is out of reach."""

    image_shape: tuple[int, int, int]
    levels: int
    num_examples: int
    num_classes: int | None
    class_names: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, dataset: sources.Dataset) -> "DataFacts":
        """Return the facts of the training split."""
        return cls(
            image_shape=tuple(dataset.image_shape),
            levels=dataset.levels,
            num_examples=len(dataset),
            num_classes=dataset.num_classes,
            class_names=tuple(dataset.class_names),
            fingerprint=dataset.fingerprint(),
        )

    @classmethod
    def from_dict(cls, values: dict) -> "DataFacts":
        """Return the facts stored in a run's config.json."""
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return cls(**{**values, **lists})


@contextlib.contextmanager
def _about(field):
    """Put the name of a config field before what a layer below refuses."""
    try:
        yield
    except errors.Refusal as refusal:
        raise errors.Refusal(f"{field}: {refusal}") from refusal


# ---- data ----------------------------------------------------------------------------


def dataset(config, split: str) -> sources.Dataset:
    """Return a split of the configured data.

    Raises:
        Refusal: unknown source; a size or number of channels that it does not have.
    """
    data = config.data
    loaded = sources.load(
        data.name, split, path=data.path or None, test_fraction=data.test_fraction
    )
    height, width, channels = loaded.image_shape
    wanted = tuple(data.image_size) * (2 if len(data.image_size) == 1 else 1)
    if wanted not in ((), (height, width)):
        raise errors.Refusal(
            f"data.image_size={tuple(data.image_size)}: images of {data.name!r} are "
            f"{height}x{width}; leave the field empty"
        )
    if data.channels not in (0, channels):
        raise errors.Refusal(
            f"data.channels={data.channels}: images of {data.name!r} have {channels}; "
            "leave the field 0"
        )
    return loaded


# ---- diffusion -----------------------------------------------------------------------


def schedule(config) -> process.Schedule:
    """Return the process that the network is trained on."""
    diffusion = config.diffusion
    return process.Schedule.from_betas(
        schedules.make_betas(
            diffusion.schedule,
            diffusion.num_steps,
            beta_start=diffusion.beta_start,
            beta_end=diffusion.beta_end,
            betas=diffusion.betas or None,
            zero_terminal_snr=diffusion.zero_terminal_snr,
        ),
        rescale_timesteps=diffusion.rescale_timesteps,
        log_var_floor=diffusion.log_var_floor,
    )


def respaced(config, section: str) -> process.Schedule:
    """Return the process with the steps that `section` ("sampling", …) asks for.

    Raises:
        Refusal: both steps and respacing are given, or more steps than there are.
    """
    fields = config[section]
    whole = schedule(config)
    if fields.steps is not None and fields.respacing:
        raise errors.Refusal(
            f"{section}.steps={fields.steps} and {section}.respacing="
            f"{fields.respacing!r} are both given: keep one"
        )
    name = "respacing" if fields.respacing else "steps"
    spec = whole.num_steps if fields.steps is None else fields.steps
    with _about(f"{section}.{name}"):
        return respacing.respace(whole, fields.respacing or spec)


def objective(config, facts: DataFacts) -> dict:
    """Return the keyword arguments of `losses.training_losses`.

    Raises:
        Refusal: a contradiction among loss, variance, prediction and schedule.
    """
    diffusion = config.diffusion
    losses.check_objective(
        schedule(config),
        prediction=diffusion.prediction,
        variance=diffusion.variance,
        loss=diffusion.loss,
        weighting=diffusion.weighting,
    )
    return {
        "prediction": diffusion.prediction,
        "variance": diffusion.variance,
        "loss": diffusion.loss,
        "levels": facts.levels,
        "weighting": diffusion.weighting,
        "gamma": diffusion.weighting_gamma or None,
        "k": diffusion.weighting_k,
    }


def timestep_sampler(config):
    """Return the sampler of training timesteps."""
    name = config.diffusion.timestep_sampler
    make = errors.choose("timestep sampler", timesteps.TIMESTEP_SAMPLERS, name)
    return make(config.diffusion.num_steps)


# ---- network -------------------------------------------------------------------------


def null_label(config, facts: DataFacts) -> int | None:
    """Return the label of "no class": one past the last, with label drop-out only.

    Raises:
        Refusal: label drop-out without labels to drop.
    """
    rate = config.train.label_dropout
    conditional = config.model.class_conditional
    if conditional and not facts.num_classes:
        raise errors.Refusal(
            "model.class_conditional=True: this data has no labels; set it to False"
        )
    if rate and not conditional:
        raise errors.Refusal(
            f"train.label_dropout={rate} with model.class_conditional=False: there are "
            "no labels to drop; set model.class_conditional=True or label_dropout=0"
        )
    return facts.num_classes if rate else None


def network(config, facts: DataFacts) -> network_lib.Network:
    """Return the U-Net for these images and labels."""
    model = config.model
    height, width, channels = facts.image_shape
    learned = config.diffusion.variance in reverse.LEARNED_VARIANCES
    null = null_label(config, facts)
    num_rows = None
    if model.class_conditional:
        num_rows = facts.num_classes + (null is not None)
    with _about("model"):
        return unet.unet(
            image_size=(height, width),
            in_channels=channels,
            out_channels=2 * channels if learned else channels,
            channels=model.channels,
            channel_mult=tuple(model.channel_mult),
            num_res_blocks=model.num_res_blocks,
            attention_resolutions=tuple(model.attention_resolutions),
            num_heads=model.num_heads,
            head_channels=model.head_channels or None,
            num_classes=num_rows,
            dropout=model.dropout,
            scale_shift=model.scale_shift,
            resblock_updown=model.resblock_updown,
            norm_groups=model.norm_groups,
            dtype=model.dtype,
            remat=model.remat,
        )


# ---- training ------------------------------------------------------------------------


def learning_rate(config):
    """Return `step → learning rate`."""
    train = config.train
    return optim.learning_rate_schedule(
        learning_rate=train.learning_rate,
        warmup_steps=train.warmup_steps,
        decay=train.decay,
        decay_steps=train.steps,
    )


def optimizer(config):
    """Return the Optax transformation."""
    train = config.train
    return optim.make_optimizer(
        schedule=learning_rate(config),
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        beta_1=train.beta_1,
        beta_2=train.beta_2,
        epsilon=train.epsilon,
    )


def mesh(config):
    """Return the mesh over all devices."""
    return mesh_lib.make_mesh(config.mesh.data, config.mesh.fsdp)


def _create(config):
    """Return `params → TrainState`."""
    decays = tuple(config.train.ema_decay)
    valid = all(0 <= decay < 1 for decay in decays)
    if not decays or not valid or len(set(decays)) < len(decays):
        raise errors.Refusal(
            f"train.ema_decay={decays}: give one or several different rates, 0 … below "
            "1, such as 0.9999"
        )
    return lambda params: state_lib.create(
        params,
        optimizer=optimizer(config),
        ema_decays=decays,
        timestep_sampler=timestep_sampler(config),
    )


def abstract_state(config, network, device_mesh) -> state_lib.TrainState:
    """Return shapes, dtypes and shardings of the train state; nothing is computed."""
    shapes = jax.eval_shape(_create(config), network.shapes)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding
        ),
        shapes,
        mesh_lib.state_shardings(device_mesh, shapes),
    )


def ema_name(config) -> str:
    """Return the name of the average that sampling and evaluation use: the first."""
    return str(config.train.ema_decay[0])


def initial_params(config, network, device_mesh):
    """Return the weights that the seed draws, leaf by leaf into their shardings."""
    shardings = mesh_lib.state_shardings(device_mesh, network.shapes)
    return network.init(keys.key_for(config.seed, "init"), shardings)


def initial_state(config, params, abstract) -> state_lib.TrainState:
    """Return the state before the first step.

    Args:
        params: weights to start from.
        abstract: from `abstract_state`.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    return jax.jit(_create(config), out_shardings=shardings)(params)


# ---- sampling and evaluation ---------------------------------------------------------


def recipe(config, facts: DataFacts) -> generate.Recipe:
    """Return what decides the samples, apart from the weights."""
    sampling = config.sampling
    return generate.Recipe(
        schedule=respaced(config, "sampling"),
        prediction=config.diffusion.prediction,
        variance=config.diffusion.variance,
        image_shape=facts.image_shape,
        method=sampling.method,
        eta=sampling.eta,
        guidance_scale=sampling.guidance_scale,
        null_label=null_label(config, facts),
        clip=sampling.clip,
        dynamic_threshold=sampling.dynamic_threshold,
        seed=sampling.seed,
    )


def sampling_labels(config, facts: DataFacts) -> tuple[int, ...] | None:
    """Return the labels to cycle through, or None for an unconditional network.

    Raises:
        Refusal: labels for an unconditional network, an unknown name, an index out of
            range.
    """
    labels = tuple(config.sampling.labels)
    if not config.model.class_conditional:
        if labels:
            raise errors.Refusal(
                f"sampling.labels={labels} on a run without classes: leave them empty, "
                "or train with model.class_conditional=True"
            )
        return None
    if not labels:
        return tuple(range(facts.num_classes))
    return tuple(_class_index(label, facts) for label in labels)


def _class_index(label, facts):
    known = ", ".join(facts.class_names)
    if isinstance(label, str) and label in facts.class_names:
        return facts.class_names.index(label)
    if isinstance(label, str):
        raise errors.Refusal(f"unknown class {label!r}: choose among {known}")
    if not 0 <= label < facts.num_classes:
        raise errors.Refusal(
            f"label {label} is out of range: choose 0 … {facts.num_classes - 1} "
            f"({known})"
        )
    return label


def num_test_images(config, there: int) -> int:
    """Return how many of the test images to score.

    Raises:
        Refusal: more than there are.
    """
    asked = config.evaluation.num_images
    if asked > there:
        raise errors.Refusal(
            f"evaluation.num_images={asked}: the test split has {there} images; choose "
            f"1 … {there}, or 0 for all"
        )
    return asked or there


def scorer(config, facts: DataFacts, network: network_lib.Network):
    """Return the compiled scorer of bits per dimension, see `metrics.bits`."""
    evaluation = config.evaluation
    return bits.make_scorer(
        respaced(config, "evaluation"),
        network.apply,
        prediction=config.diffusion.prediction,
        variance=config.diffusion.variance,
        clip=evaluation.clip,
        levels=facts.levels,
        seed=evaluation.seed,
    )
