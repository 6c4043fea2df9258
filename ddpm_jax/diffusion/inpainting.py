"""Inpainting: a part of an image is known, and the rest, the hole, is to be made.

    replace   the known pixels are redrawn from q(x_t | x_0) after every step: cheap,
              and the hole agrees with them in part only
    repaint   replace, on a path that goes back up and comes down again (Lugmayr et al.
              2022): hole and known pixels agree the better the more often
    guided    reconstruction guidance (see `reconstruction`), with the last step pasted
    trained   the network itself sees the known part and where it is (GLIDE)

`hole` is True where something is to be made, which is white in a mask. It broadcasts
against images [B, ..., C], as `known` does: [..., C], [..., 1] or with a batch before.
"""

import jax
import jax.numpy as jnp

from ddpm_jax.core import arrays, errors
from ddpm_jax.diffusion import operators, process, reverse, samplers, solvers
from ddpm_jax.diffusion import reconstruction as reconstructions


def known_region(tables: process.Tables, known, hole) -> samplers.StepTransform:
    """Return the step transform of method "replace".

    Known pixels become a fresh draw of q(x_{t_next} | x_0 = known), on x_T too, and
    exactly the known values at t_next = −1.

    Args:
        tables: the (respaced) process.
        known: the image, in the range of the data; what lies in the hole is not used.
        hole: bool, True where something is to be made.

    Reference: Song et al. 2021 (score SDE), appendix I.2; RePaint's equation 8a, with
    √(1−ᾱ) where algorithm 1 prints 1−ᾱ.
    """

    def transform(x, t_next, noise):
        whole = jnp.broadcast_to(known, x.shape)
        noised = process.q_sample(tables, whole, jnp.maximum(t_next, 0), noise)
        is_last = arrays.expand_to(t_next < 0, x)
        return jnp.where(hole, x, jnp.where(is_last, whole, noised))

    return transform


def pasted(known, hole) -> samplers.StepTransform:
    """Return the step transform that puts the known values in at t_next = −1 alone.

    Guided methods end with it: they come near the known values, and not to the bit.

    Args:
        known, hole: see `known_region`.
    """

    def transform(x, t_next, noise):
        del noise
        is_last = arrays.expand_to(t_next < 0, x)
        return jnp.where(is_last & ~jnp.asarray(hole, bool), known, x)

    return transform


def overwritten(known, hole) -> reverse.X0Hook:
    """Return the hook that puts the known values into every x̂_0.

    Networks that see the known part come near it by themselves; with the hook every
    step leads to it exactly.

    Args:
        known, hole: see `known_region`.

    Reference: GLIDE (Nichol et al. 2021), the published inpainting notebook.
    """

    def hook(x_0, x_t, t):
        del x_t, t
        return jnp.where(hole, x_0, known)

    return hook


# ---- RePaint -------------------------------------------------------------------------


def repaint_path(num_steps: int, *, resamplings: int, jump: int = 1) -> samplers.Path:
    """Return the path of RePaint, with `known_region` as the step transform.

    Whenever the chain comes down to one of t = 0, jump, 2·jump, … below T′ − jump for
    the first resamplings − 1 times, noise is added that takes it back up by `jump`.

    Args:
        num_steps: T′.
        resamplings: how often each stretch is gone down; 1 is the plain path.
        jump: the length of a stretch, in steps of the process.

    Raises:
        Refusal: numbers below 1, or a jump that does not fit into the path.

    Reference: Lugmayr et al. 2022, algorithm 1, and their published code for jumps.
    """
    check_repaint(num_steps, resamplings=resamplings, jump=jump)
    left = dict.fromkeys(range(0, num_steps - jump, jump), resamplings - 1)
    path, t = [], num_steps - 1
    while t >= 0:
        path.append((t, t - 1, samplers.STEP))
        t -= 1
        if left.get(t, 0):
            left[t] -= 1
            path.append((t, t + jump, samplers.RENOISE))
            t += jump
    return tuple(path)


def repaint_evaluations(num_steps: int, *, resamplings: int, jump: int = 1) -> int:
    """Return how often `repaint_path` evaluates the network, for each image.

    T′ + (resamplings − 1) · jump · ⌈T′/jump − 1⌉: about resamplings · T′.
    """
    check_repaint(num_steps, resamplings=resamplings, jump=jump)
    stretches = -(-num_steps // jump) - 1
    return num_steps + (resamplings - 1) * jump * max(stretches, 0)


def check_repaint(num_steps, *, resamplings, jump, solver=None) -> None:
    """Refuse a path that RePaint does not have, and solvers that cannot go back.

    Args:
        num_steps, resamplings, jump: see `repaint_path`.
        solver: one that keeps nothing between entries and moves in each passes.
    """
    if resamplings < 1:
        raise errors.Refusal(
            f"{resamplings} resamplings: choose 1 (method 'replace'), 5 or 10"
        )
    fits = f"1 … {num_steps - 1}" if num_steps > 1 else "resamplings 1"
    if jump < 1 or (resamplings > 1 and jump >= num_steps):
        raise errors.Refusal(
            f"a jump of {jump} on a path of {num_steps} steps: choose {fits}"
        )
    if solver is not None and not isinstance(solver, solvers.Memoryless):
        fitting = [
            name
            for name, make in solvers.SOLVERS.items()
            if isinstance(make(), solvers.Memoryless)
        ]
        raise errors.Refusal(
            f"method 'repaint' with the solver {type(solver).__name__}, which keeps "
            "earlier predictions that a jump back makes wrong: choose "
            f"sampling.method={' or '.join(fitting)}"
        )


# ---- guidance ------------------------------------------------------------------------


def reconstruction(
    tables: process.Tables,
    known,
    hole,
    *,
    likelihood: str,
    scale: float | jax.Array = 1.0,
    iterations: int = 5,
    measurement_std: float | jax.Array = 0.0,
) -> reverse.DenoiserTransform:
    """Return reconstruction guidance whose measurement is the known pixels.

    Args:
        tables: the (respaced) process.
        known, hole: see `known_region`.
        likelihood, scale, iterations, measurement_std: see
            `reconstruction.reconstruction`, which also says what is refused.
    """
    operator = operators.Mask(hole)
    return reconstructions.reconstruction(
        tables,
        operator,
        operator.forward(known),
        likelihood=likelihood,
        scale=scale,
        iterations=iterations,
        measurement_std=measurement_std,
    )
