"""Noise schedules: float64 NumPy arrays of β_t, t = 0 … T−1.

t is zero-based (the papers count from 1). Every function takes the number of steps T
and returns β in (0, 1]; `SCHEDULES` names them.
"""

import numpy as np

from ddpm_jax.core import errors

COSINE_OFFSET = 0.008  # Improved DDPM section 3.2: √β_0 just below a pixel's bin
MAX_BETA = 0.999  # Improved DDPM section 3.2: no singularity at t = T−1


def linear(num_steps, beta_start, beta_end):
    """Return β linear in t, both ends scaled by 1000/T (Improved DDPM's code)."""
    scale = 1000 / num_steps
    if scale * beta_end > 1:
        raise errors.Refusal(
            f"schedule 'linear' with {num_steps} steps and β up to {beta_end:g} at "
            f"1,000 gives β = {scale * beta_end:.3g}: use more than "
            f"{1000 * beta_end:.0f} steps, or choose 'linear_fixed', 'cosine' or 'jsd'"
        )
    return np.linspace(scale * beta_start, scale * beta_end, num_steps)


def linear_fixed(num_steps, beta_start, beta_end):
    """Return β linear in t between fixed ends (DDPM section 4: 1e-4 to 0.02)."""
    return np.linspace(beta_start, beta_end, num_steps)


def cosine(num_steps, beta_start, beta_end):
    """Return the cosine schedule, β capped at 0.999 (Improved DDPM eq. 17)."""
    del beta_start, beta_end
    u = np.arange(num_steps + 1) / num_steps
    f = np.cos((u + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], MAX_BETA)


def quad(num_steps, beta_start, beta_end):
    """Return β whose square root is linear in t (DDPM's code)."""
    return np.linspace(beta_start**0.5, beta_end**0.5, num_steps) ** 2


def const(num_steps, beta_start, beta_end):
    """Return β = beta_end at every t (DDPM's code)."""
    del beta_start
    return np.full(num_steps, float(beta_end))


def warmup10(num_steps, beta_start, beta_end):
    """Return β linear over the first tenth of the steps, then constant."""
    return _warmup(num_steps, beta_start, beta_end, fraction=0.1)


def warmup50(num_steps, beta_start, beta_end):
    """Return β linear over the first half of the steps, then constant."""
    return _warmup(num_steps, beta_start, beta_end, fraction=0.5)


def jsd(num_steps, beta_start, beta_end):
    """Return 1/T, 1/(T−1), …, 1: each step erases 1/T of the signal (2015 paper).

    The last β is 1, so ᾱ_{T−1} = 0 and noise prediction is impossible.
    """
    del beta_start, beta_end
    return 1.0 / np.arange(num_steps, 0, -1)


def sigmoid(num_steps, beta_start, beta_end):
    """Return β following a logistic curve over [−6, 6] (the form used by GeoDiff)."""
    curve = 1 / (1 + np.exp(-np.linspace(-6, 6, num_steps)))
    return curve * (beta_end - beta_start) + beta_start


SCHEDULES = {
    "linear": linear,
    "linear_fixed": linear_fixed,
    "cosine": cosine,
    "quad": quad,
    "const": const,
    "warmup10": warmup10,
    "warmup50": warmup50,
    "jsd": jsd,
    "sigmoid": sigmoid,
}
CUSTOM = "custom"  # β given by the caller, not computed


def make_betas(
    name,
    num_steps,
    *,
    beta_start=1e-4,
    beta_end=0.02,
    betas=None,
    zero_terminal_snr=False,
):
    """Return the β of a named schedule, float64 [T].

    Args:
        name: a key of `SCHEDULES`, or "custom" for the `betas` given.
        num_steps: T ≥ 1.
        beta_start, beta_end: ends of the schedules that have them.
        betas: with "custom" only: T values.
        zero_terminal_snr: shift and rescale √ᾱ so that ᾱ_{T−1} = 0 exactly.

    Raises:
        Refusal: unknown name, T < 1, β outside (0, 1], custom betas of other length.
    """
    if not isinstance(num_steps, int | np.integer) or num_steps < 1:
        raise errors.Refusal(
            f"number of diffusion steps {num_steps!r}: give an integer of at least 1"
        )
    if name == CUSTOM:
        values = _custom(betas, num_steps)
    else:
        schedule = errors.choose("schedule", {**SCHEDULES, CUSTOM: None}, name)
        if betas is not None:
            raise errors.Refusal(
                f"betas given with schedule {name!r}: they belong to 'custom' only"
            )
        values = schedule(num_steps, beta_start, beta_end)
    check_betas(values)
    return with_zero_terminal_snr(values) if zero_terminal_snr else values


def check_betas(betas):
    """Refuse β that are not a finite list of values in (0, 1]."""
    if betas.ndim != 1 or betas.size == 0:
        raise errors.Refusal(
            f"betas of shape {betas.shape}: give a list of at least one value"
        )
    bad = np.flatnonzero(~((betas > 0) & (betas <= 1)))
    if bad.size:
        raise errors.Refusal(
            f"β = {betas[bad[0]]:g} at t = {bad[0]}: every β must lie in (0, 1]; "
            "change beta_start and beta_end, the number of steps or the schedule"
        )


def with_zero_terminal_snr(betas):
    """Shift √ᾱ so that the last is 0, rescale so that the first stays.

    Reference: Lin et al. 2023, algorithm 1.

    Raises:
        Refusal: a single step, which is first and last at once.
    """
    if betas.size == 1:
        raise errors.Refusal(
            "zero_terminal_snr with 1 step: the first ᾱ must stay and the last must "
            "be 0, so use at least 2 steps"
        )
    root = np.sqrt(np.cumprod(1 - betas))
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alpha_bar = root**2
    alpha = alpha_bar / np.append(1.0, alpha_bar[:-1])
    return 1 - alpha


def _warmup(num_steps, beta_start, beta_end, fraction):
    betas = np.full(num_steps, float(beta_end))
    rising = int(num_steps * fraction)
    betas[:rising] = np.linspace(beta_start, beta_end, rising)
    return betas


def _custom(betas, num_steps):
    if betas is None:
        raise errors.Refusal(
            "schedule 'custom' without betas: give one β for each step"
        )
    values = np.asarray(betas, np.float64)
    if values.shape != (num_steps,):
        raise errors.Refusal(
            f"schedule 'custom' with betas of shape {values.shape} and {num_steps} "
            "steps: give one β for each step"
        )
    return values
