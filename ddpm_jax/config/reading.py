"""From files, stored values and dotted names to a config, and what differs."""

import contextlib
import difflib
import functools
import importlib.util
import inspect
import pathlib
import sys
from typing import Any

import numpy as np
from ml_collections import config_dict

from ddpm_jax import config as config_lib
from ddpm_jax.config import examples, paths
from ddpm_jax.core import errors
from ddpm_jax.runtime import home
from ddpm_jax.runtime.console import say

# What fields and values were called in earlier versions: what a run stored then, or a
# file or a command line says still, means the same now.
RENAMED: dict[str, str] = {}  # old dotted path → present one
RENAMED_VALUES: dict[tuple[str, Any], Any] = {  # (present path, old value) → present
    ("model.remat", False): "none",
    ("model.remat", True): "blocks",
    ("model.initialisation", "ho"): "ddpm",
}


def from_file(spec: str) -> config_dict.ConfigDict:
    """Return the config of "file.py", "file.py:variant", "name" or "name:variant".

    The file is Python of the user's own, or a packaged one by its name: its
    `get_config()`, or `get_config(variant)`, is called. It can import its neighbours.

    Raises:
        Refusal: no such file, an error in it, or fields outside the schema.
    """
    name, _, variant = spec.partition(":")
    path = examples.file_of(name)
    if not path.is_file():
        raise _no_file(path, variant)
    module_spec = importlib.util.spec_from_file_location("ddpm_jax_config", path)
    if module_spec is None:
        raise errors.Refusal(
            f"config file {name!r} is not Python: its name ends in .py"
        )
    module = importlib.util.module_from_spec(module_spec)
    try:
        with _importable(path.parent):
            module_spec.loader.exec_module(module)
        _check_variant(module.get_config, name, variant)
        config = module.get_config(variant) if variant else module.get_config()
        values = config.to_dict()
    except errors.Refusal:
        raise
    except Exception as error:  # whatever the user's own code raises
        raise errors.Refusal(
            f"config file {name!r} gives no config ({type(error).__name__}: {error}): "
            "its get_config() must return ddpm_jax.config.base() with changes; --debug "
            "shows where it fails"
        ) from error
    say_renamed(leaves(values))
    return from_dict(values, where=name)


def _no_file(path, variant):
    """Return the refusal of a path that is no file, with what is there instead."""
    if path.is_dir():
        there = _python_files(path)
        hint = f"choose one of {there}" if there else "give the path of a .py file"
        return errors.Refusal(f"config {str(path)!r} is a folder: {hint}")
    named = path.with_name(path.name.removesuffix(".py") + ".py")
    close = difflib.get_close_matches(named.stem, examples.names(), n=1, cutoff=0.75)
    for meant in (named, examples.FOLDER / named, *close):
        if meant in close or meant.is_file():
            spec = f"{meant}:{variant}" if variant else meant
            return errors.Refusal(
                f"config file {str(path)!r} does not exist: did you mean {spec}?"
            )
    there = _python_files(path.parent)
    hint = f"; there are {there}" if there else f": train {examples.how_to_train()}"
    return errors.Refusal(f"config file {str(path)!r} does not exist{hint}")


def _python_files(folder):
    return ", ".join(sorted(str(file) for file in folder.glob("*.py")))


def _check_variant(get_config, name, variant):
    if variant and not inspect.signature(get_config).parameters:
        raise errors.Refusal(
            f"config file {name!r} takes no variant, and {variant!r} was given: say "
            f"{name} alone"
        )


@contextlib.contextmanager
def _importable(folder: pathlib.Path):
    """Let a file import its neighbours; another folder's of these names come anew."""
    folder, before = folder.absolute(), set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        # Of what was loaded, packages that merely lie below the folder stay.
        new = set(sys.modules) - before
        own = {name for name in new if "." not in name and _lies_in(folder, name)}
        for name in new:
            if name.partition(".")[0] in own:
                del sys.modules[name]


def _lies_in(folder, name):
    file = getattr(sys.modules[name], "__file__", None) or ""
    return pathlib.Path(file) in (folder / f"{name}.py", folder / name / "__init__.py")


def from_dict(values: dict[str, Any], *, where: str) -> config_dict.ConfigDict:
    """Return the schema filled with nested `values`; lists become tuples again.

    Raises:
        Refusal: a field that the schema does not have or of another type.
    """
    return from_leaves(leaves(values), where=where)


def from_leaves(pairs, *, where: str) -> config_dict.ConfigDict:
    """Return the schema filled with (dotted path, value) pairs, as `from_dict` does."""
    config = config_lib.base()
    for path, value in _present(pairs, where).items():
        check_name(path, where=where)
        _set(config, path, value)
    return config


def _present(pairs, where):
    """Return {path: value} in the names of this version.

    Raises:
        Refusal: a field is given under two names.
    """
    given = {p: tuple(v) if isinstance(v, list) else v for p, v in pairs}
    usual = dict(leaves(config_lib.base().to_dict()))
    # Files start from `base()`: a present name at its default was not given.
    taken = {
        path: path
        for path, value in given.items()
        if path not in RENAMED and (path not in usual or value != usual[path])
    }
    present = {path: v for path, v in given.items() if path not in RENAMED}
    for old in [path for path in given if path in RENAMED]:
        new = RENAMED[old]
        check_one_name(taken.setdefault(new, old), old, where=where)
        present[new] = given[old]
    return {path: present_value(path, value) for path, value in present.items()}


def check_one_name(one: str, other: str, *, where: str) -> None:
    """Refuse two names of one field, an old one among them, beside each other."""
    if one == other:
        return
    new = RENAMED.get(one, one)
    raise errors.Refusal(
        f"{one} and {other} in {where} are one field, now called {new}: give {new} "
        "alone"
    )


def present_value(path: str, value):
    """Return the present name of a value of the field `path`."""
    for (field, old), new in RENAMED_VALUES.items():
        # True == 1 for Python, and is another value here.
        if field == path and type(old) is type(value) and old == value:
            return new
    return value


def say_renamed(pairs) -> None:
    """Say in a line each which of (path, value) have other names now."""
    for path, value in pairs:
        new_path = RENAMED.get(path, path)
        new_value = present_value(new_path, value)
        if new_path != path:
            say(f"{path} is now {new_path}")
        if new_value is not value:
            say(f"{new_path}={value} is now {new_path}={new_value}")


def check_name(path: str, *, where: str) -> None:
    """Refuse a dotted field name that the schema does not have; suggest one."""
    known = fields()
    if path in known:
        return
    last = path.rpartition(".")[2]
    same_name = [name for name in known if name.rpartition(".")[2] == last]
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.8) or same_name
    close = close or difflib.get_close_matches(path, known, n=1, cutoff=0.5)
    hint = (
        f": did you mean {close[0]}?" if close else "; see ddpm_jax/config/__init__.py"
    )
    raise errors.Refusal(f"unknown field {path!r} in {where}{hint}")


@functools.cache
def fields() -> tuple[str, ...]:
    """Return the dotted names of the schema, which is long to build for each field."""
    return tuple(path for path, _ in leaves(config_lib.base().to_dict()))


def leaves(values, prefix=""):
    """Yield (dotted path, value) of a nested dictionary."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _set(config, path, value):
    *parents, name = path.split(".")
    for parent in parents:
        config = config[parent]
    if isinstance(config.get(name), float) and type(value) is int:
        value = float(value)
    try:
        config[name] = value
    except TypeError as error:
        raise errors.Refusal(f"{path} = {value!r}: {error}") from error


def read_betas(config: config_dict.ConfigDict) -> None:
    """Put the numbers of diffusion.betas_path into diffusion.betas, in place.

    A run then carries them itself, whatever becomes of the file.

    Raises:
        Refusal: both fields are given, or the file is not one of numbers.
    """
    diffusion = config.diffusion
    if not diffusion.betas_path:
        return
    if diffusion.betas:
        raise errors.Refusal(
            "diffusion.betas and diffusion.betas_path are both given: keep one"
        )
    try:
        betas = np.load(home.expanded(diffusion.betas_path), allow_pickle=False)
        betas = betas.astype(np.float64)
    except (OSError, ValueError) as error:
        raise errors.Refusal(
            f"diffusion.betas_path={diffusion.betas_path!r} cannot be read as a .npy "
            f"file of numbers: {error}"
        ) from error
    diffusion.betas = tuple(float(beta) for beta in betas.reshape(-1))
    diffusion.betas_path = ""


# ---- comparing -----------------------------------------------------------------------


def differences(saved, given, *, but=config_lib.MUTABLE) -> list[tuple[str, Any, Any]]:
    """Return (field, saved value, given value) of every difference outside `but`."""
    given_values = dict(leaves(given.to_dict()))
    return [
        (path, value, given_values[path])
        for path, value in leaves(saved.to_dict())
        if given_values[path] != value
        and paths.meaning(path, given_values[path]) != paths.meaning(path, value)
        and not _matches(path, but)
    ]


def _matches(path, rules):
    return any(
        path == rule or (rule.endswith(".*") and path.startswith(rule[:-1]))
        for rule in rules
    )


def check_same_run(saved, given, *, workdir, also=()) -> None:
    """Refuse to use a run with a config that would change what its weights mean.

    Args:
        also: rules like those of `config.MUTABLE`, of what may change besides.

    Raises:
        Refusal: names the fields with both values.
    """
    changed = differences(saved, given, but=(*config_lib.MUTABLE, *also))
    if not changed:
        return
    listed = "; ".join(
        f"{path} is {old!r} there and {new!r} here" for path, old, new in changed
    )
    raise errors.Refusal(
        f"{workdir} holds another run: {listed}; give the same values, choose another "
        f"--workdir, or start a new run from its weights with "
        f"--config.train.init_from={workdir}"
    )
