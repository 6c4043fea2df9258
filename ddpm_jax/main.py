"""The command line: flags, then one mode.

python -m ddpm_jax.main --config=configs/digits.py                      trains
python -m ddpm_jax.main --mode=sample --workdir=runs/digits             makes images
python -m ddpm_jax.main --mode=evaluate --workdir=runs/digits           scores
Any field of the config: --config.train.steps=500
"""

import pathlib
import sys

from absl import flags
from ml_collections import config_flags

from ddpm_jax import config as config_lib
from ddpm_jax import values
from ddpm_jax.core import errors


def _train(config, workdir):
    from ddpm_jax.modes import train

    train.run(config, workdir)


def _sample(config, workdir):
    from ddpm_jax.modes import sample

    sample.run(config, workdir)


def _evaluate(config, workdir):
    from ddpm_jax.modes import evaluate

    evaluate.run(config, workdir)


# Each imports its module itself: a refused command line should not wait for JAX.
MODES = {"train": _train, "sample": _sample, "evaluate": _evaluate}
CONFIG_PREFIXES = ("--config.", "-config.", "--noconfig.", "-noconfig.")


def main(argv=None) -> int:
    """Run one mode and return the exit status: 0, or 1 after an error in one sentence.

    Args:
        argv: program name and arguments; those of the process by default.
    """
    argv = list(sys.argv if argv is None else argv)
    debug = any(a.lstrip("-") in ("debug", "debug=true", "debug=1") for a in argv)
    try:
        arguments = parse(argv)
        if arguments is None:
            return 0
        name, workdir, config = arguments
        MODES[name](config, workdir)
    except errors.Refusal as refusal:
        if debug:
            raise
        print(f"error: {refusal}", file=sys.stderr, flush=True)
        return 1
    except OSError as error:
        # Disks fill up and vanish; that is no defect of ours if a file is to blame.
        if debug or error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        # Modes catch the signal themselves once there is something to save.
        print("stopped on request; there was nothing to save yet", flush=True)
    return 0


def parse(argv):
    """Return (mode, workdir, config), or None where only help was asked for.

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
    flags.DEFINE_bool("debug", False, "show tracebacks", flag_values=parser)
    overrides = [a for a in argv[1:] if a.startswith(CONFIG_PREFIXES)]
    rest = [a for a in argv[1:] if not a.startswith(CONFIG_PREFIXES)]
    _parse_flags(parser, [argv[0], *rest])
    errors.choose("mode", MODES, parser.mode)

    workdir = parser.workdir or _default_workdir(parser.config)
    if parser.config:
        config = config_lib.from_file(parser.config)
    elif not workdir:
        raise errors.Refusal(
            "no --config and no --workdir: train with --config=configs/digits.py, or "
            "name an existing run with --workdir=runs/digits"
        )
    else:
        config = _config_of_run(workdir)
    config = _apply(config, argv[0], overrides, where=parser.config or workdir)
    config_lib.read_betas(config)
    values.check_types(config)
    values.check_values(config)
    return parser.mode, workdir, config


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
    return str(pathlib.Path("runs") / (f"{stem}-{variant}" if variant else stem))


def _apply(config, program, overrides, *, where):
    """Return `config` with the --config.field=value arguments applied."""
    names = [
        argument.lstrip("-")
        .removeprefix("no")
        .partition("=")[0]
        .removeprefix("config.")
        for argument in overrides
    ]
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
    try:
        unparsed = parser(argv)
    except flags.Error as error:
        text = " ".join(str(error).split())
        raise errors.Refusal(f"{text}; --help lists the flags") from error
    if len(unparsed) > 1:
        raise errors.Refusal(
            f"unexpected argument {unparsed[1]!r}: every argument is --name=value"
        )


def console() -> None:
    """Entry point of the console script `ddpm-jax`."""
    sys.exit(main())


if __name__ == "__main__":
    console()
