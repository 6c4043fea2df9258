"""Whether training reaches every number of a network.

Two ways to lose one without being told: a parameter that the output does not depend on,
and a weight that is no parameter at all, kept in a closure or an attribute that the
library does not look into. Neither moves, and the loss falls all the same.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import trained_run
from ddpm_jax.core import conditions, keys
from ddpm_jax.models import custom, functional, stepwise

ROWS = 2
LEAST_AXES, LEAST_SIZE = 2, 16  # of a constant that may be a weight: no table of t
PURPOSE = "diagnosis/leaves"
BESIDE = (stepwise.RATES,)  # parameters that the loss of a chain reads, not its network


class Held(NamedTuple):
    """A float array that a network uses and that is no parameter."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """Numbers in it."""
        return int(np.prod(self.shape))


def held(network: functional.Network, shape, *, float_timesteps: bool) -> list[Held]:
    """Return the arrays that a network holds outside of its parameters, by tracing.

    Args:
        network: any.
        shape: of one example.
        float_timesteps: whether it is told t as a float.
    """
    # Fixed kernels, such as a blur, are found too: whether it is right is the user's.
    traced = jax.make_jaxpr(network.apply)(
        network.shapes, *_inputs(network, shape, float_timesteps)
    )
    found = {id(value): value for value in _constants(traced)}
    arrays = [Held(tuple(v.shape), np.dtype(v.dtype).name) for v in found.values()]
    return [a for a in arrays if len(a.shape) >= LEAST_AXES and a.size >= LEAST_SIZE]


def _inputs(network, shape, float_timesteps):
    return (
        jax.ShapeDtypeStruct((ROWS, *shape), jnp.float32),
        jax.ShapeDtypeStruct((ROWS,), jnp.float32 if float_timesteps else jnp.int32),
        conditions.abstract(network.condition_spec, ROWS),
    )


def _constants(closed):
    """Yield the float arrays that a traced program holds, at any depth."""
    for value in getattr(closed, "consts", ()):
        dtype = getattr(value, "dtype", None)
        if dtype is not None and jnp.issubdtype(dtype, jnp.floating):
            yield value
    for equation in getattr(closed, "jaxpr", closed).eqns:
        for given in equation.params.values():
            for part in given if isinstance(given, tuple | list) else (given,):
                if hasattr(getattr(part, "jaxpr", part), "eqns"):
                    yield from _constants(part)


def remark(found: list[Held]) -> str:
    """Return a sentence on arrays that are no parameters; "" without any."""
    if not found:
        return ""
    several = len(found) > 1
    shown = ", ".join("×".join(map(str, a.shape)) for a in found[:3])
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return (
        f"the network uses {len(found)} array{'s' * several} ({shown}{more}; "
        f"{sum(a.size for a in found):,} numbers) that init does not return: "
        f"{'they are' if several else 'it is'} never trained and not saved; put "
        f"weights into the parameters"
    )


def unreached(
    network: functional.Network, shape, *, float_timesteps: bool
) -> list[str]:
    """Return the paths of parameters without a gradient, as far as tracing tells.

    Nothing is compiled or computed. What only numbers show, `without_gradient` finds.

    Args:
        network, shape, float_timesteps: see `held`.
    """
    gradient = jax.grad(lambda params, *given: jnp.sum(network.apply(params, *given)))
    inputs = _inputs(network, shape, float_timesteps)
    traced = jax.make_jaxpr(gradient)(network.shapes, *inputs).jaxpr
    reached = set(traced.invars)
    for equation in traced.eqns:
        # A literal has no place in a set.
        given = [v for v in equation.invars if not hasattr(v, "val")]
        if reached.intersection(given):
            reached.update(equation.outvars)
    return [
        path
        for path, out in zip(
            functional.by_path(network.shapes), traced.outvars, strict=True
        )
        if (hasattr(out, "val") or out not in reached) and not _is_beside(path)
    ]


def _is_beside(path):
    return path.partition("/")[0] in BESIDE


def remarks(network: functional.Network, shape, *, float_timesteps: bool) -> list[str]:
    """Return what is odd about the parameters of a network, a sentence each."""
    options = {"float_timesteps": float_timesteps}
    still = unreached(network, shape, **options)
    said = [remark(held(network, shape, **options))]
    if still:
        shown = ", ".join(still[:3]) + (
            f" and {len(still) - 3} more" * (len(still) > 3)
        )
        said.append(f"the output depends on no number of {shown}: it is never trained")
    return [sentence for sentence in said if sentence]


def without_gradient(
    network: functional.Network, params, shape, *, num_steps: float, seed: int = 0
) -> list[str]:
    """Return the paths of the parameters whose gradient is 0 everywhere.

    Leaves that are all zeros, as the last layer is at first, are replaced by noise:
    they would stop the gradients of those before them. Random inputs and a random sum
    of the outputs; no loss and no weight decay.

    Args:
        network: any.
        params: its parameters.
        shape: of one example.
        num_steps: timesteps are drawn from 0 … num_steps−1; a float draws floats.
        seed: of the draws.
    """
    by_path = functional.by_path(params)
    drawn = keys.key_for(seed, PURPOSE, index=np.arange(len(by_path) + 2))
    noisy = {
        path: _noisy(leaf, key)
        for (path, leaf), key in zip(sorted(by_path.items()), drawn[2:], strict=True)
    }
    params = jax.tree_util.tree_map_with_path(
        lambda path, _: noisy[functional.path_name(path)], params
    )
    x = keys.normal(drawn[0], (ROWS, *shape))
    t = np.array([0.25, 0.75]) * num_steps
    t = t.astype(np.float32 if isinstance(num_steps, float) else np.int32)
    condition = {
        name: _given(value)
        for name, value in conditions.abstract(network.condition_spec, ROWS).items()
    }

    def total(params):
        output = network.apply(params, x, t, condition)
        return jnp.sum(output * keys.normal(drawn[1], output.shape))

    gradient = functional.by_path(jax.jit(jax.grad(total))(params))
    return sorted(
        path
        for path, value in gradient.items()
        if not (np.any(value) or _is_beside(path))
    )


def _given(value):
    """Return ones; of a mask such as that of a text, one row without any."""
    ones = np.ones(value.shape, value.dtype)
    if value.dtype == bool:
        ones[-1] = False
    return ones


def _noisy(leaf, key):
    if np.any(np.asarray(leaf)):
        return leaf
    return 0.1 * keys.normal(key, leaf.shape)


def of_run(saved: trained_run.SavedRun) -> tuple[bool, str]:
    """Return whether all of a run's network is trained, and the words that say so."""
    if custom.is_noted(saved.stored):
        return True, "not looked at: a network of your own; ddpm_jax.load looks at it"
    trained = trained_run.open_run(saved)
    network, shape = trained.network, trained.facts.shape
    params = trained.state.params
    rescaled = trained.config.diffusion.rescale_timesteps
    steps = build_process.schedule(trained.config).num_steps
    still = without_gradient(
        network, params, shape, num_steps=1000.0 if rescaled else steps
    )
    if still:
        return False, f"no gradient: {', '.join(still)}"
    outside = held(network, shape, float_timesteps=rescaled)
    if outside:
        return False, remark(outside)
    return True, f"all {len(jax.tree.leaves(params))} have a gradient"
