"""A trained run, opened from its directory alone."""

import dataclasses

import jax

from ddpm_jax import builders
from ddpm_jax import config as config_lib
from ddpm_jax.models import network as network_lib
from ddpm_jax.runtime import checkpoints, rundir
from ddpm_jax.training import ema
from ddpm_jax.training import state as state_lib


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run and its newest whole checkpoint, on the devices that are here now."""

    run_dir: rundir.RunDir
    config: object
    facts: builders.DataFacts
    mesh: jax.sharding.Mesh
    network: network_lib.Network
    state: state_lib.TrainState
    step: int
    skipped: tuple[tuple[int, str], ...]

    def weights(self, which: str):
        """Return parameters, "ema" or "raw", and the sentence that says why.

        Args:
            which: "auto", "ema" or "raw".
        """
        shares = {
            name: float(share) for name, share in self.state.ema_initial_share.items()
        }
        name, sentence = ema.choose(which, shares)
        if name is None:
            return self.state.params, "raw", sentence
        return self.state.ema[name], "ema", sentence


def read(run_dir: rundir.RunDir):
    """Return the config of a run and the facts of its data."""
    saved = run_dir.read_config()
    where = str(run_dir.config)
    config = config_lib.from_dict(saved["config"], where=where)
    return config, builders.DataFacts.from_dict(saved["data"])


def open_run(workdir, config=None) -> TrainedRun:
    """Open a run for everything but training.

    Args:
        workdir: its directory.
        config: its config with changes of sampling, evaluation and mesh; None for its
            own.

    Raises:
        Refusal: no run, no checkpoint, or a config that says another network.
    """
    run_dir = rundir.RunDir.open_existing(workdir)
    saved, facts = read(run_dir)
    if config is None:
        config = saved
    config_lib.check_same_run(saved, config, workdir=workdir)
    mesh = builders.mesh(config)
    network = builders.network(config, facts)
    abstract = builders.abstract_state(config, network, mesh)
    with checkpoints.Checkpoints(run_dir.checkpoints) as saved_states:
        restored = saved_states.restore(abstract)
    return TrainedRun(
        run_dir=run_dir,
        config=config,
        facts=facts,
        mesh=mesh,
        network=network,
        state=restored.state,
        step=restored.step,
        skipped=restored.skipped,
    )


def transfer(workdir, params):
    """Return `params` with every leaf of a run's weights that fits, and what was done.

    Args:
        workdir: the run whose weights to start from.
        params: freshly drawn parameters on their shardings.

    Returns:
        Parameters, and lines that list the leaves that start fresh.
    """
    source = open_run(workdir)
    weights, _, sentence = source.weights("auto")
    given = network_lib.by_path(weights)
    fresh = []

    def take(path, leaf):
        name = network_lib.path_name(path)
        if name in given and given[name].shape == leaf.shape:
            return jax.device_put(given[name], leaf.sharding)
        fresh.append(name)
        return leaf

    taken = jax.tree_util.tree_map_with_path(take, params)
    loaded = len(jax.tree.leaves(params)) - len(fresh)
    lines = [
        f"initial weights of {workdir}, step {source.step}, {sentence}",
        f"  loaded {loaded} arrays",
        f"  fresh  {len(fresh)} arrays{': ' if fresh else ''}{', '.join(fresh)}",
    ]
    return taken, "\n".join(lines)
