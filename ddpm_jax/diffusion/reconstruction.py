"""Reconstruction guidance: x̂_0 is drawn toward what was measured, y = A x_0 + σ_y n.

With J = ∂x̂_0/∂x_t, c = (1−ᾱ)/√ᾱ and the residual r = y − A x̂_0, all likelihoods but
"dps" replace x̂_0 by

    x̂_0 + scale · c Jᵀ Aᵀ (A C Aᵀ + σ_y² I)⁻¹ r

which is Tweedie's formula for the score of p(x_t | y), if p(x_0 | x_t) is N(x̂_0, C):

    "pigdm"   C = r_t² I with r_t² = 1−ᾱ, right for data of variance 1 (ΠGDM)
    "exact"   C = c J, the covariance that the denoiser itself implies (TMPD, MMPS); for
              Gaussian data the result is E[x_0 | x_t, y]

"dps" subtracts scale · ∇‖r‖ from the mean of the step. This is the published code; the
paper prints the square of the norm. It is no score of any p(x_t | y).

J is taken before clipping, where it is not 0, and applied by vector-Jacobian products
from one evaluation of the network. Inner products and norms are those of one image:
what image i looks like does not depend on its neighbours.

References: Chung et al. 2023 (DPS); Song et al. 2023 (ΠGDM), whose algorithm 1 adds
√ᾱ r_t² ∇ log p(y | x_t) to x̂_0 and leaves ε̂; Boys et al. 2023 (TMPD); Rozet et al. 2024
(MMPS).
"""

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors
from ddpm_jax.diffusion import process, reverse

DPS, PIGDM, EXACT = LIKELIHOODS = ("dps", "pigdm", "exact")
CONVERGED = 1e-12  # of the squared length of a residual: float32 knows no better


def reconstruction(
    tables: process.Tables,
    operator,
    measured,
    *,
    likelihood: str,
    scale: float | jax.Array = 1.0,
    iterations: int | jax.Array = 5,
    measurement_std: float | jax.Array = 0.0,
) -> reverse.DenoiserTransform:
    """Return the denoiser transform that draws x̂_0 toward a measurement.

    The network is evaluated once for each prediction, and differentiated once, with
    "exact" `iterations` + 1 times. Hooks such as clipping act on the guided x̂_0; with
    "dps" they act before the shift, as in its published code.

    Args:
        tables: the (respaced) process.
        operator: A and its adjoint, as `forward` and `adjoint`; see `operators`.
        measured: y, [B, ...] as `operator.forward` returns it, or one for all images.
        likelihood: "dps", "pigdm" or "exact", see the head of this file.
        scale: 1 is the formula; with "dps" the length of the step, ζ of its code.
        iterations: of conjugate gradients, at least 1. One is enough with "pigdm"
            where A Aᵀ is a projection, as for a mask. It may be traced.
        measurement_std: σ_y, 0 for an exact measurement; "dps" does not use it.

    Raises:
        Refusal: numbers or names that do not exist; ᾱ = 0 at the last step, except
            with "dps"; a denoiser that was transformed before.
    """
    check_reconstruction(
        tables.schedule,
        likelihood=likelihood,
        iterations=iterations,
        measurement_std=measurement_std,
    )

    def transform(denoise):
        if not isinstance(denoise, reverse.Denoiser):
            raise errors.Refusal(
                f"reconstruction guidance of a {type(denoise).__name__}, which has "
                "no prediction before clipping: make it the first denoiser transform, "
                "of a denoiser from reverse.denoiser()"
            )

        def guided(x_t, t):
            def unhooked(x):
                prediction = denoise.unhooked(x, t)
                return prediction.x_0, prediction

            x_0, product, prediction = jax.vjp(unhooked, x_t, has_aux=True)
            residual = measured - operator.forward(x_0)

            def pulled(values):
                return product(operator.adjoint(values))[0]

            if likelihood == DPS:
                shift = scale * pulled(_direction(residual))
                by = shift / process.at(tables.posterior_mean_x_0, t, x_t)
                clipped = denoise.hooked(prediction, x_t, t)
                return reverse.moved(tables, clipped, x_t, t, by=by)
            one_minus = process.at(tables.one_minus_alpha_bar, t, x_t)
            factor = one_minus / process.at(tables.sqrt_alpha_bar, t, x_t)

            def covariance(values):
                """Return A C Aᵀ + σ_y² I, applied to measurements."""
                if likelihood == PIGDM:
                    spread = one_minus * operator.adjoint(values)
                else:
                    spread = factor * pulled(values)
                return operator.forward(spread) + measurement_std**2 * values

            weights = conjugate_gradients(covariance, residual, iterations)
            by = scale * factor * pulled(weights)
            shifted = reverse.moved(tables, prediction, x_t, t, by=by)
            return denoise.hooked(shifted, x_t, t)

        return guided

    return transform


def check_reconstruction(schedule, *, likelihood, iterations=1, measurement_std=0.0):
    """Refuse what reconstruction guidance cannot do; traced numbers pass.

    Args:
        schedule: the process; None, as in padded tables, passes.
        likelihood, iterations, measurement_std: see `reconstruction`.
    """
    errors.choose("likelihood", dict.fromkeys(LIKELIHOODS), likelihood)
    count = arrays.number(iterations)
    if count is not None and count < 1:
        raise errors.Refusal(
            f"{iterations} iterations of conjugate gradients: take at least 1, "
            "usually 5"
        )
    if isinstance(measurement_std, int | float) and not measurement_std >= 0:
        raise errors.Refusal(
            f"a measurement of standard deviation {measurement_std}: give 0 for an "
            "exact one, or a positive number in units of the data"
        )
    if schedule is not None and likelihood != DPS and np.any(schedule.alpha_bar == 0):
        raise errors.Refusal(
            f"likelihood {likelihood!r} with ᾱ = 0 at the last step: the covariance of "
            "x_0 cannot be had from pure noise; use a schedule that keeps some signal, "
            "or --likelihood=dps; to inpaint, method 'replace' or 'repaint' will do too"
        )


def conjugate_gradients(product, right, iterations: int, is_enough=None):
    """Return about M⁻¹ b, for each image alone (Hestenes & Stiefel 1952).

    An image whose residual has vanished, or whose M is not positive along the direction
    of search, keeps what it has.

    Args:
        product: v [B, ...] → M v, with M symmetric and positive, image by image.
        right: b, [B, ...].
        iterations: at most; each evaluates `product` once.
        is_enough: `(iterations done, solution) → bool [B, 1, ...]`, which images need
            no more; None goes on.
    """
    start = _inner(right, right)

    def body(number, state):
        solution, residual, direction, square = state
        image = product(direction)
        curvature = _inner(direction, image)
        goes_on = (curvature > 0) & (square > CONVERGED * start)
        if is_enough is not None:
            goes_on &= ~is_enough(number, solution)
        step = jnp.where(goes_on, square / jnp.where(goes_on, curvature, 1.0), 0.0)
        solution = solution + step * direction
        residual = residual - step * image
        after = _inner(residual, residual)
        share = after / jnp.where(goes_on, square, 1.0)
        direction = jnp.where(goes_on, residual + share * direction, 0.0)
        return solution, residual, direction, after

    state = jnp.zeros_like(right), right, right, start
    return jax.lax.fori_loop(0, iterations, body, state)[0]


def _inner(one, other):
    """Return the inner product of each image, [B, 1, ...]."""
    products = (one * other).reshape(one.shape[0], -1)
    return arrays.expand_to(jnp.sum(products, axis=1), one)


def _direction(values):
    """Return values of length 1, image by image; 0 where there is nothing."""
    length = jnp.sqrt(_inner(values, values))
    return values / jnp.where(length > 0, length, 1.0)
