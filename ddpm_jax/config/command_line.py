"""A command line, understood: which mode, with what config.

It needs no JAX: a refused command line should not wait for it.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from ddpm_jax import config as config_lib
from ddpm_jax.config import reading, rules
from ddpm_jax.core import errors

NEEDED_FLAGS = {"source": "convert", "format": "export", "output": "export"}
OPTIONAL_FLAGS = {"topology": "plan"}
CONFIG_PREFIXES = ("--config.", "-config.", "--noconfig.", "-noconfig.")


@dataclasses.dataclass(frozen=True)
class Together:
    """The place among several processes, where flags tell it.

    Attributes:
        coordinator: "host:port" of process 0; "" where the environment tells.
        num_processes, process_id: 0 and −1 where the environment tells.
        timeout: seconds that the processes may take to find each other.
    """

    coordinator: str = ""
    num_processes: int = 0
    process_id: int = -1
    timeout: int = 300


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line that was understood.

    Attributes:
        mode: a key of `main.MODES`.
        workdir: directory of the run; "" for a mode without one.
        config: the config with overrides applied; None for a mode without one.
        given: the fields that the command line or its config file decides.
        source, format, output: what to import, and how and where to export.
        cards: what to compare.
        topology: of the TPU to plan for; "" for the devices that are here.
        together: this process's place among several, as far as flags tell it.
    """

    mode: str
    workdir: str
    config: Any
    given: frozenset[str] = frozenset()
    source: str = ""
    format: str = ""
    output: str = ""
    cards: tuple[str, ...] = ()
    topology: str = ""
    together: Together = Together()


def parse(
    argv: Sequence[str], modes: Mapping[str, object], about: str
) -> Command | None:
    """Return the command, or None where only help was asked for.

    The config is that of --config, else that of the run in --workdir, with the
    --config.… overrides applied.

    Args:
        argv: program name and arguments.
        modes: by name.
        about: what --help prints.

    Raises:
        Refusal: anything that is not understood.
    """
    if any(
        argument in ("--help", "-h", "-help", "--helpfull") for argument in argv[1:]
    ):
        print(about)
        print("Modes: " + ", ".join(modes) + ". Fields: ddpm_jax/config/__init__.py.")
        return None
    parser = _defined(modes)
    overrides = [a for a in argv[1:] if a.startswith(CONFIG_PREFIXES)]
    rest = [a for a in argv[1:] if not a.startswith(CONFIG_PREFIXES)]
    positional = _parse_flags(parser, [argv[0], *rest])
    mode = parser.mode
    errors.choose("mode", modes, mode)
    _check_own_flags(parser)
    if mode == "compare":
        return Command(mode, workdir="", config=None, cards=tuple(positional))
    if positional:
        raise errors.Refusal(
            f"unexpected argument {positional[0]!r}: every argument is --name=value"
        )
    if mode == "doctor":
        return Command(mode, workdir="", config=None)

    workdir = parser.workdir or _default_workdir(parser.config)
    config, given = _config(parser, workdir, overrides)
    names = _override_names(overrides)
    config = _apply(
        config, argv[0], names, overrides, where=parser.config or workdir or "--config"
    )
    reading.read_betas(config)
    rules.check_types(config)
    rules.check_values(config)
    return Command(
        mode,
        workdir,
        config,
        frozenset([*given, *names]),
        parser.source,
        parser.format,
        parser.output,
        topology=parser.topology,
        together=Together(
            *(parser[field.name].value for field in dataclasses.fields(Together))
        ),
    )


def _defined(modes):
    """Return a parser of all flags but those of the config's fields."""
    parser = flags.FlagValues()
    for name, default, meaning in (
        ("config", "", "file.py or file.py:variant"),
        ("workdir", "", "directory of the run"),
        ("mode", "train", ", ".join(modes)),
        ("source", "", "file or folder to convert"),
        ("format", "", "of the exported weights"),
        ("output", "", "where to export to"),
        ("topology", "", "TPUs to plan for, such as v5e:4x4"),
        ("coordinator", "", "host:port of process 0"),
        ("num_processes", 0, "processes of the job"),
        ("process_id", -1, "which of them this one is, from 0"),
        ("timeout", 300, "seconds in which the processes must find each other"),
    ):
        define = flags.DEFINE_integer
        if isinstance(default, str):
            define = flags.DEFINE_string
        define(name, default, meaning, flag_values=parser)
    flags.DEFINE_bool("debug", False, "show tracebacks", flag_values=parser)
    return parser


def _config(parser, workdir, overrides):
    """Return the config before overrides, and the fields that its file decides."""
    if parser.config:
        config = reading.from_file(parser.config)
        return config, dict(reading.leaves(config.to_dict()))
    if parser.mode == "convert":
        return config_lib.base(), {}
    if not workdir and _is_of_images(parser.mode, overrides):
        return config_lib.base(), {}
    if not workdir:
        raise errors.Refusal(
            "no --config and no --workdir: train with --config=configs/digits.py, or "
            "name an existing run with --workdir=runs/digits"
        )
    return _config_of_run(workdir), {}


def _check_own_flags(parser):
    """Refuse a flag of another mode, and a mode without its flags."""
    for name, mode in (NEEDED_FLAGS | OPTIONAL_FLAGS).items():
        value = parser[name].value
        if value and parser.mode != mode:
            raise errors.Refusal(
                f"--{name}={value} belongs to --mode={mode}, not to "
                f"--mode={parser.mode}: leave it out, or give --mode={mode}"
            )
        if not value and parser.mode == mode and name in NEEDED_FLAGS:
            raise errors.Refusal(f"--mode={mode} needs --{name}: see --help")
    if parser.mode == "convert" and not parser.workdir:
        raise errors.Refusal(
            "--mode=convert needs --workdir, where the new run is to be: such as "
            "--workdir=runs/imported"
        )


def _config_of_run(workdir):
    from ddpm_jax.runs import directory

    run = directory.RunDir.open_existing(workdir)
    return reading.from_dict(run.read_config()["config"], where=str(run.config))


def _default_workdir(spec):
    """Return runs/<config name> for "configs/<config name>.py[:variant]"."""
    if not spec:
        return ""
    name, _, variant = spec.partition(":")
    stem = pathlib.Path(name).stem
    suffix = pathlib.Path(variant).name  # of a variant that is a folder, its own name
    return str(pathlib.Path("runs") / (f"{stem}-{suffix}" if suffix else stem))


def _is_of_images(mode, overrides):
    """Return whether images are to be compared, which takes no run."""
    return mode == "evaluate" and "evaluation.samples" in _override_names(overrides)


def _override_names(overrides):
    """Return the field of each --config.field=value argument."""
    return [
        argument.lstrip("-")
        .removeprefix("no")
        .partition("=")[0]
        .removeprefix("config.")
        for argument in overrides
    ]


def _apply(config, program, names, overrides, *, where):
    """Return `config` with the --config.field=value arguments applied."""
    for name in names:
        reading.check_name(name, where=where)
    # The last one counts; the parser would append to a tuple that is given twice.
    last = dict(zip(names, overrides, strict=True))
    parser = flags.FlagValues()
    argv = [program, *last.values()]
    config_flags.DEFINE_config_dict("config", config, flag_values=parser, sys_argv=argv)
    try:
        parser(argv)
    except flags.Error as error:
        raise errors.Refusal(_explain(error, last, config)) from error
    rules.normalise_tuples(parser.config)
    _prefer_given_steps(parser.config, names)
    return parser.config


def _explain(error, overrides, config):
    """Say which field an override failed at, and what it takes."""
    leaves = dict(reading.leaves(config.to_dict()))
    for name, argument in overrides.items():
        if argument in str(error):
            kind = "int" if leaves[name] is None else type(leaves[name]).__name__
            return f"{argument} is not a value of type {kind}, such as {leaves[name]!r}"
    return " ".join(str(error).split())


def _prefer_given_steps(config, names):
    """Let steps given here replace a respacing given before, and the other way round.

    Where both are given here, `builders` refuses them.
    """
    for section in ("sampling", "evaluation"):
        given = {
            name for name in ("steps", "respacing") if f"{section}.{name}" in names
        }
        if given == {"steps"}:
            config[section].respacing = ""
        elif given == {"respacing"} and config[section].respacing:
            config[section].steps = None


def _parse_flags(parser, argv):
    """Return the arguments that are no flags."""
    try:
        return parser(argv)[1:]
    except flags.Error as error:
        text = " ".join(str(error).split())
        raise errors.Refusal(f"{text}; --help lists the flags") from error
