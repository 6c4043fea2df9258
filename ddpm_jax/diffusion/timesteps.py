"""Which t a training example gets, as values: init, sample, update of a state.

A sampler draws t ~ p and weights the loss by 1/(T′ p_t), so that the expected loss is
the same for every p (Improved DDPM section 3.3).
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ddpm_jax.core import keys

HISTORY = 10  # losses kept for each t (Improved DDPM section 3.3)
UNIFORM_SHARE = 0.001  # of every t, so that none is forgotten (the original code)


@dataclasses.dataclass(frozen=True)
class Uniform:
    """t ~ U{0 … T′−1}, weight 1; nothing to remember."""

    num_steps: int

    def init(self):
        """Return the empty state."""
        return ()

    def sample(self, state, key, n):
        """Return t int32 [n] and weights float32 [n]."""
        del state
        t = keys.integers(key, (n,), self.num_steps)
        return t, jnp.ones(n, jnp.float32)

    def update(self, state, t, loss):
        """Return the state unchanged."""
        del t, loss
        return state


class LossHistory(NamedTuple):
    """The last losses of each t: `losses` [T′, 10], `counts` [T′] of valid entries."""

    losses: jax.Array
    counts: jax.Array


@dataclasses.dataclass(frozen=True)
class LossSecondMoment:
    """p_t ∝ √E[L_t²], from the last 10 losses of each t (Improved DDPM eq. 18).

    Until every t has 10 losses the draw is uniform. Used with a pure bound.
    """

    num_steps: int

    def init(self) -> LossHistory:
        """Return the empty history."""
        return LossHistory(
            losses=jnp.zeros((self.num_steps, HISTORY), jnp.float32),
            counts=jnp.zeros(self.num_steps, jnp.int32),
        )

    def probabilities(self, state: LossHistory):
        """Return p [T′], float32, from which t is drawn."""
        root = jnp.sqrt(jnp.mean(state.losses**2, axis=1))
        total = jnp.sum(root)
        warm = jnp.all(state.counts == HISTORY) & (total > 0)
        learned = root / jnp.where(warm, total, 1.0)
        learned = learned * (1 - UNIFORM_SHARE) + UNIFORM_SHARE / self.num_steps
        return jnp.where(warm, learned, 1 / self.num_steps)

    def sample(self, state: LossHistory, key, n):
        """Return t int32 [n] drawn from p, and weights 1/(T′ p_t) float32 [n]."""
        p = self.probabilities(state)
        t = keys.categorical(key, jnp.log(p), n)
        return t, 1 / (self.num_steps * p[t])

    def update(self, state: LossHistory, t, loss) -> LossHistory:
        """Append the unweighted losses [B] of the whole batch, in image order.

        The result equals appending one example after the other and keeping the last
        10 of each t, also when a t occurs several times.
        """
        rank = _rank_among_equals(t)
        added = jnp.zeros_like(state.counts).at[t].add(1)
        total = state.counts + added
        shift = jnp.maximum(total - HISTORY, 0)

        source = jnp.arange(HISTORY) + shift[:, None]
        kept = jnp.take_along_axis(
            state.losses, jnp.minimum(source, HISTORY - 1), axis=1
        )
        kept = jnp.where(source < state.counts[:, None], kept, 0.0)

        position = state.counts[t] + rank - shift[t]
        # A negative position was pushed out by later ones: send it out of bounds.
        position = jnp.where(position < 0, HISTORY, position)
        losses = kept.at[t, position].set(loss, mode="drop")
        return LossHistory(losses, jnp.minimum(total, HISTORY))


def _rank_among_equals(t):
    """Return, for each entry, how many earlier entries have the same t, [B]."""
    earlier = jnp.tril(t[:, None] == t[None, :], k=-1)
    return jnp.sum(earlier, axis=1)


TIMESTEP_SAMPLERS = {"uniform": Uniform, "loss_second_moment": LossSecondMoment}


def uniform(num_steps: int) -> Uniform:
    """Return the uniform sampler of t in 0 … T′−1."""
    return Uniform(num_steps)


def loss_second_moment(num_steps: int) -> LossSecondMoment:
    """Return the loss-second-moment sampler of t in 0 … T′−1."""
    return LossSecondMoment(num_steps)
