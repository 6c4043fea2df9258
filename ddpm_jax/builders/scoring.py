"""What scores a network: bits per dimension and losses of test images."""

from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.network import check_kind
from ddpm_jax.builders.process import objective, respaced, schedule
from ddpm_jax.core import arrays, conditions
from ddpm_jax.metrics import bits, sensitivity, validation
from ddpm_jax.models import functional
from ddpm_jax.sampling import sampler


def scorer(config, facts: DataInfo, network: functional.Network):
    """Return the compiled scorer of bits per dimension, see `metrics.bits`."""
    check_kind(config, "scoring")
    return bits.make_scorer(**_scored(config, network), levels=facts.levels)


def estimator(config, network: functional.Network):
    """Return the compiled x̂_0 of what `scorer` scores, see `metrics.bits`."""
    return bits.make_estimator(**_scored(config, network))


def _scored(config, network) -> dict:
    """Return what the arguments of a scorer and of its estimator have in common."""
    return {
        "schedule": respaced(config, "evaluation"),
        "apply": network.apply,
        "prediction": config.diffusion.prediction,
        "variance": config.diffusion.variance,
        "clip": config.evaluation.clip,
        "seed": config.evaluation.seed,
    }


VALIDATION_IMAGES = 64  # times 8 timesteps: a few training steps' work


def validator(config, facts: DataInfo, network: functional.Network, dataset, *, mesh):
    """Return the compiled validation loss, see `metrics.validation`.

    Of a run that reads text it comes with the sensitivity to it.
    """
    count = min(VALIDATION_IMAGES, len(dataset))
    # Spread over the split, which may be sorted by class.
    batch = dataset.fetch(arrays.spread(len(dataset), count))
    fixed = {
        "images": batch["image"],
        "condition": conditions.selected(network.condition_spec, batch, dataset.name),
        "seed": config.evaluation.seed,
        "mesh": mesh,
        "batch_size": sampler.rounded_batch(min(count, config.train.batch_size), mesh),
    }
    loss = validation.make_validator(
        schedule(config), network.apply, objective(config, facts), **fixed
    )
    if facts.text is None or not config.train.label_dropout:
        return loss
    to_text = sensitivity_to_text(config, network, **fixed)
    return lambda params: loss(params) | to_text(params)


def sensitivity_to_text(config, network: functional.Network, **fixed):
    """Return the compiled sensitivity of a run that reads text.

    Args:
        config, network: of the run.
        **fixed: images, their condition and the like, see `metrics.sensitivity`.
    """
    return sensitivity.make_sensitivity(
        schedule(config),
        network.apply,
        network.condition_spec,
        prediction=config.diffusion.prediction,
        variance=config.diffusion.variance,
        **fixed,
    )
