"""What edits pictures: the recipe of sampling, with another start, path and parts."""

import dataclasses
import hashlib
from collections.abc import Mapping

import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.config import modes
from ddpm_jax.sampling import recipe as recipe_lib

# Fields of config.editing that say how results are kept or refused, and not what.
CHANGE_NO_PICTURE = ("paste", "format", "fps", "min_psnr", "force")


def recipe(
    config,
    facts: DataInfo,
    edit: str,
    *,
    given: Mapping[str, str] | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    resolved: Mapping[str, object] | None = None,
    path=None,
    kept=None,
    also=(),
    **parts,
) -> recipe_lib.Recipe:
    """Return the recipe of an edit: that of config.sampling, changed.

    Args:
        config: of the run.
        facts: of its data.
        edit: name of the mode, whose record says which fields of config.editing it
            reads; they become settings, and with them part of request and tag.
        given: what the edit starts from, by name, such as a picture's file: words for
            the tag.
        arrays: what the transforms and the start use, or for what is computed what it
            is computed from, by fingerprint.
        resolved: field of config.editing → the value that was taken for it.
        path: from the start to the result; None for the solver's own.
        kept: the respaced process; None for that of config.sampling.
        also: transforms besides those of sampling.
        **parts: fields of the recipe that are not those of sampling.

    Raises:
        Refusal: parts that do not belong together, or settings that the run cannot
            meet.
    """
    completes = edit == "inpaint"
    made = build_sampling.recipe(
        config, facts, path=path, kept=kept, completes=completes
    )
    changed = dataclasses.replace(
        named(made, config, edit, given=given, arrays=arrays, resolved=resolved),
        transforms=(*made.transforms, *also),
        **parts,
    )
    changed.check()
    return changed


def named(made, config, edit: str, *, given=None, arrays=None, resolved=None):
    """Return a recipe, of any kind of run, with the settings and prints of an edit.

    Args:
        made: the recipe of sampling.
        config, edit, given, arrays, resolved: as `recipe` takes them.
    """
    usual = config_lib.base().editing
    settings = [recipe_lib.Setting("edit", edit, None)]
    settings += [recipe_lib.Setting(k, v, None) for k, v in (given or {}).items()]
    for field in modes.MODES[edit].short:
        section, _, name = field.rpartition(".")
        if section == "editing" and name not in CHANGE_NO_PICTURE:
            value = (resolved or {}).get(name, config.editing[name])
            settings.append(recipe_lib.Setting(name, value, usual[name]))
    # A solver's method and a way to edit are both called method: the edit's is said.
    rest = [s for s in made.settings if s.name not in {t.name for t in settings}]
    if any(s.name == "method" for s in settings):
        solver = next(s for s in made.settings if s.name == "method")
        rest.append(solver._replace(name="solver"))
    prints = [(name, fingerprint(array)) for name, array in (arrays or {}).items()]
    return dataclasses.replace(
        made,
        settings=(*settings, *rest),
        fingerprints=(*made.fingerprints, *prints),
    )


def fingerprint(array: np.ndarray) -> str:
    """Return what changes with the content of an array: its SHA-256."""
    array = np.ascontiguousarray(array)
    digest = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
    digest.update(array.data)
    return digest.hexdigest()


def word(name: str, array: np.ndarray) -> str:
    """Return a word for tags: the name of a file and eight digits of its content."""
    return f"{name}.{fingerprint(array)[:8]}"
