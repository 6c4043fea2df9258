"""The noise schedule of a run."""

from ddpm_jax.diffusion import process as process_lib
from ddpm_jax.diffusion import schedules


def schedule(config) -> process_lib.Schedule:
    """Return the process that the network is trained on."""
    diffusion = config.diffusion
    return process_lib.Schedule.from_betas(
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
