"""A trained run, opened from its directory alone."""

import dataclasses

import jax

from ddpm_jax.builders import captions
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import reading
from ddpm_jax.core import errors
from ddpm_jax.models import custom, functional
from ddpm_jax.runs import checkpoints, directory
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import recipe
from ddpm_jax.text import tokenizers
from ddpm_jax.training import ema
from ddpm_jax.training import state as state_lib


@dataclasses.dataclass(frozen=True)
class SavedRun:
    """What config.json of a run says; nothing of its weights is read yet.

    Attributes:
        run_dir: the run's directory.
        config: as it was trained, or imported.
        facts: of its data.
        imported: what a conversion noted, None for a run that was trained here.
        stored: the whole of config.json.
    """

    run_dir: directory.RunDir
    config: object
    facts: build_data.DataInfo
    imported: dict | None
    stored: dict


def read(workdir) -> SavedRun:
    """Read config.json of a run, once for all that is to be known of it.

    Raises:
        Refusal: no run there, or one that this version cannot read.
    """
    run_dir = directory.RunDir.open_existing(workdir)
    stored = run_dir.read_config()
    return SavedRun(
        run_dir=run_dir,
        config=reading.from_dict(stored["config"], where=str(run_dir.config)),
        facts=captions.read(run_dir, stored["data"]),
        imported=stored.get("imported"),
        stored=stored,
    )


def at_size(config, saved: SavedRun, shape: tuple[int, int, int]):
    """Return config and run as if it were of pictures of another size.

    A U-Net has the same weights at any size that its levels divide, and its attention
    stays on the levels where it is.

    Args:
        config: of the run.
        saved: from `read`.
        shape: (H, W, C) of the pictures.
    """
    own, other = (min(size[:2]) for size in (saved.facts.shape, shape))
    levels = range(len(config.model.channel_mult))
    attended = [k for k in levels if own >> k in config.model.attention_resolutions]
    changed = []
    for given in (config, saved.config):
        one = given.copy_and_resolve_references()
        one.model.attention_resolutions = tuple(other >> k for k in attended)
        changed.append(one)
    facts = dataclasses.replace(saved.facts, shape=shape)
    return changed[0], dataclasses.replace(saved, config=changed[1], facts=facts)


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A run and its newest whole checkpoint, on the devices that are here now.

    `imported` is the import record, None for a run that was trained here.
    """

    run_dir: directory.RunDir
    config: object
    facts: build_data.DataInfo
    mesh: jax.sharding.Mesh
    network: functional.Network
    state: state_lib.TrainState
    step: int
    fingerprint: str
    imported: dict | None = None

    def weights(self, which: str, *, field: str) -> recipe.Weights:
        """Return the parameters to use, and why these.

        Args:
            which: "auto", "ema" or "raw".
            field: the config field that it comes from.
        """
        if self.imported:
            if which != "auto":
                raise errors.Refusal(
                    f"{field}={which!r}: {self.run_dir.path} was imported and holds "
                    f"one set of weights; leave {field}=auto"
                )
            return self._weights(
                self.state.params, "imported", self.imported["weights"]
            )
        shares = {
            name: float(share) for name, share in self.state.ema_initial_share.items()
        }
        name, sentence = ema.choose(
            which, shares, name=build_training.ema_name(self.config), field=field
        )
        if name is None:
            return self._weights(self.state.params, "raw", sentence)
        return self._weights(self.state.ema[name], "ema", sentence)

    def chosen_weights(self, field: str) -> recipe.Weights:
        """Return the weights that a config field names, and print which these are."""
        section, name = field.split(".")
        weights = self.weights(self.config[section][name], field=field)
        say(f"step {weights.step}, {weights.why}")
        return weights

    def _weights(self, params, kind, why):
        fingerprint = f"{self.fingerprint}-{kind}"
        return recipe.Weights(params, kind, why, self.step, fingerprint)


def to_resume(workdir) -> SavedRun | None:
    """Return the run to go on training, or None where there is none yet.

    Raises:
        Refusal: it holds imported weights, without an optimizer's state; tells how to
            fine-tune them.
    """
    run_dir = directory.RunDir.at(workdir)
    saved = read(workdir) if run_dir.config.exists() else None
    if saved is not None and saved.imported is not None:
        raise errors.Refusal(
            f"{workdir} holds imported weights and nothing to resume: fine-tune them "
            f"in a run of their own, --config=… --config.train.init_from={workdir}"
        )
    return saved


def open_run(run, config=None, *, mesh=None, network=None) -> TrainedRun:
    """Open a run for everything but training.

    Args:
        run: its directory, or what `read` gave for it.
        config: its config with changes of sampling, evaluation and mesh, and of data
            if it was imported; None for its own.
        mesh: devices to restore to; None for those that the config asks for.
        network: the user's own that the run was trained with; None for the one that its
            config describes.

    Raises:
        Refusal: no run, no checkpoint, or a config that says another network.
    """
    saved = run if isinstance(run, SavedRun) else read(run)
    run_dir, facts = saved.run_dir, saved.facts
    custom.check_note(saved.stored, network, run_dir.path)
    if config is None:
        config = saved.config
    # Imported weights come without their data: any that fits may score them.
    also = ("data.*",) if saved.imported else ()
    reading.check_same_run(saved.config, config, workdir=run_dir.path, also=also)
    if mesh is None:
        mesh = build_training.mesh(config)
    if network is None:
        network = build_network.network(config, facts)
    else:
        network = custom.with_labels(network, build_network.label_spec(config, facts))
    if saved.imported:
        abstract = build_training.abstract_weights(network, mesh)
    else:
        # Nothing but training reads the moments: they stay on the disk.
        whole = build_training.abstract_state(config, network, mesh)
        abstract = whole.replace(opt_state=(), timesteps=())
    with checkpoints.Checkpoints(run_dir.checkpoints) as stored:
        restored = stored.restore(abstract, chosen_step(config, stored), partial=True)
        fingerprint = stored.fingerprint(restored.step)
    say_skipped(restored)
    return TrainedRun(
        run_dir=run_dir,
        config=config,
        facts=facts,
        mesh=mesh,
        network=network,
        state=restored.state,
        step=restored.step,
        fingerprint=fingerprint,
        imported=saved.imported,
    )


def chosen_step(config, saved_states: checkpoints.Checkpoints) -> int | None:
    """Return the step that sampling.checkpoint asks for, None for the newest whole one.

    Raises:
        Refusal: there is no best one, or none of that step.
    """
    asked = config.sampling.checkpoint
    if asked == "last":
        return None
    if asked.isdecimal():
        steps = saved_states.steps()
        if int(asked) not in steps:
            raise errors.Refusal(
                f"sampling.checkpoint={asked}: no checkpoint of that step is kept; "
                f"there are {', '.join(map(str, steps)) or 'none'}; see "
                "train.keep_checkpoints and train.keep_every"
            )
        return int(asked)
    best = saved_states.best()
    if best is None:
        raise errors.Refusal(
            "sampling.checkpoint=best: no checkpoint of this run was scored in "
            "training; set train.evaluate_every there, or take sampling.checkpoint=last"
        )
    say(f"best checkpoint: step {best.step}, {best.metric} {best.value:.4f}")
    return best.step


def say_skipped(restored: checkpoints.Restored) -> None:
    """Name every checkpoint that was newer but could not be used."""
    for step, reason in restored.skipped:
        say(f"checkpoint {step} was not used: {reason}")


# What decides how a network uses its weights, and leaves no trace in their shapes.
HIDDEN_IN_SHAPES = (
    "model.sinusoid",
    "model.sinusoid_shift",
    "model.norm_groups",
    "model.norm_epsilon",
    "model.downsample_padding",
    "model.qkv_order",
    "model.num_heads",
    "model.head_channels",
    "model.text_heads",
    "model.mean_form",
    "diffusion.rescale_timesteps",
)


# What the output of a network means, and the noise that it knows.
OF_OUTPUT = ("diffusion.prediction", "diffusion.variance")
OF_SCHEDULE = (
    "diffusion.num_steps",
    "diffusion.schedule",
    "diffusion.beta_start",
    "diffusion.beta_end",
    "diffusion.betas",
    "diffusion.zero_terminal_snr",
)


OF_TOKENS = "text/tokens/embedding"  # what each token means


def check_transfer(
    config, network: functional.Network, facts: build_data.DataInfo
) -> None:
    """Refuse to start from a run that does not fit, before anything is made.

    Args:
        config: of the new run; train.init_from names the run to start from.
        network: of the new run.
        facts: of its data.

    Raises:
        Refusal: no run, no checkpoint, no array of a shape that `network` has, fewer
            than train.init_min_share, or another meaning of the same arrays.
    """
    workdir = config.train.init_from
    found = read(workdir)
    source = found.config
    with checkpoints.Checkpoints(found.run_dir.checkpoints) as saved:
        if saved.latest_step() is None:
            raise errors.Refusal(
                f"train.init_from={workdir} has no checkpoint: train it first"
            )
    given = functional.by_path(build_network.network(source, found.facts).shapes)
    wanted = functional.by_path(network.shapes)
    fitting = sum(_fits(given, path, leaf) for path, leaf in wanted.items())
    theirs = dict(reading.leaves(source.to_dict()))
    ours = dict(reading.leaves(config.to_dict()))
    if not fitting:
        raise errors.Refusal(
            f"train.init_from={workdir}: none of its arrays has the shape of one here; "
            "make the fields of model.* alike, or leave init_from empty"
        )
    least = config.train.init_min_share
    if fitting < least * len(wanted):
        names = [name for name in ours if name.startswith("model.")]
        raise errors.Refusal(
            f"train.init_from={workdir}: {fitting} of {len(wanted)} arrays fit, below "
            f"train.init_min_share={least:g}, and the rest would start fresh"
            f"{_differences(theirs, ours, names, before=', for ')}; give the values "
            "from there, or train.init_min_share=0 to start from these alone"
        )
    ignored = "model.num_heads" if config.model.head_channels else ""
    hidden = [name for name in HIDDEN_IN_SHAPES if name != ignored]
    differing = _differences(theirs, ours, hidden)
    if differing:
        raise errors.Refusal(
            f"train.init_from={workdir}: its arrays fit, but would mean something "
            f"else, for {differing}; give the values from there"
        )
    if OF_TOKENS in wanted and _fits(given, OF_TOKENS, wanted[OF_TOKENS]):
        _check_tokens(workdir, found.facts, facts)


def _check_tokens(workdir, theirs, ours) -> None:
    """Refuse to take what a token means from a run whose tokens are other words."""
    if theirs.text is None or ours.text is None:
        return
    # The context has arrays of its own, whose shape tells it.
    alike = [{**f.text.tokenizer, "context": None} for f in (theirs, ours)]
    if alike[0] != alike[1]:
        there, here = (tokenizers.described(f.text.tokenizer) for f in (theirs, ours))
        raise errors.Refusal(
            f"train.init_from={workdir} reads texts by {there} and this run by {here}: "
            "its embedding fits, and a token would be another word; train on the "
            "same captions with the same data.tokenizer, or set another "
            "model.text_width and train.init_min_share to leave it out"
        )


def _differences(theirs, ours, names, before="") -> str:
    """Return which of some fields differ, with both values; "" where none does."""
    differing = [
        f"{name} is {theirs[name]!r} there and {ours[name]!r} here"
        for name in names
        if theirs[name] != ours[name]
    ]
    return before + "; ".join(differing) if differing else ""


def process_changes(source, config) -> str:
    """Return what weights of one run have to learn anew in another, "" for nothing.

    Args:
        source: config of the run that the weights come from.
        config: of the run that starts from them.
    """
    names = list(OF_OUTPUT)
    if build_process.schedule(source) != build_process.schedule(config):
        names += OF_SCHEDULE
    theirs, ours = (dict(reading.leaves(c.to_dict())) for c in (source, config))
    return _differences(theirs, ours, names)


def transfer(config, params, *, mesh):
    """Return `params` with every leaf of a run's weights that fits, and what was done.

    Args:
        config: of the new run; train.init_from names the run to start from.
        params: freshly drawn parameters on their shardings.
        mesh: the devices of `params`.
    """
    workdir = config.train.init_from
    source = open_run(workdir, mesh=mesh)
    weights = source.weights("auto", field="weights")
    given = functional.by_path(weights.params)
    fresh = []

    def take(path, leaf):
        name = functional.path_name(path)
        if _fits(given, name, leaf):
            return jax.device_put(given[name], leaf.sharding)
        fresh.append(name)
        return leaf

    taken = jax.tree_util.tree_map_with_path(take, params)
    loaded = len(jax.tree.leaves(params)) - len(fresh)
    say(f"initial weights of {workdir}, step {source.step}, {weights.why}")
    say(f"  loaded {loaded} arrays")
    say(f"  fresh  {len(fresh)} arrays{': ' if fresh else ''}{', '.join(fresh)}")
    changes = process_changes(source.config, config)
    if changes:
        say(f"  another process, to which the weights must adapt: {changes}")
    return taken


def _fits(given, path, leaf) -> bool:
    """Return whether the arrays by path `given` hold one to start `leaf` from."""
    return path in given and given[path].shape == leaf.shape
