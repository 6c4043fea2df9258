"""What a classifier's config takes from the run that the classifier will guide.

The values stand in the classifier's own config.json afterwards: going on with it and
using it need the guided run no more.
"""

import pathlib

from ddpm_jax.config import reading
from ddpm_jax.core import errors

# Fields that make x_t of x_0, and tell the network t.
PROCESS = (
    "diffusion.schedule",
    "diffusion.num_steps",
    "diffusion.beta_start",
    "diffusion.beta_end",
    "diffusion.betas",
    "diffusion.zero_terminal_snr",
    "diffusion.log_var_floor",
    "diffusion.rescale_timesteps",
)
DATA = (
    "data.name",
    "data.path",
    "data.image_size",
    "data.channels",
    "data.labels",
    "data.test_fraction",
    "data.flip",
    "data.crop",
)
OF_IMAGES = ("data.image_size", "data.channels")  # all that an imported run says
# Values of a guided run that are no reason to change a classifier's own.
UNLABELLED = ("data.labels", "none")
RANDOM_CROP = ("data.crop", "random")


def take_over(config, workdir: str, *, file: str) -> None:
    """Copy process and data of a run into a classifier's config, and name the run.

    Of the data a classifier keeps its own random crops, and its own labels where the
    run was trained without any.

    Args:
        config: of the classifier; changed in place.
        workdir: the run that it will guide.
        file: the config file, for the sentence.

    Raises:
        Refusal: no run is named, there is none, or it cannot be guided.
    """
    if not workdir:
        raise errors.Refusal(
            f"{file} needs the run that the classifier will guide, behind a colon: "
            f"--config={file}:runs/digits_unconditional"
        )
    stored, theirs = read(workdir)
    taken = (*PROCESS, *(OF_IMAGES if stored.get("imported") else DATA))
    ours = dict(reading.leaves(config.to_dict()))
    values = dict(reading.leaves(theirs.to_dict()))
    for path in taken:
        if (path, values[path]) == UNLABELLED or (path, ours[path]) == RANDOM_CROP:
            continue
        section, name = path.split(".")
        config[section][name] = values[path]
    config.model.guides = str(pathlib.PurePath(workdir))


def read(workdir: str):
    """Return config.json of a run that a classifier can guide, and its config.

    Raises:
        Refusal: no run is there, or it is no diffusion model.
    """
    from ddpm_jax.runs import directory  # the command line does not wait for it

    with errors.about(f"model.guides={workdir}"):
        run = directory.RunDir.open_existing(workdir)
        stored = run.read_config()
        config = reading.from_dict(stored["config"], where=str(run.config))
    if config.model.kind != "unet":
        raise errors.Refusal(
            f"model.guides={workdir} is a run of model.kind={config.model.kind!r}: "
            "name the diffusion model that the classifier will guide"
        )
    return stored, config


def check(config, facts, theirs, their_facts, *, imported: bool) -> None:
    """Refuse a classifier of another process, image size or list of classes.

    Args:
        config, facts: of the classifier; facts have `shape` and `class_names`.
        theirs, their_facts: of the run model.guides.
        imported: whether that run was imported: its classes have no names then.

    Raises:
        Refusal: names both values.
    """
    where = config.model.guides
    ours = dict(reading.leaves(config.to_dict()))
    values = dict(reading.leaves(theirs.to_dict()))
    for path in PROCESS:
        if ours[path] != values[path]:
            raise errors.Refusal(
                f"{path}={_short(ours[path])} contradicts {where}, which the "
                f"classifier is to guide and which has {_short(values[path])}: leave "
                "it as it is there"
            )
    if facts.shape != their_facts.shape:
        raise errors.Refusal(
            f"the classifier's images are {list(facts.shape)} and those of {where}, "
            f"which it is to guide, {list(their_facts.shape)}: leave data.* as it is "
            "there"
        )
    names, their_names = facts.class_names, their_facts.class_names
    differ = len(names) != len(their_names) if imported else names != their_names
    if their_names and differ:
        raise errors.Refusal(
            f"the classifier's classes are {_short(names)} and those of {where}, which "
            f"it is to guide, {_short(their_names)}: leave data.* as it is there"
        )


def _short(value, most=8):
    """Return a value as text, long tuples by their ends."""
    if isinstance(value, tuple) and len(value) > most:
        return f"({value[0]!r}, {value[1]!r}, … {value[-1]!r}), {len(value)} in all"
    return repr(value)
