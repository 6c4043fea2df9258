"""The command line: flags, then one mode.

python -m ddpm_jax.main …
  --config=configs/digits.py                          trains
  --mode=data --config=configs/folder.py:photos       shows what a network would see
  --mode=sample --workdir=runs/digits                 makes images
  --mode=evaluate --workdir=runs/digits               scores
  --mode=compare CARD CARD …                          puts evaluation cards side by side
  --mode=diagnose --workdir=runs/digits               why samples are noise, or tinted
  --mode=convert --source=FILE|DIR --workdir=RUN      imports published weights
  --mode=export --workdir=RUN --format=… --output=…   safetensors, diffusers, openai
  --mode=doctor                                       checks this machine
Any field of the config: --config.train.steps=500
"""

import dataclasses
import errno
import pathlib
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from ddpm_jax import config as config_lib
from ddpm_jax import values
from ddpm_jax.core import errors


@dataclasses.dataclass(frozen=True)
class Command:
    """A command line that was understood.

    Attributes:
        mode: a key of `MODES`.
        workdir: directory of the run; "" for a mode without one.
        config: the config with overrides applied; None for a mode without one.
        given: the fields that the command line or its config file decides.
        source, format, output: what to import, and how and where to export.
        cards: what to compare.
    """

    mode: str
    workdir: str
    config: Any
    given: frozenset[str] = frozenset()
    source: str = ""
    format: str = ""
    output: str = ""
    cards: tuple[str, ...] = ()


def _train(command):
    from ddpm_jax.modes import train

    train.run(command.config, command.workdir)


def _sample(command):
    from ddpm_jax.modes import sample

    sample.run(command.config, command.workdir)


def _evaluate(command):
    from ddpm_jax.modes import evaluate

    evaluate.run(command.config, command.workdir)


def _data(command):
    from ddpm_jax.modes import data

    data.run(command.config, command.workdir)


def _convert(command):
    from ddpm_jax.modes import convert

    convert.run(command.source, command.workdir, command.config, command.given)


def _export(command):
    from ddpm_jax.modes import export

    export.run(command.config, command.workdir, command.format, command.output)


def _compare(command):
    from ddpm_jax.modes import compare

    compare.run(command.cards)


def _diagnose(command):
    from ddpm_jax.modes import diagnose

    diagnose.run(command.config, command.workdir)


def _doctor(command):
    from ddpm_jax.modes import doctor

    del command  # it looks at the machine alone
    doctor.run()


# Each imports its module itself: a refused command line should not wait for JAX.
MODES = {
    "train": _train,
    "data": _data,
    "sample": _sample,
    "evaluate": _evaluate,
    "compare": _compare,
    "diagnose": _diagnose,
    "convert": _convert,
    "export": _export,
    "doctor": _doctor,
}
OWN_FLAGS = {"source": "convert", "format": "export", "output": "export"}
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
CONFIG_PREFIXES = ("--config.", "-config.", "--noconfig.", "-noconfig.")


def main(argv=None) -> int:
    """Run one mode and return the exit status: 0, or 1 after an error in one sentence.

    Args:
        argv: program name and arguments; those of the process by default.
    """
    argv = list(sys.argv if argv is None else argv)
    debug = any(a.lstrip("-") in ("debug", "debug=true", "debug=1") for a in argv)
    try:
        command = parse(argv)
        if command is None:
            return 0
        MODES[command.mode](command)
    except errors.Refusal as refusal:
        if debug:
            raise
        print(f"error: {refusal}", file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        # Disks fill up and vanish; that is no defect of ours if a file is to blame.
        if debug or error.filename is None:
            raise
        told = f"{error.filename}: {error.strerror}"
        if error.errno in FULL_DISK:
            told += "; make room and give the same command again: it goes on from "
            told += "what is saved"
        print(f"error: {told}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        # Modes catch the signal themselves once there is something to save.
        print("stopped on request; there was nothing to save yet", flush=True)
    return 0


def parse(argv) -> Command | None:
    """Return the command, or None where only help was asked for.

    The config is that of --config, else that of the run in --workdir, with the
    --config.… overrides applied.

    Raises:
        Refusal: anything that is not understood.
    """
    if any(
        argument in ("--help", "-h", "-help", "--helpfull") for argument in argv[1:]
    ):
        print(__doc__)
        print("Modes: " + ", ".join(MODES) + ". Fields: see ddpm_jax/config.py.")
        return None
    parser = flags.FlagValues()
    flags.DEFINE_string("config", "", "file.py or file.py:variant", flag_values=parser)
    flags.DEFINE_string("workdir", "", "directory of the run", flag_values=parser)
    flags.DEFINE_string("mode", "train", ", ".join(MODES), flag_values=parser)
    flags.DEFINE_string("source", "", "file or folder to convert", flag_values=parser)
    flags.DEFINE_string("format", "", "of the exported weights", flag_values=parser)
    flags.DEFINE_string("output", "", "where to export to", flag_values=parser)
    flags.DEFINE_bool("debug", False, "show tracebacks", flag_values=parser)
    overrides = [a for a in argv[1:] if a.startswith(CONFIG_PREFIXES)]
    rest = [a for a in argv[1:] if not a.startswith(CONFIG_PREFIXES)]
    positional = _parse_flags(parser, [argv[0], *rest])
    mode = parser.mode
    errors.choose("mode", MODES, mode)
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
    if parser.config:
        config = config_lib.from_file(parser.config)
        given = dict(config_lib.leaves(config.to_dict()))
    elif mode == "convert" or (not workdir and _is_of_images(mode, overrides)):
        config, given = config_lib.base(), {}
    elif not workdir:
        raise errors.Refusal(
            "no --config and no --workdir: train with --config=configs/digits.py, or "
            "name an existing run with --workdir=runs/digits"
        )
    else:
        config, given = _config_of_run(workdir), {}
    names = _override_names(overrides)
    config = _apply(
        config, argv[0], names, overrides, where=parser.config or workdir or "--config"
    )
    config_lib.read_betas(config)
    values.check_types(config)
    values.check_values(config)
    return Command(
        mode,
        workdir,
        config,
        frozenset([*given, *names]),
        parser.source,
        parser.format,
        parser.output,
    )


def _check_own_flags(parser):
    """Refuse a flag of another mode, and a mode without its flags."""
    for name, mode in OWN_FLAGS.items():
        value = parser[name].value
        if value and parser.mode != mode:
            raise errors.Refusal(
                f"--{name}={value} belongs to --mode={mode}, not to "
                f"--mode={parser.mode}: leave it out, or give --mode={mode}"
            )
        if not value and parser.mode == mode:
            raise errors.Refusal(f"--mode={mode} needs --{name}: see --help")
    if parser.mode == "convert" and not parser.workdir:
        raise errors.Refusal(
            "--mode=convert needs --workdir, where the new run is to be: such as "
            "--workdir=runs/imported"
        )


def _config_of_run(workdir):
    from ddpm_jax.runtime import rundir

    run = rundir.RunDir.open_existing(workdir)
    return config_lib.from_dict(run.read_config()["config"], where=str(run.config))


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
        config_lib.check_name(name, where=where)
    # The last one counts; the parser would append to a tuple that is given twice.
    last = dict(zip(names, overrides, strict=True))
    parser = flags.FlagValues()
    argv = [program, *last.values()]
    config_flags.DEFINE_config_dict("config", config, flag_values=parser, sys_argv=argv)
    try:
        parser(argv)
    except flags.Error as error:
        raise errors.Refusal(_explain(error, last, config)) from error
    values.normalise_tuples(parser.config)
    _prefer_given_steps(parser.config, names)
    return parser.config


def _explain(error, overrides, config):
    """Say which field an override failed at, and what it takes."""
    leaves = dict(config_lib.leaves(config.to_dict()))
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


def console() -> None:
    """Entry point of the console script `ddpm-jax`."""
    sys.exit(main())


if __name__ == "__main__":
    console()
