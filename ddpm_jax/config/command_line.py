"""A command line, understood: which mode, with what config.

It needs no JAX: a refused command line should not wait for it.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from ddpm_jax import config as config_lib
from ddpm_jax.config import examples, near_misses, paths, prompts, reading, rules
from ddpm_jax.config import modes as modes_lib
from ddpm_jax.config import overrides as overrides_lib
from ddpm_jax.core import errors
from ddpm_jax.runtime import console, home, versions

HELP = ("--help", "-h", "-help", "--helpfull")
VERSION = ("--version", "-version")
# Flags of every mode: (name, default, meaning).
COMMON = (
    ("mode", "train", "what to do"),
    ("config", "", "NAME of a packaged config, or file.py; :variant behind either"),
    ("workdir", "", "directory of the run"),
    ("coordinator", "", "host:port of process 0"),
    ("num_processes", 0, "processes of the job"),
    ("process_id", -1, "which of them this one is, from 0"),
    ("timeout", 300, "seconds in which the processes must find each other"),
    ("debug", False, "show tracebacks"),
)


@dataclasses.dataclass(frozen=True)
class Placement:
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
        mode: a key of `modes.MODES`.
        workdir: directory of the run; "" for a mode without one.
        config: the config with overrides applied; None for a mode without one.
        given: the fields that the command line or its config file decides.
        flags: the mode's own by name, and its arguments without a name: a string, or a
            tuple of strings where several values are taken.
        placement: this process's place among several, as far as flags tell it.
    """

    mode: str
    workdir: str = ""
    config: Any = None
    given: frozenset[str] = frozenset()
    flags: Mapping[str, str | tuple[str, ...]] = dataclasses.field(default_factory=dict)
    placement: Placement = Placement()

    def value(self, name: str):
        """Return what a mode's record calls `name`: a flag, else an attribute."""
        return self.flags[name] if name in self.flags else getattr(self, name)


def parse(
    argv: Sequence[str], modes: Mapping[str, modes_lib.Mode], about: str
) -> Command | None:
    """Return the command, or None where only help or the version was asked for.

    The config is that of --config, else that of the run in --workdir, with the
    --config.… overrides applied.

    Args:
        argv: program name and arguments.
        modes: by name.
        about: what --help prints before the modes.

    Raises:
        Refusal: anything that is not understood.
    """
    answer = _help_or_version(argv[1:], modes, about)
    if answer:
        console.say(answer)
        return None
    short = {name for mode in modes.values() for name in mode.short_fields}
    # A flag of one mode and a field of another may have one name: the mode decides.
    short -= _flags_of(_asked_mode(argv[1:]), modes)
    fields, rest = [], []
    for argument in argv[1:]:
        is_field = overrides_lib.is_override(argument) or _short_name(argument, short)
        (fields if is_field else rest).append(argument)
    parser = _defined(modes)
    positional = _parse_flags(parser, [argv[0], *rest])
    mode = errors.choose("mode", modes, parser.mode)
    own = _own_flags(parser, mode, modes)
    fields = [_written_out(argument, short, mode, modes) for argument in fields]
    if mode.arguments:
        own[mode.arguments] = tuple(positional)
    elif positional:
        raise near_misses.of_argument(positional[0], modes)
    if mode.needs == modes_lib.NOTHING:
        return Command(mode.name, parser.workdir, flags=own)

    overrides = overrides_lib.renamed(fields)
    names = overrides_lib.names_of(overrides)
    prompts.check_field(names)
    workdir = parser.workdir or _default_workdir(parser.config)
    config, given = _config(parser, mode, workdir, names)
    config = overrides_lib.apply(
        config, argv[0], overrides, where=parser.config or workdir or "--config"
    )
    prompts.apply(config, own)
    reading.read_betas(config)
    rules.check_types(config)
    paths.expand(config)
    rules.check_values(config)
    return Command(
        mode.name,
        workdir,
        config,
        frozenset([*given, *names]),
        own,
        Placement(
            *(parser[field.name].value for field in dataclasses.fields(Placement))
        ),
    )


def _help_or_version(arguments, modes, about):
    """Return the help or the versions if they are asked for, else ""."""
    if arguments[:1] == ["help"] or any(a in HELP for a in arguments):
        return f"{about}\n{help_text(modes)}"
    if arguments[:1] == ["version"] or any(a in VERSION for a in arguments):
        found = versions.versions()
        return (
            f"ddpm_jax {found['ddpm_jax']}, jax {found['jax']}, "
            f"Python {found['python']}"
        )
    return ""


def help_text(modes: Mapping[str, modes_lib.Mode]) -> str:
    """Return the list of modes and flags that --help prints."""
    lines = ["Modes:"]
    for mode in modes.values():
        lines.append(f"  {mode.name:<12} {mode.help}")
        for flag in mode.flags:
            needed = ", needed" if flag.least else ""
            often = "" if flag.most == 1 else ", may be given several times"
            usage = f"--{flag.name}={flag.kind}"
            lines.append(f"      {usage:<20} {flag.help}{needed}{often}")
        for name, path in mode.short_fields.items():
            lines.append(f"      --{name + '=…':<18} --config.{path}")
    lines.append("Flags of every mode:")
    lines += [f"  --{name:<16} {meaning}" for name, _, meaning in COMMON]
    lines.append("  --version          of ddpm_jax, jax and Python")
    lines.append("Fields: ddpm_jax/config/__init__.py.")
    return "\n".join(lines)


# ---- flags ---------------------------------------------------------------------------


def _defined(modes):
    """Return a parser of all flags but those of the config's fields."""
    parser = flags.FlagValues()
    for name, default, meaning in COMMON:
        define = {
            bool: flags.DEFINE_bool,
            int: flags.DEFINE_integer,
            str: flags.DEFINE_string,
        }[type(default)]
        define(name, default, meaning, flag_values=parser)
    own = {flag.name: flag for mode in modes.values() for flag in mode.flags}
    for name, flag in own.items():
        flags.DEFINE_multi_string(name, [], flag.help, flag_values=parser)
    return parser


def _parse_flags(parser, argv):
    """Return the arguments that are no flags."""
    try:
        return parser(argv)[1:]
    except flags.UnrecognizedFlagError as error:
        meant = near_misses.of_flag(error.flagname, argv)
        raise meant or _no_flag(error) from error
    except flags.Error as error:
        raise _no_flag(error) from error


def _no_flag(error):
    text = " ".join(str(error).split())
    return errors.Refusal(f"{text}; --help lists the flags")


def _own_flags(parser, mode, modes):
    """Return {name: value or values} of a mode's own flags.

    Raises:
        Refusal: a flag of other modes, one given too often, or one that is missing.
    """
    owners = {}
    for other in modes.values():
        for flag in other.flags:
            owners.setdefault(flag.name, []).append(other.name)
    for name, names in owners.items():
        given = [value for value in parser[name].value if value]
        if given and mode.name not in names:
            raise _not_of(mode, f"--{name}={given[0]}", names)
    return {
        flag.name: _values(parser[flag.name].value, flag, mode) for flag in mode.flags
    }


def _values(given, flag, mode):
    """Return the value of a flag, or the tuple of its values."""
    # As in --topology=$TOPOLOGY, where the variable is empty.
    is_raw = flag.kind == modes_lib.RAW
    values = tuple(value for value in given if value or is_raw)
    if flag.kind == modes_lib.PATH:
        values = tuple(str(home.expanded(value)) for value in values)
    if len(values) < flag.least:
        times = f" {flag.least} times, not {len(values)}" if flag.least > 1 else ""
        raise errors.Refusal(
            f"--mode={mode.name} needs --{flag.name}{times}: see --help"
        )
    if flag.most is not None and len(values) > flag.most:
        raise errors.Refusal(
            f"--mode={mode.name} takes {flag.most} --{flag.name}, and {len(values)} "
            f"were given: keep {flag.most} of {', '.join(values)}"
        )
    if flag.most == 1:
        return values[0] if values else ""
    return values


def _not_of(mode, argument, owners):
    """Return the refusal of an argument that belongs to other modes."""
    named = " and --mode=".join(owners)
    instead = "one of these" if len(owners) > 1 else f"--mode={named}"
    return errors.Refusal(
        f"{argument} belongs to --mode={named}, not to --mode={mode.name}: leave it "
        f"out, or give {instead}"
    )


def _asked_mode(arguments):
    """Return what --mode=NAME or --mode NAME says, "" without it."""
    name = ""
    for place, argument in enumerate(arguments):
        given, equals, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and given == "mode":
            name = value if equals else "".join(arguments[place + 1 : place + 2])
    return name


def _flags_of(name, modes):
    return {flag.name for flag in modes[name].flags} if name in modes else set()


def _short_name(argument, names):
    """Return the one of `names` that --name=value, --name or --noname gives, or ""."""
    if not argument.startswith("-"):
        return ""
    name = argument.lstrip("-").partition("=")[0].replace("-", "_")
    found = [n for n in (name, name.removeprefix("no")) if n in names]
    return found[0] if found else ""


def _written_out(argument, short, mode, modes):
    """Return --strength=0.6 as --config.editing.strength=0.6."""
    if overrides_lib.is_override(argument):
        return argument
    name = _short_name(argument, short)
    if name not in mode.short_fields:
        owners = [
            other.name
            for other in modes.values()
            if name in {*other.short_fields, *_flags_of(other.name, modes)}
        ]
        raise _not_of(mode, argument, owners)
    given, equals, value = argument.lstrip("-").partition("=")
    prefix = given.replace("-", "_").removesuffix(name)  # "no", or nothing
    return f"--{prefix}config.{mode.short_fields[name]}{equals}{value}"


# ---- the config ----------------------------------------------------------------------


def _config(parser, mode, workdir, names):
    """Return the config before overrides, and the fields that its file decides.

    Args:
        names: fields that the command line gives.
    """
    if mode.needs == modes_lib.NEW_RUN and not parser.workdir:
        raise errors.Refusal(
            f"--mode={mode.name} needs --workdir, where the new run is to be: such as "
            "--workdir=runs/imported"
        )
    if parser.config:
        config = reading.from_file(parser.config)
        return config, dict(reading.leaves(config.to_dict()))
    spared = not workdir and set(names) & set(mode.instead_of_run)
    if mode.needs == modes_lib.NEW_RUN or spared:
        return config_lib.base(), {}
    if not workdir and mode.needs == modes_lib.RUN:
        raise errors.Refusal(
            f"--mode={mode.name} needs a run: name one with --workdir=runs/digits, or "
            f"train one {examples.how_to_train()}"
        )
    if not workdir:
        raise errors.Refusal(
            f"no --config and no --workdir: train {examples.how_to_train()}, or name "
            "an existing run with --workdir=runs/digits"
        )
    return _config_of_run(workdir), {}


def _config_of_run(workdir):
    from ddpm_jax.runs import directory

    run = directory.RunDir.open_existing(workdir)
    return reading.from_dict(run.read_config()["config"], where=str(run.config))


def _default_workdir(spec):
    """Return runs/<config name> for "<config name>" or its path, "[:variant]" behind.

    A variant that is a run, such as the one that a classifier guides, names no other.
    """
    if not spec:
        return ""
    name, _, variant = spec.partition(":")
    if variant and pathlib.Path(variant, "config.json").is_file():
        variant = ""
    stem = pathlib.Path(name).stem
    suffix = pathlib.Path(variant).name  # of a variant that is a folder, its own name
    return str(pathlib.Path("runs") / (f"{stem}-{suffix}" if suffix else stem))
