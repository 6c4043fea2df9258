"""A network of the user's own must do what the config asks of one."""

from ddpm_jax.core import errors
from ddpm_jax.diffusion import reverse
from ddpm_jax.models import custom


def check(network, config, facts) -> None:
    """Refuse a network that does not do what the config asks; computes nothing.

    Raises:
        Refusal: another shape of its output, or weights of another run to start from.
    """
    if config.train.init_from:
        raise errors.Refusal(
            f"train.init_from={config.train.init_from} with a network of your own: "
            "leave it empty and let init return the weights to start from"
        )
    channels = facts.image_shape[-1]
    learned = config.diffusion.variance in reverse.LEARNED_VARIANCES
    custom.check_output(
        network,
        image_shape=facts.image_shape,
        out_channels=2 * channels if learned else channels,
        conditional=config.model.class_conditional,
        float_timesteps=config.diffusion.rescale_timesteps,
    )
