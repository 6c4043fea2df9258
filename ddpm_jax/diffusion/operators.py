"""Linear measurements of images: y = A x + σ_y n, with A and its adjoint Aᵀ as values.

An operator has

    forward(x)    A, from images [B, ..., C] to measurements [B, ...]
    adjoint(y)    Aᵀ, back to images
    of(turn)      the operator of images of which turn [B] says what each was given

and acts on each image alone. It is a pytree: matrices and masks are its leaves, so that
a compiled chain takes them as inputs and another blur compiles nothing.

    Separable     matrices along rows, columns and channels: means of blocks, blurs,
                  grey of colours
    Mask          pixels that are kept; the others are measured as 0
    Operator      any two functions
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors, keys
from ddpm_jax.diffusion import reconstruction, samplers

TRIALS = 8  # random images of the dot-product test
TOLERANCE = 1e-3  # of that test, relative; float32 reaches 1e-5
HIGHEST = jax.lax.Precision.HIGHEST  # a measurement is no place for bfloat16
ITERATIONS = 200  # of the search for an image that was measured so
LAST = 50  # at most, of the last step: more turn what was rounded into pictures
CLOSE = 1 / 255  # half a step of 8 bits, root mean square: near enough after a few


def _pytree(*data: str, meta: tuple[str, ...] = ()):
    return functools.partial(
        jax.tree_util.register_dataclass, data_fields=data, meta_fields=meta
    )


@_pytree("rows", "columns", "channels")
@dataclasses.dataclass(frozen=True, eq=False)
class Separable:
    """A matrix along each axis of an image.

    Attributes:
        rows, columns, channels: [h, H], [w, W] and [c, C]; measurements are [B, h, w,
            c].
    """

    rows: jax.Array
    columns: jax.Array
    channels: jax.Array

    def of(self, turn):
        """Return the operator of images, the same for all."""
        del turn
        return self

    def forward(self, x):
        """Return A x, [B, H, W, C] → [B, h, w, c]."""
        return self._along(x, "hi,wj,cd,bijd->bhwc")

    def adjoint(self, y):
        """Return Aᵀ y, [B, h, w, c] → [B, H, W, C]."""
        return self._along(y, "ih,jw,dc,bijd->bhwc")

    def _along(self, values, how):
        matrices = self.rows, self.columns, self.channels
        return jnp.einsum(how, *matrices, values, precision=HIGHEST)


@_pytree("hole")
@dataclasses.dataclass(frozen=True, eq=False)
class Mask:
    """The known pixels, and 0 in the hole.

    Attributes:
        hole: bool, True where nothing is known; it broadcasts against images, or is [n,
            ...] before `of`.
    """

    hole: jax.Array

    def of(self, turn):
        """Return the operator of images that take the n holes in turn."""
        return Mask(self.hole[turn % self.hole.shape[0]])

    def forward(self, x):
        """Return the image with 0 in the hole."""
        return jnp.where(self.hole, 0.0, x)

    adjoint = forward


@_pytree(meta=("forward", "adjoint"))
@dataclasses.dataclass(frozen=True)
class Operator:
    """Two functions of JAX arrays, each of one image after another.

    Attributes:
        forward: A, from images [B, ..., C] to measurements [B, ...].
        adjoint: Aᵀ, back to [B, ..., C]; see `transposed`.
    """

    forward: Callable[[jax.Array], jax.Array]
    adjoint: Callable[[jax.Array], jax.Array]

    def of(self, turn):
        """Return the operator of images, the same for all."""
        del turn
        return self


def transposed(forward: Callable, shape: tuple[int, ...]) -> Operator:
    """Return the operator of a linear function, its adjoint by differentiation.

    Args:
        forward: A, of JAX arrays [B, *shape].
        shape: of one image.
    """

    return Operator(forward, _Transposed(forward, tuple(shape)))


@dataclasses.dataclass(frozen=True)
class _Transposed:
    """Aᵀ of a linear function; that of the same function is equal: no new program."""

    forward: Callable
    shape: tuple[int, ...]

    def __call__(self, y):
        zeros = jnp.zeros((y.shape[0], *self.shape), y.dtype)
        return jax.vjp(self.forward, zeros)[1](y)[0]


# ---- is it one? ----------------------------------------------------------------------


def adjoint_error(operator, shape: tuple[int, ...]) -> float:
    """Return how far ⟨A x, y⟩ and ⟨x, Aᵀ y⟩ are apart: the dot-product test.

    It is the largest difference over some random images and measurements, over the
    deviation of ⟨A x, y⟩. A function that is not linear, or that mixes images, fails
    too.

    Args:
        operator: A and Aᵀ.
        shape: of one image.

    Raises:
        Refusal: the functions do not take JAX arrays of this shape, or do not return
            one measurement, and one image, for each.
    """
    key_x, key_y = keys.split(keys.key_for(0, "restore/dot_product"))
    x = keys.normal(key_x, (TRIALS, *shape))
    measured = _called("forward", operator.forward, x)
    if measured.ndim < 2 or len(measured) != TRIALS:
        raise errors.Refusal(
            f"an operator that makes {list(measured.shape)} of images {list(x.shape)}: "
            "give one that measures each image alone, [B, …] for B images"
        )
    y = keys.normal(key_y, measured.shape)
    back = _called("adjoint", operator.adjoint, y)
    if back.shape != x.shape:
        raise errors.Refusal(
            f"an adjoint that makes {list(back.shape)} of measurements "
            f"{list(y.shape)}: give one that leads back to images {list(x.shape)}"
        )
    there, here = _products(measured, y), _products(x, back)
    scale = np.sqrt(np.mean(there**2))
    apart = np.abs(there - here).max()
    return float(apart / scale) if scale > 0 else (0.0 if apart == 0 else np.inf)


def check_adjoint(operator, shape: tuple[int, ...]) -> None:
    """Refuse an operator whose adjoint is none, see `adjoint_error`."""
    error = adjoint_error(operator, shape)
    if not error <= TOLERANCE:
        raise errors.Refusal(
            f"⟨A x, y⟩ and ⟨x, Aᵀ y⟩ differ by {error:.2g} of their size: the adjoint "
            "is not that of the operator, or the operator is not linear; give the "
            "right one, or the linear function alone, whose adjoint is then found"
        )


def inconsistency(operator, measured) -> np.ndarray:
    """Return what no image explains of each measurement, float32 [n].

    That is |y − A x| at its largest element, for x by conjugate gradients from AᵀA x =
    Aᵀy, which always has a solution.

    Args:
        operator: A and Aᵀ, of these n measurements.
        measured: y, float32 [n, ...].
    """
    return np.asarray(_unexplained(operator, jnp.asarray(measured, jnp.float32)))


@jax.jit
def _unexplained(operator, measured):
    def product(values):
        return operator.adjoint(operator.forward(values))

    pulled = operator.adjoint(measured)
    found = reconstruction.conjugate_gradients(product, pulled, ITERATIONS)
    rest = jnp.abs(measured - operator.forward(found))
    return rest.reshape(len(measured), -1).max(axis=1)


def _called(name, function, values):
    """Return what a user's function makes of values, traced as a chain traces it."""
    try:
        return jax.jit(function)(values)
    except (TypeError, ValueError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise errors.Refusal(
            f"the {name} function of the operator fails on {list(values.shape)} "
            f"({reason}): give a function of JAX arrays of that shape"
        ) from error


def _products(one, other):
    """Return ⟨one, other⟩ of each image in float64."""
    pairs = [np.asarray(v, np.float64).reshape(len(v), -1) for v in (one, other)]
    return np.sum(pairs[0] * pairs[1], axis=1)


# ---- the last step -------------------------------------------------------------------


def projected(operator, measured, *, iterations: int) -> samplers.StepTransform:
    """Return the step transform that makes A x = y at t_next = −1, for exact y.

    x moves the shortest way, which for a mask puts the known pixels in. It is found by
    conjugate gradients from AᵀA d = Aᵀ(y − A x), which come nearer with every iteration
    even where no d leads to y.

    Args:
        operator: A and Aᵀ.
        measured: y, [B, ...].
        iterations: of conjugate gradients, at least; where AᵀA is a multiple of a
            projection, as for a mask or means of blocks, one is enough. Others go on
            to `CLOSE`, at most `LAST`: no network is evaluated.
    """

    def product(values):
        return operator.adjoint(operator.forward(values))

    def transform(x, t_next, noise):
        del noise
        is_last = jnp.reshape(t_next < 0, (-1, *[1] * (x.ndim - 1)))
        pulled = operator.adjoint(measured - operator.forward(x))

        def is_enough(number, move):
            left = measured - operator.forward(x + move)
            squares = jnp.mean(jnp.square(left).reshape(len(x), -1), axis=1)
            return (number >= iterations) & (arrays.expand_to(squares, x) <= CLOSE**2)

        most = jnp.where(jnp.any(is_last), jnp.maximum(iterations, LAST), 0)
        move = reconstruction.conjugate_gradients(
            product, pulled, most, is_enough=is_enough
        )
        return jnp.where(is_last, x + move, x)

    return transform
