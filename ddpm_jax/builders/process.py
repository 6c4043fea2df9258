"""The diffusion process, the objective and the sampler of timesteps."""

from ddpm_jax.builders import network
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.schedule import schedule
from ddpm_jax.core import errors
from ddpm_jax.diffusion import losses, respacing, solvers, timesteps
from ddpm_jax.diffusion import process as process_lib


def respaced(config, section: str) -> process_lib.Schedule:
    """Return the process with the steps that `section` ("sampling", …) asks for.

    Raises:
        Refusal: steps or spacing and a respacing are given, or more steps than there
            are.
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
    with errors.about(f"{section}.{name}"):
        return respacing.respace(
            whole,
            fields.respacing or spec,
            spacing(config) if section == "sampling" else "even",
        )


def respaced_below(config, last: int) -> process_lib.Schedule:
    """Return the process from the timestep `last` on, with sampling.steps of its steps.

    Raises:
        Refusal: more steps than there are below `last`, or a respacing, which is of the
            whole process.
    """
    sampling, whole = config.sampling, schedule(config)
    if sampling.respacing:
        raise errors.Refusal(
            f"sampling.respacing={sampling.respacing!r} names timesteps of the whole "
            f"process, and this chain starts at t = {last + 1}: give sampling.steps, "
            "the steps from there on"
        )
    steps = last + 1 if sampling.steps is None else sampling.steps
    if not 1 <= steps <= last + 1:
        share = steps / whole.num_steps
        more = f", or a strength of at least {share:g}" if 0 < share <= 1 else ""
        raise errors.Refusal(
            f"sampling.steps={steps} from t = {last + 1} of {whole.num_steps}: there "
            f"are {last + 1} steps; give sampling.steps=1 … {last + 1}{more}"
        )
    return respacing.respace_below(whole, steps, last, spacing(config))


def spacing(config) -> str:
    """Return the spacing of the steps of sampling: the asked one, or the solver's own.

    It is "even" where nothing is spaced: with a respacing, and where every step is
    taken, so that requests name it where it changes images alone.

    Raises:
        Refusal: a spacing and a respacing are given, or an unknown method.
    """
    sampling = config.sampling
    if sampling.spacing and sampling.respacing:
        raise errors.Refusal(
            f"sampling.spacing={sampling.spacing!r} and sampling.respacing="
            f"{sampling.respacing!r} are both given: a respacing names the timesteps "
            "itself; keep one"
        )
    make = errors.choose("sampling method", solvers.SOLVERS, sampling.method)
    if sampling.respacing or sampling.steps in (None, config.diffusion.num_steps):
        return "even"
    return sampling.spacing or getattr(make(), "spacing", "even")


def objective(config, facts: DataInfo) -> dict:
    """Return the keyword arguments of `losses.training_losses`.

    Raises:
        Refusal: a contradiction among loss, variance, prediction and schedule.
    """
    network.check_kind(config, "training")
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
