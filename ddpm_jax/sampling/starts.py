"""Where a chain starts: from noise, from a noised picture, or from a given state.

A start is a function `(tools, x_T, t) → x`, where x_T [B, ...] is a draw of the process
and t int32 [B] the first timestep of the path, and an entry of `STARTS`.
"""

from ddpm_jax.diffusion import process
from ddpm_jax.sampling.transforms import PICTURE

STATE = "state"  # among the arrays of a sampler, [n, ...]


def _noise(tools, x_T, t):
    del tools, t
    return x_T


def _noised(tools, x_T, t):
    """Return a draw of q(x_t | x_0) of the pictures (SDEdit, Meng et al. 2022)."""
    return process.q_sample(tools.tables, tools.of_images(PICTURE), t, x_T)


def _given(tools, x_T, t):
    del x_T, t
    return tools.of_images(STATE)


STARTS = {"noise": _noise, "noised": _noised, "given": _given}
