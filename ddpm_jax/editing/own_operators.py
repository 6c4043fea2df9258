"""Operators that users give from Python: made into values, and checked."""

from collections.abc import Callable

import jax
import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.diffusion import operators as linear
from ddpm_jax.editing import operators


def of_functions(operator, shape: tuple[int, ...]):
    """Return a user's operator, checked by the dot-product test.

    Args:
        operator: a linear function; two, the second its adjoint; or a value with both,
            such as those of `diffusion.operators`.
        shape: of one image.

    Raises:
        Refusal: none of these, a hole that is no mask of such images, or an adjoint of
            another operator.
    """
    if isinstance(operator, tuple | list) and len(operator) == 2:
        own = linear.Operator(*operator)
    elif hasattr(operator, "forward") and hasattr(operator, "adjoint"):
        # A compiled chain takes operators as inputs: others are two functions to it.
        is_pytree = not jax.tree_util.all_leaves([operator])
        of_images = hasattr(operator, "of") and is_pytree
        own = operator if of_images else linear.Operator(
            operator.forward, operator.adjoint
        )  # fmt: skip
    elif isinstance(operator, Callable):
        own = linear.transposed(operator, shape)
    else:
        raise errors.Refusal(
            f"operator={operator!r}: give a name such as {operators.EXAMPLES}, a "
            "linear function of JAX arrays, or two, the second its adjoint"
        )
    if isinstance(own, linear.Mask):
        _check_hole(own.hole, shape)
    first = np.zeros(linear.TRIALS, np.int32)
    linear.check_adjoint(own.of(first), shape)
    return own


def _check_hole(hole, shape):
    """Refuse a hole that is not bool [n, H, W, C], where 1 may stand for H, W, C."""
    dims, dtype = np.shape(hole), np.result_type(hole)
    fits = len(dims) == 1 + len(shape) and dims[0]
    fits = fits and all(n in (1, side) for n, side in zip(dims[1:], shape, strict=True))
    if dtype.kind != "b" or not fits:
        raise errors.Refusal(
            f"a mask whose hole is {dtype} {list(dims)}: give bool [n, "
            f"{', '.join(map(str, shape))}], n of 1 or one for each measurement; of "
            "one hole for all, hole[None]"
        )


def check_count(hole, count: int) -> None:
    """Refuse holes that are neither one for all nor one for each."""
    if len(hole) not in (1, count):
        raise errors.Refusal(
            f"a mask of {len(hole)} holes for {count} measurements: give one for "
            "each, or one for all, hole[None]"
        )
