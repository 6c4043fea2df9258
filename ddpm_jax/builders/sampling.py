"""What makes and scores images."""

import inspect

import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import class_labels
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.network import check_kind, null_label
from ddpm_jax.builders.process import objective, respaced, schedule, spacing
from ddpm_jax.core import conditions, errors
from ddpm_jax.diffusion import solvers
from ddpm_jax.metrics import bits, validation
from ddpm_jax.models import functional
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler

# Fields of config.sampling that change no image: how many, and how many at a time.
CHANGE_NO_IMAGE = ("num_samples", "batch_size")
# Fields that choose the weights; a recipe is told which were taken.
OF_WEIGHTS = ("weights", "checkpoint")


def recipe(config, facts: DataInfo) -> recipe_lib.Recipe:
    """Return what decides the samples, apart from the weights.

    Every field of config.sampling becomes a setting of the recipe, and with it part of
    requests, tags and cards, but for `CHANGE_NO_IMAGE` and `OF_WEIGHTS`.

    Raises:
        Refusal: settings that contradict each other, or that the run cannot meet.
    """
    check_kind(config, "sampling from")
    sampling = config.sampling
    kept = respaced(config, "sampling")
    labels = sampling_labels(config, facts)
    made = recipe_lib.Recipe(
        schedule=kept,
        prediction=config.diffusion.prediction,
        variance=config.diffusion.variance,
        shape=facts.shape,
        solver=_solver(sampling),
        settings=_settings(config, labels),
        hooks=_hooks(sampling),
        guidance=_guidance(config, facts),
        condition=() if labels is None else (("label", labels),),
        seed=sampling.seed,
    )
    made.check()
    return made


def _solver(sampling) -> recipe_lib.Part:
    """Return the part of sampling.method, with the settings that it takes."""
    make = errors.choose("sampling method", solvers.SOLVERS, sampling.method)
    takes = inspect.signature(make).parameters
    if sampling.eta and "eta" not in takes:
        raise errors.Refusal(
            f"sampling.eta={sampling.eta} with method {sampling.method!r}: it belongs "
            "to 'ddim'; set sampling.method=ddim or sampling.eta=0"
        )
    if not 0 <= sampling.eta <= 1:
        raise errors.Refusal(f"sampling.eta={sampling.eta}: choose 0 … 1")
    options = {name: sampling[name] for name in takes}
    return recipe_lib.part(sampling.method, **options)


def _hooks(sampling) -> tuple[recipe_lib.Part, ...]:
    """Return the hooks on x̂_0, thresholding before clipping."""
    hooks = []
    largest = sampling.dynamic_threshold
    if largest and largest < 1:
        raise errors.Refusal(
            f"sampling.dynamic_threshold={largest}: give the largest threshold, at "
            "least 1, or 0 for none"
        )
    if largest:
        hooks.append(recipe_lib.part("dynamic_threshold", maximum=largest))
    if sampling.clip:
        hooks.append(recipe_lib.part("clip", low=-1.0, high=1.0))
    return tuple(hooks)


def _guidance(config, facts) -> recipe_lib.Part | None:
    """Return the classifier-free guidance; scale 1 is none, 0 leaves the condition."""
    scale = config.sampling.guidance_scale
    if scale == 1:
        return None
    if null_label(config, facts) is None:
        raise errors.Refusal(
            f"sampling.guidance_scale={scale} on a run without label drop-out: it has "
            "no unconditional branch; sample with scale 1, or train a "
            "class-conditional run with train.label_dropout=0.1"
        )
    if scale == 0:
        return recipe_lib.part("unconditional")
    return recipe_lib.part("classifier_free", scale=scale)


def _settings(config, labels) -> tuple[recipe_lib.Setting, ...]:
    """Return the fields of config.sampling by name, as numbers and names alone."""
    whole = config.diffusion.num_steps
    resolved = {"steps": (config.sampling.steps or whole, whole)}
    resolved["spacing"] = (spacing(config), "even")
    # Every class in turn goes without saying; what was asked for is named.
    resolved["labels"] = (labels, None if config.sampling.labels else labels)
    settings = []
    for name, usual in config_lib.base().sampling.items():
        if name in (*CHANGE_NO_IMAGE, *OF_WEIGHTS):
            continue
        values = resolved.get(name, (config.sampling[name], usual))
        settings.append(recipe_lib.Setting(name, *values))
    return tuple(settings)


def sampling_labels(config, facts: DataInfo) -> tuple[int, ...] | None:
    """Return the labels to cycle through, or None for an unconditional network.

    Raises:
        Refusal: labels for an unconditional network, or one that is not known, see
            `class_labels.indices`.
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
    return class_labels.indices(labels, facts.class_names)


def scorer(config, facts: DataInfo, network: functional.Network):
    """Return the compiled scorer of bits per dimension, see `metrics.bits`."""
    check_kind(config, "scoring")
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


VALIDATION_IMAGES = 64  # times 8 timesteps: a few training steps' work


def validator(config, facts: DataInfo, network: functional.Network, dataset, *, mesh):
    """Return the compiled validation loss, see `metrics.validation`."""
    count = min(VALIDATION_IMAGES, len(dataset))
    # Spread over the split, which may be sorted by class.
    batch = dataset.fetch(np.linspace(0, len(dataset) - 1, count).astype(np.int64))
    return validation.make_validator(
        schedule(config),
        network.apply,
        objective(config, facts),
        images=batch["image"],
        condition=conditions.selected(network.condition_spec, batch, dataset.name),
        seed=config.evaluation.seed,
        mesh=mesh,
        batch_size=sampler.rounded_batch(min(count, config.train.batch_size), mesh),
    )
