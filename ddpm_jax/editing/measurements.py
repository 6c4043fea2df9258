"""Measurements that pictures are restored from: read, made, and checked.

y = A x + σ_y n in the values of the networks, −1 … 1. It is given, or made of a picture
that is taken for the truth.
"""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.core import errors, keys
from ddpm_jax.data import inputs
from ddpm_jax.diffusion import operators as linear
from ddpm_jax.editing import edit, likeliest, operators, own_operators, plans
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.console import say

CONSISTENT = 0.01  # of the largest value: what may be left of an exact measurement, …
STEP = 2 / 255  # … or a step of 8 bits, where it is of our own values
OWN = "own"  # word of a measurement by a user's functions
EXACT = ".npy"  # files of measurements as they are, in the values of the networks


class Measurement(NamedTuple):
    """What was measured, of n pictures.

    Attributes:
        names: of each, for what is said of it.
        word: of all, for the tag.
        values: y, float32 [n, ...].
        operator: of `diffusion.operators`; its holes are those of the n pictures.
        truth: as samples are stored, [n, H, W, C]; None where it is not known.
    """

    names: tuple[str, ...]
    word: str
    values: np.ndarray
    operator: object
    truth: np.ndarray | None = None

    @property
    def count(self) -> int:
        """The number of measurements."""
        return len(self.values)

    @property
    def stored(self) -> None:
        """No pictures are given, see `plans.Given`."""
        return None

    @property
    def holes(self) -> None:
        """No holes of pictures either."""
        return None

    def again(self, images: np.ndarray) -> np.ndarray:
        """Return A x of results [n·draws, H, W, C], those of one measurement in a row.

        Args:
            images: float32, −1 … 1.
        """
        turn = np.arange(len(images)) // (len(images) // self.count)
        return np.asarray(self.operator.of(turn).forward(images))


def from_files(config, saved, image: Sequence[str], mask: Sequence[str]) -> Measurement:
    """Return the measurements in files, or those of the pictures in files.

    Args:
        config: of the run; editing.operator says what was measured.
        saved: what its config.json says.
        image: pictures, or .npy files of measurements.
        mask: of the operator "mask": one for all or one for each, white where nothing
            is known.

    Raises:
        Refusal: files, masks or settings that do not fit.
    """
    check_settings(config, saved.facts)
    if mask and config.editing.operator.partition(":")[0] != "mask":
        raise errors.Refusal(
            f"--mask={mask[0]} with the operator {config.editing.operator!r}: it "
            "belongs to --operator=mask"
        )
    if config.editing.degrade:
        pictures = edit.read_pictures(image, config, saved)
        holes = _holes(mask, pictures, config)
        found = of_truth(config, saved.facts, plans.of_pictures(image, pictures), holes)
        say(f"measured by {config.editing.operator}: {shape_text(found)}")
    else:
        found = _read(config, saved, image, mask)
    for name, values in zip(found.names, found.values, strict=True):
        content = build_editing.fingerprint(values)
        distributed.check_alike({name: content}, "give every host the same files")
    return checked(found, config, saved.facts)


def of_truth(
    config, facts, given: plans.Given, holes: np.ndarray | None = None
) -> Measurement:
    """Return the measurements of pictures that are taken for the truth.

    Args:
        config: of the run; editing.operator says how they are measured.
        facts: of its data.
        given: the pictures.
        holes: bool [n, H, W] of the operator "mask", True where nothing is known.
    """
    operator = _named(config, facts, given.count, holes)
    values = measured(config, operator, given.values)
    return Measurement(given.names, given.word, values, operator, given.stored)


def from_arrays(config, facts, values, operator) -> Measurement:
    """Return measurements that are given in memory.

    Args:
        config: of the run.
        facts: of its data.
        values: y, floats [n, ...] or [...] of one.
        operator: a name of `operators.OPERATORS` with its value; a linear function of
            JAX arrays [B, H, W, C]; two, of which the second is its adjoint; or a value
            of `diffusion.operators`.

    Raises:
        Refusal: measurements that do not fit, or an operator that is not linear.
    """
    config.editing.operator = operator if isinstance(operator, str) else ""
    check_settings(config, facts)
    shape = facts.shape
    values = plans.array_of("measurements", values)
    if values.dtype.kind != "f":
        raise errors.Refusal(
            f"measurements of type {values.dtype}: give floats on the scale of the "
            "networks' images, where black is −1 and white 1"
        )
    if isinstance(operator, str):
        own = operators.of_name(operator, operators.Measured(shape))
    else:
        own = own_operators.of_functions(operator, shape)
    wanted = measured_shape(own, shape)
    values = values[None] if values.shape in ((), wanted) else values
    names = tuple(f"measurement {number}" for number in range(len(values)))
    if isinstance(operator, str):
        holes = None
        if values.shape[1:] == wanted:
            holes = _unmeasured(operator, names, values)
        own = _named(config, facts, len(values), holes)
    elif isinstance(own, linear.Mask):
        own_operators.check_count(own.hole, len(values))
    word = "python" if isinstance(operator, str) else OWN
    return checked(Measurement(names, word, values, own), config, facts)


def check_settings(config, facts) -> None:
    """Refuse settings that no measurement permits."""
    if likeliest.is_asked(config, facts):
        raise errors.Refusal(
            f"sampling.labels={likeliest.LIKELIEST} with a measurement: the likeliest "
            "class is that of a whole picture; name the class"
        )
    edit.check_used(config, {"keep_size": (False, "a mode that edits whole pictures")})
    if config.editing.operator == "denoise" and not config.editing.noise:
        raise errors.Refusal(
            "operator denoise with editing.noise=0: nothing is to be restored; give "
            "the deviation of the noise, --noise=0.1, where white − black is 2"
        )


def measured_shape(operator, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of what an operator measures of one image."""
    one = jax.ShapeDtypeStruct((1, *shape), np.float32)
    first = np.zeros(1, np.int32)
    return jax.eval_shape(lambda x: operator.of(first).forward(x), one).shape[1:]


def measured(config, operator, images: np.ndarray) -> np.ndarray:
    """Return A x + σ_y n of images, float32 [n, ...]; n is drawn from seed and number.

    Args:
        config: of the run.
        operator: A.
        images: float32 [n, H, W, C].
    """
    exact = np.asarray(operator.of(np.arange(len(images))).forward(images))
    noise = np.stack(
        [
            operators.stream(
                config.sampling.seed, "restore/noise", number
            ).standard_normal(exact.shape[1:], np.float32)
            for number in range(len(exact))
        ]
    )
    whole = exact + np.float32(config.editing.noise) * noise
    return without_holes(operator, whole)


def checked(found: Measurement, config, facts) -> Measurement:
    """Return measurements that a run of these facts can restore, 0 in their holes.

    Raises:
        Refusal: another shape, values that are not finite, or exact measurements that
            no image has.
    """
    wanted = measured_shape(found.operator, facts.shape)
    name = config.editing.operator or "the operator"
    shape = found.values.shape
    if shape[1:] != wanted or not shape[0]:
        raise errors.Refusal(
            f"measurements of shape {list(shape)}: {name} makes {list(wanted)} of one "
            f"image of this run, {list(facts.shape)}; give [n, "
            f"{', '.join(map(str, wanted))}]"
        )
    values = without_holes(found.operator, found.values.astype(np.float32))
    found = found._replace(values=values)
    for which, one in zip(found.names, values, strict=True):
        bad = np.count_nonzero(~np.isfinite(one))
        if bad:
            raise errors.Refusal(
                f"{which}: {bad} of {one.size} values are NaN or infinite: take them "
                "out, or say with --operator=mask where nothing was measured"
            )
    if found.truth is None and not config.editing.noise:
        _check_consistent(found, name)
    return found


def fingerprinted(found: Measurement, shape) -> np.ndarray:
    """Return what changes with the operator: its numbers, or how it answers."""
    leaves = [
        np.asarray(v, np.float32).ravel() for v in jax.tree.leaves(found.operator)
    ]
    if leaves:
        return np.concatenate(leaves)
    asked = keys.normal(keys.key_for(0, "restore/fingerprint"), (1, *shape))
    return np.asarray(found.operator.forward(asked))


def shape_text(found: Measurement) -> str:
    """Return the shape of a measurement, such as "4x4x1"."""
    return "x".join(map(str, found.values.shape[1:]))


def _check_consistent(found, name):
    """Refuse exact measurements that no image has, but for their rounding."""
    operator = found.operator.of(np.arange(found.count))
    left = linear.inconsistency(operator, found.values)
    rounding = 0.0 if found.word == OWN else STEP
    for which, one, rest in zip(found.names, found.values, left, strict=True):
        if not rest <= max(CONSISTENT * np.abs(one).max(), rounding):
            raise errors.Refusal(
                f"{which} with editing.noise=0: {name} makes it of no image, and the "
                f"nearest one leaves {rest:.2g} of it; say how much noise there is, "
                "--noise=0.05, where white − black is 2"
            )


def without_holes(operator, values):
    """Return measurements with 0 where nothing was measured, whatever stood there."""
    if not isinstance(operator, linear.Mask):
        return values
    return np.asarray(operator.of(np.arange(len(values))).forward(values))


def with_nan(operator, values):
    """Return measurements with NaN where nothing was measured, as they are kept."""
    if not isinstance(operator, linear.Mask):
        return values
    hole = operator.of(np.arange(len(values))).hole
    return np.where(hole, np.float32(np.nan), values)


def _unmeasured(name, which, values) -> np.ndarray | None:
    """Return where measurements of "missing" are NaN, bool [n, H, W]; else None.

    Raises:
        Refusal: a measurement without NaN, in which nothing says what is missing.
    """
    if name.partition(":")[0] != "missing":
        return None
    holes = np.stack([np.isnan(one).all(axis=-1) for one in values])
    for one, hole in zip(which, holes, strict=True):
        if not hole.any():
            raise errors.Refusal(
                f"{one} with the operator {name}: no value is NaN, so that nothing "
                "says which pixels are missing; give measured.npy of that edit, or "
                "the mask: --operator=mask --mask=RUN/edits/<tag>/missing/0000.png"
            )
    return holes


def _named(config, facts, count, holes):
    asked = operators.Measured(facts.shape, count, config.sampling.seed, holes)
    return operators.of_name(config.editing.operator, asked)


# ---- files ---------------------------------------------------------------------------


def _read(config, saved, image, mask) -> Measurement:
    """Return the measurements in files, and say what they are."""
    facts, name = saved.facts, config.editing.operator
    wanted = facts.shape
    if name != "mask":
        wanted = measured_shape(_named(config, facts, 1, None), facts.shape)
    found = []
    for path in image:
        read = _exact if path.endswith(EXACT) else _picture
        found += read(path, wanted, facts, name)
    values = np.stack([picture.values for picture in found])
    names = tuple(pathlib.Path(picture.name).name for picture in found)
    holes = _holes(mask, found, config)
    holes = _unmeasured(name, names, values) if holes is None else holes
    operator = _named(config, facts, len(found), holes)
    given = Measurement(names, edit.name_of(image, found), values, operator)
    say(f"{len(found)} measurements by {name}: {shape_text(given)}")
    return given


def _exact(path, wanted, facts, name) -> list[inputs.Picture]:
    """Return the measurements in a .npy file, one or several."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise errors.Refusal(
            f"{path} is no .npy file of numbers, or is not there: save a measurement "
            "with numpy.save"
        ) from error
    several = values[None] if values.shape == wanted else values
    if several.shape[1:] != wanted or values.dtype.kind != "f":
        raise errors.Refusal(
            f"{path} holds {values.dtype} {list(values.shape)}: {name} makes floats "
            f"{list(wanted)} of an image {list(facts.shape)} of this run, −1 black and "
            "1 white"
        )
    names = [path]
    if len(several) > 1:
        names = [f"{path}[{number}]" for number in range(len(several))]
    return [
        inputs.Picture(one, values, None, values, ())
        for one, values in zip(names, several.astype(np.float32), strict=True)
    ]


def _picture(path, wanted, facts, name) -> list[inputs.Picture]:
    """Return the picture in a file, which is measured as it is."""
    picture = inputs.read_picture(
        path, shape=tuple(wanted), levels=facts.levels, keep_size=1
    )
    for line in picture.remarks:
        say(line)
    size, own = picture.fitted.shape[:2], f"{facts.shape[0]}x{facts.shape[1]}"
    if size != tuple(wanted[:2]):
        raise errors.Refusal(
            f"{path} is {size[0]}x{size[1]}, and {name} makes {wanted[0]}x{wanted[1]} "
            f"of an image of this run, {own}: give a measurement of that size, or "
            "--degrade to have this picture measured"
        )
    return [picture]


def _holes(mask, pictures, config) -> np.ndarray | None:
    """Return where nothing is known of each picture; None for other operators."""
    if config.editing.operator != "mask":
        return None
    if len(mask) > 1 and len(mask) != len(pictures):
        raise errors.Refusal(
            f"{len(mask)} masks for {len(pictures)} pictures: give one for all, or one "
            "for each"
        )
    masks = list(mask) if len(mask) > 1 else [*mask, ""][:1] * len(pictures)
    holes = []
    for picture, path in zip(pictures, masks, strict=True):
        hole = inputs.read_hole(picture, mask=path)
        for line in hole.remarks:
            say(line)
        holes.append(hole.fitted)
    return np.stack(holes)
