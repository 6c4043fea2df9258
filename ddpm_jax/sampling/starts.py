"""Where a chain starts: from noise, from a noised picture, or from a given state.

A start is a function `(tools, x_T, t) → x`, where x_T [B, ...] is a draw of the process
and t int32 [B] the first timestep of the path, and an entry of `STARTS`.
"""

from ddpm_jax.diffusion import process
from ddpm_jax.sampling.transforms import PICTURE

STATE = "state"  # among the arrays of a sampler, [n, ...]
# Among the arrays: noise [n, N, ...] of each of n images, and where its chain starts.
NOISE_MAPS, MAPPED = "noise_maps", "mapped"


def _noise(tools, x_T, t):
    del tools, t
    return x_T


def _noised(tools, x_T, t):
    """Return a draw of q(x_t | x_0) of the pictures (SDEdit, Meng et al. 2022)."""
    return process.q_sample(tools.tables, tools.of_images(PICTURE), t, x_T)


def _given(tools, x_T, t):
    del x_T, t
    return tools.of_images(STATE)


def _mapped(tools, x_T, t):
    del x_T, t
    return tools.arrays[MAPPED][tools.index]


STARTS = {"noise": _noise, "noised": _noised, "given": _given, "mapped": _mapped}


def noise_fn(tools):
    """Return `position → noise [B, ...]` of given noise maps, None without them."""
    if NOISE_MAPS not in tools.arrays:
        return None
    return lambda position: tools.arrays[NOISE_MAPS][tools.index, position]
