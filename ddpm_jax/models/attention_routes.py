"""Which program computes an attention: products that XLA sees, or cuDNN's kernel.

The einsum has the logits of all pairs in memory, float32 [B, heads, N, M]; cuDNN's
kernel never has them, neither forward nor backward. It takes some shapes only, and of
the two modes of differentiation reverse mode alone.
"""

import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

ROUTES = ("cudnn", "einsum")
CUDA = "cuda"
"""A backend whose GPUs have the kernel, see `backend`."""

OLDEST = (8, 0)
"""Compute capability of the first GPUs that multiply in bfloat16: Ampere."""

LARGEST_WIDTH = 128
WIDTH_STEP = 8


def route(
    backend: str, dtype, lengths: Sequence[int], width: int, *, masked: bool
) -> str:
    """Return which of `ROUTES` an attention takes.

    Args:
        backend: that the program is for: `CUDA`, or another name.
        dtype: of queries, keys and values.
        lengths: numbers of queries and of keys.
        width: d of a head.
        masked: whether some keys do not count.
    """
    taken = (
        backend == CUDA
        and dtype == jnp.bfloat16
        and all(length % 2 == 0 for length in lengths)  # there is no backward for odd
        and width <= LARGEST_WIDTH
        and width % WIDTH_STEP == 0
        and not masked
    )
    return "cudnn" if taken else "einsum"


def backend() -> str:
    """Return the backend of this process's devices, see `backend_of`; starts JAX."""
    first = jax.local_devices()[0]
    return backend_of(first.platform, getattr(first, "compute_capability", ""))


def backend_of(platform: str, capability: str) -> str:
    """Return `CUDA` for GPUs that have the kernel, else the platform's own name.

    Args:
        platform: of a device: "cpu", "gpu", "tpu", ….
        capability: of a GPU: "9.0" of NVIDIA, "gfx90a" and the like of AMD.
    """
    numbers = re.fullmatch(r"(\d+)\.(\d+)", capability)
    if platform != "gpu" or numbers is None:
        return platform
    return CUDA if tuple(map(int, numbers.groups())) >= OLDEST else platform


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    factor: float | None,
    einsum: Callable,
) -> jax.Array:
    """Let queries attend to keys by the route of these arrays, without a mask.

    A process with a suitable GPU may compile for something else, such as its CPU or a
    TPU that is only described. So the choice between both falls when the program is
    lowered, and cuDNN is asked for nothing where there is none: it would raise.

    Args:
        q: [B, N, heads, d] queries.
        k, v: [B, M, heads, d] keys and their values.
        factor: of q·k before the softmax; None for 1.
        einsum: `(q, k, v) → [B, N, heads, d]`, the other route.

    Returns:
        [B, N, heads, d].
    """
    dtype = jnp.result_type(q, k, v)
    facts = (dtype, (q.shape[1], k.shape[1]), q.shape[-1])
    # The backend is asked last: that starts JAX, and planning for TPUs needs no device.
    if route(CUDA, *facts, masked=False) == "einsum" or backend() != CUDA:
        return einsum(q, k, v)

    def cudnn(q, k, v):
        scale = 1.0 if factor is None else factor  # None would be 1/√d there
        return jax.nn.dot_product_attention(
            q, k, v, scale=scale, implementation="cudnn"
        )

    return lax.platform_dependent(q, k, v, cuda=cudnn, default=_frugal(einsum))


def _frugal(function):
    """Return the function, its backward pass handed the arguments and nothing else.

    What either route keeps is kept on the other too, as zeros: the maps of all pairs
    would be back. `jax.checkpoint` does not prevent it, for policies see through it.
    """
    frugal = jax.custom_vjp(function)

    def backward(args, cotangent):
        return jax.vjp(function, *args)[1](cotangent)

    frugal.defvjp(lambda *args: (function(*args), args), backward)
    return frugal
