"""Our diffusion process as a `DDPMScheduler` of diffusers."""

from collections.abc import Mapping
from typing import Any

from ddpm_jax.core import errors
from ddpm_jax.diffusion import schedules

PREDICTIONS = {"noise": "epsilon", "x_0": "sample", "v": "v_prediction"}
VARIANCES = ("fixed_small", "fixed_large", "learned_range")
NAMED = {  # what diffusers computes itself; other schedules are written as numbers
    "linear": "linear",
    "linear_fixed": "linear",
    "quad": "scaled_linear",
    "cosine": "squaredcos_cap_v2",
    "sigmoid": "sigmoid",
}
SEEN_STEPS = 1000  # timesteps scaled to 0 … 1000 are the steps themselves


def config(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scheduler_config.json of a process.

    Args:
        fields: values by dotted config name; "diffusion.…" and "sampling.clip".

    Raises:
        Refusal: names the field that `DDPMScheduler` has no word for.
    """
    _check(fields)
    diffusion = {
        name.removeprefix("diffusion."): value
        for name, value in fields.items()
        if name.startswith("diffusion.")
    }
    return {
        "_class_name": "DDPMScheduler",
        "num_train_timesteps": diffusion["num_steps"],
        **_betas(diffusion),
        "prediction_type": PREDICTIONS[diffusion["prediction"]],
        "variance_type": diffusion["variance"],
        "clip_sample": fields["sampling.clip"],
        "timestep_spacing": "linspace",  # the even spacing of sampling.steps
    }


def _check(fields):
    def refuse(field, good):
        raise errors.Refusal(
            f"{field}={fields[field]!r}: a diffusers scheduler has {good}; "
            "--format=safetensors keeps everything"
        )

    if fields["diffusion.prediction"] not in PREDICTIONS:
        refuse("diffusion.prediction", f"only {', '.join(PREDICTIONS)}")
    if fields["diffusion.variance"] not in VARIANCES:
        refuse("diffusion.variance", f"only {', '.join(VARIANCES)}")
    rescaled = fields["diffusion.rescale_timesteps"]
    if rescaled and fields["diffusion.num_steps"] != SEEN_STEPS:
        refuse(
            "diffusion.rescale_timesteps",
            f"integer timesteps, which differ with {fields['diffusion.num_steps']} "
            f"steps (with {SEEN_STEPS} they are the same)",
        )


def _betas(diffusion):
    """Return the name of the schedule and its ends, or all its values."""
    name, num_steps = diffusion["schedule"], diffusion["num_steps"]
    start, end = diffusion["beta_start"], diffusion["beta_end"]
    betas = schedules.make_betas(
        name,
        num_steps,
        beta_start=start,
        beta_end=end,
        betas=tuple(diffusion["betas"]) or None,
        zero_terminal_snr=diffusion["zero_terminal_snr"],
    )
    if name not in NAMED or diffusion["zero_terminal_snr"]:
        return {"trained_betas": betas.tolist()}
    if name == "linear":
        start, end = float(betas[0]), float(betas[-1])  # scaled by 1000 / T
    return {"beta_schedule": NAMED[name], "beta_start": start, "beta_end": end}
