"""Fields of the config that arguments give: --config.train.steps=500."""

from absl import flags
from ml_collections import config_flags

from ddpm_jax.config import reading, rules
from ddpm_jax.core import errors
from ddpm_jax.runtime.console import say

WHERE = "the command line"
PREFIXES = ("--config.", "-config.", "--noconfig.", "-noconfig.")


def is_override(argument: str) -> bool:
    """Return whether an argument gives a field of the config."""
    return argument.startswith(PREFIXES)


def names_of(overrides) -> list[str]:
    """Return the field of each --config.field=value argument."""
    return [_parts(argument)[1] for argument in overrides]


def _parts(argument):
    """Return what stands before the field's name, the name, and "=value" or ""."""
    name, equals, value = argument.partition("=")
    start = name.index(".") + 1
    return name[:start], name[start:], equals + value


def renamed(overrides) -> list[str]:
    """Return the arguments in the names of this version, saying those that are new.

    Raises:
        Refusal: a field is given under two names.
    """
    taken, present = {}, []
    for argument in overrides:
        prefix, old, value = _parts(argument)
        name = reading.RENAMED.get(old, old)
        reading.check_one_name(taken.setdefault(name, old), old, where=WHERE)
        if name != old:
            say(f"{old} is now {name}")
        text = value.removeprefix("=") or str(not prefix.lstrip("-").startswith("no"))
        for (field, was), new in reading.RENAMED_VALUES.items():
            # Typed values are texts: true stands for True.
            if field == name and str(was).lower() == text.lower():
                say(f"{name}={text} is now {name}={new}")
                prefix, value = "--config.", f"={new}"
        present.append(f"{prefix}{name}{value}")
    return present


def apply(config, program: str, overrides, *, where: str):
    """Return `config` with the --config.field=value arguments applied.

    Args:
        config: left as it is.
        program: its name, as the command line has it.
        overrides: the arguments, in present names.
        where: what a refusal calls the place of the fields.

    Raises:
        Refusal: an unknown field, or a value of another type.
    """
    names = names_of(overrides)
    for name in names:
        reading.check_name(name, where=where)
    # The last one counts; the parser would append to a tuple that is given twice.
    last = dict(zip(names, overrides, strict=True))
    texts = (*rules.NAMES, *rules.PATHS)
    as_text = {name: _taken_as_text(last, name) for name in texts}
    parser = flags.FlagValues()
    argv = [program, *last.values()]
    config_flags.DEFINE_config_dict("config", config, flag_values=parser, sys_argv=argv)
    try:
        parser(argv)
    except flags.Error as error:
        raise errors.Refusal(_explain(error, last, config)) from error
    rules.normalise_tuples(parser.config)
    for name, text in as_text.items():
        if text is not None:
            section, field = name.split(".")
            parser.config[section][field] = text
    rules.split_paths(parser.config)
    _prefer_given_steps(parser.config, names)
    return parser.config


def _taken_as_text(overrides, name):
    """Take the argument of a field out of `overrides`; return its text in a tuple.

    The flag parser reads Python: to it True, 1e3 and "cat, black" are no class names,
    and a/b is no path.
    """
    if "=" not in overrides.get(name, ""):
        return None
    text = _parts(overrides.pop(name))[2].removeprefix("=")
    return (text,) if text else ()


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

    A respacing replaces a spacing of the steps too.

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
            if section == "sampling" and "sampling.spacing" not in names:
                config.sampling.spacing = ""
