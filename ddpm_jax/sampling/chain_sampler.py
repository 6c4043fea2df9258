"""Samples of the chains of the 2015 paper: a recipe and its compiled program.

Both have the face of `recipe.Recipe` and `sampler.Sampler`, so that archives, grids and
generation take either. Example i depends on the seed, the weights and i alone.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from ddpm_jax.core import keys
from ddpm_jax.diffusion import nonequilibrium, r_x
from ddpm_jax.runtime import sharding
from ddpm_jax.sampling import naming
from ddpm_jax.sampling.naming import Setting, Weights
from ddpm_jax.sampling.sampler import Made


@dataclasses.dataclass(frozen=True)
class ChainRecipe:
    """All that decides example i, but the weights.

    Attributes:
        shape: of one example.
        num_steps: T; all of them are taken.
        settings: what was asked for, by field.
        seed: decides every draw, together with i.
        fingerprints: (name, fingerprint) of arrays that change examples.
        repeats: examples that take what is known of one picture, before the next one's.
    """

    shape: tuple[int, ...]
    num_steps: int
    settings: tuple[Setting, ...]
    seed: int
    fingerprints: tuple[tuple[str, str], ...] = ()
    repeats: int = 1
    is_conditional = False

    @property
    def summary(self) -> str:
        """How the examples are made, in words."""
        return f"the learned reverse chain, {self.num_steps - 1} learned steps"

    def condition_of(self, index, specs, given=None) -> dict[str, np.ndarray]:
        """Return the condition of some examples: there is none."""
        del index, specs, given
        return {}

    def request(self, weights: Weights) -> dict[str, Any]:
        """Return what decides these examples, for request.json."""
        return naming.request(self.settings, self.fingerprints, weights)

    def differences(self, saved, weights: Weights) -> list[str]:
        """Return what tells a stored request from ours."""
        return naming.differences(saved, self.settings, self.fingerprints, weights)

    def tag(self, weights: Weights) -> str:
        """Return the name of the examples' folder."""
        return naming.tag(self.settings, weights)


class Known(NamedTuple):
    """Coordinates that r(x) fixes, a delta function on each.

    Attributes:
        data: [n, ...], of n pictures, in the units of the data.
        mask: bool [n, ...], True where they are known.
    """

    data: np.ndarray
    mask: np.ndarray


class ChainSampler:
    """A recipe with its network, its chain and devices."""

    def __init__(
        self,
        recipe: ChainRecipe,
        network,
        mesh,
        *,
        chain,
        tables_of,
        states,
        kept=(),
        known: Known | None = None,
    ):
        """Prepare; nothing is compiled yet.

        Args:
            recipe: what decides the examples.
            network: see `models.functional.Network`.
            mesh: devices to share each batch.
            chain, tables_of, states: see `training.chain_step`.
            kept: zero-based t whose x_t `make` returns too.
            known: what the whole chain has, see `diffusion.r_x.known`; the recipe has
                its fingerprint. Example i takes it from picture i // repeats.

        Raises:
            Refusal: see `r_x.check_known`.
        """
        self.recipe, self.network, self.mesh = recipe, network, mesh
        self._states = states
        self._known = known and known._replace(data=states.encode(known.data, 0.5))
        if known is not None:
            r_x.check_known(*self._known)
        seed, shape = recipe.seed, recipe.shape

        def sample(params, batch):
            index = batch["index"]
            stream = keys.key_for(seed, "sample/noise", index=index)
            change = None
            if known is not None:
                change = r_x.known(batch["known"], batch["mask"])
            return nonequilibrium.sample(
                chain,
                tables_of(params),
                lambda x, t: network.apply(params, x, t, {}),
                chain.noise_each(keys.key_for(seed, "sample/x_T", index=index), shape),
                lambda t: chain.noise_each(keys.fold_in_each(stream, t), shape),
                change=change,
                kept=kept,
            )

        self._program = jax.jit(sample, out_shardings=sharding.replicated(mesh))

    def condition_of(self, index) -> dict[str, np.ndarray]:
        """Return the condition of some examples: there is none."""
        return self.recipe.condition_of(index, self.network.condition_spec)

    def make(
        self, params, *, start: int, stop: int, batch_size: int, on_step=None
    ) -> Made:
        """Make examples start … stop−1 in one batch of fixed size.

        Args:
            params: parameters on the mesh.
            start, stop: at most `batch_size` apart.
            batch_size: compiled size, a multiple of the devices; the rest is padding.
            on_step: never told: the whole chain is one program.

        Returns:
            The examples; "states" are [1 + S, n, ...]: x_1, before the step that is not
            learned, and x_t of the kept t, as data.
        """
        del on_step
        index = np.minimum(np.arange(start, start + batch_size), stop - 1)
        batch = {"index": index.astype(np.int32)}
        if self._known is not None:
            data, mask = self._known
            turn = index // self.recipe.repeats % len(data)
            batch |= {"known": np.asarray(data)[turn], "mask": mask[turn]}
        run = self._program(params, sharding.put_whole(self.mesh, batch))
        count = stop - start
        decode = self._states.decode
        x_0, x_1, states = (
            decode(sharding.to_host(x)) for x in (run.x_0, run.x_1, run.states)
        )
        kept = np.concatenate([x_1[None], states])[:, :count]
        return Made(x_0[:count], kept, kept[:0])
