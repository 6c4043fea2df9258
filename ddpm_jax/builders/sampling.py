"""What makes and scores images."""

import numpy as np

from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.network import check_kind, null_label
from ddpm_jax.builders.process import objective, respaced, schedule
from ddpm_jax.core import errors
from ddpm_jax.metrics import bits, validation
from ddpm_jax.models import functional
from ddpm_jax.sampling import sampler


def recipe(config, facts: DataInfo) -> sampler.Recipe:
    """Return what decides the samples, apart from the weights."""
    check_kind(config, "sampling from")
    sampling = config.sampling
    return sampler.Recipe(
        schedule=respaced(config, "sampling"),
        prediction=config.diffusion.prediction,
        variance=config.diffusion.variance,
        image_shape=facts.shape,
        method=sampling.method,
        eta=sampling.eta,
        guidance_scale=sampling.guidance_scale,
        null_label=null_label(config, facts),
        clip=sampling.clip,
        dynamic_threshold=sampling.dynamic_threshold,
        seed=sampling.seed,
    )


def sampling_labels(config, facts: DataInfo) -> tuple[int, ...] | None:
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
        labels=batch["label"] if config.model.class_conditional else None,
        seed=config.evaluation.seed,
        mesh=mesh,
        batch_size=sampler.rounded_batch(min(count, config.train.batch_size), mesh),
    )
