"""Pictures that are given to be edited, and masks: read, fitted and described.

A picture becomes what the network of a run takes, by the rule that cut its training
images. A mask says which pixels are to be made: white ones, or transparent ones.
"""

import os
import pathlib
from typing import NamedTuple

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import crops, decoding
from ddpm_jax.data import images as images_lib

HALF = 0.5  # of white: lighter is to be made


class Picture(NamedTuple):
    """A picture to be edited.

    Attributes:
        name: of the file.
        original: uint8 or uint16 [H', W', C], upright, in the channels of the run.
        opacity: float [H', W'], 0 … 1; None where the file has none.
        fitted: [H, W, C] as samples are stored, what the run takes.
        remarks: what was done to it, in a line each.
    """

    name: str
    original: np.ndarray
    opacity: np.ndarray | None
    fitted: np.ndarray
    remarks: tuple[str, ...]

    @property
    def values(self) -> np.ndarray:
        """The fitted picture as the network takes it, float32 in [-1, 1]."""
        return images_lib.from_stored(self.fitted)


class Hole(NamedTuple):
    """Which pixels are to be made.

    Attributes:
        original: bool [H', W'] of the picture as it was given.
        fitted: bool [H, W] of the picture as the run takes it.
        remarks: in a line each, first the share and the polarity.
    """

    original: np.ndarray
    fitted: np.ndarray
    remarks: tuple[str, ...]


def read_picture(
    path: str | os.PathLike,
    *,
    shape: tuple[int, int, int],
    levels: int,
    crop: str = "center",
    keep_size: int = 0,
) -> Picture:
    """Return a picture, fitted to a run.

    Args:
        path: a file of any format that `decoding` knows.
        shape: (H, W, C) of the run.
        levels: of its data; samples are stored accordingly.
        crop: data.crop of the run: "none" cuts nothing.
        keep_size: multiple that the picture's own sides must be of, to be edited at
            its own size; 0 fits it to `shape`.

    Raises:
        Refusal: no picture, several of them in one file, or one that cannot be fitted.
    """
    name, channels = os.fspath(path), shape[2]
    pixels, alpha = _decoded(name)
    lines = []
    opacity = pixels[..., -1] / np.iinfo(pixels.dtype).max if alpha else None
    if pixels.shape[2] != channels:
        if not decoding.is_convertible(pixels.shape[2], channels, alpha=alpha):
            raise errors.Refusal(
                f"{name} has {pixels.shape[2]} channels and the run takes {channels}: "
                "save it with as many"
            )
        lines.append(_conversion(name, pixels.shape[2], channels))
        pixels = decoding.convert(pixels, channels, alpha=alpha)
    stored = images_lib.stored_type(levels)
    if pixels.dtype.itemsize > stored.itemsize:
        lines.append(f"{name} has 16 bits and the run 8: rounded to 8")
    own = pixels.shape[:2]
    if keep_size:
        _check_multiple(name, own, keep_size)
        fitted = pixels
    else:
        if own != shape[:2] and crop == "none":
            raise errors.Refusal(
                f"{name} is {own[0]}x{own[1]} and the run, whose data.crop is 'none', "
                f"takes {shape[0]}x{shape[1]}: cut it to that size"
            )
        fitted = crops.center(pixels, shape[:2])
        if own != shape[:2]:
            lines.append(
                f"{name} is {own[0]}x{own[1]}: scaled and cut to {shape[0]}x{shape[1]} "
                "about its middle, as the run's training images"
            )
    return Picture(name, pixels, opacity, _as_type(fitted, stored), tuple(lines))


def read_hole(
    picture: Picture,
    *,
    mask: str = "",
    box: tuple[int, ...] = (),
    invert: bool = False,
) -> Hole:
    """Return the pixels of a picture that are to be made.

    Args:
        picture: from `read_picture`.
        mask: a file of the picture's own size or of the fitted one, white where pixels
            are to be made; "" takes the picture's transparent ones.
        box: x, y, width, height in pixels of the picture as it was given; instead of a
            mask.
        invert: whether black, or what is opaque or outside the box, is to be made.

    Raises:
        Refusal: no mask, several, one of another size, or one that leaves all or
            nothing to be made.
    """
    size, fitted_size = picture.original.shape[:2], picture.fitted.shape[:2]
    if mask and box:
        raise errors.Refusal(f"--mask={mask} and --box={_typed(box)}: keep one")
    lines, source = [], mask
    if box:
        white, source = _of_box(box, size), f"--box={_typed(box)}"
        kind = "the box"
    elif mask:
        white, between = _of_file(mask)
        kind = f"white in {pathlib.Path(mask).name}"
        if between:
            lines.append(
                f"{between} pixels of {mask} are grey: those above half are made"
            )
    elif picture.opacity is not None:
        white, source = picture.opacity < HALF, picture.name
        kind = f"transparent in {pathlib.Path(picture.name).name}"
    else:
        raise errors.Refusal(
            f"nothing says which pixels of {picture.name} are to be made: give "
            "--mask=FILE (white is made), --box=x,y,width,height, or a picture with "
            "transparent pixels"
        )
    if white.shape not in (size, fitted_size):
        either = {f"{h}x{w}" for h, w in (size, fitted_size)}
        raise errors.Refusal(
            f"{source} is {white.shape[0]}x{white.shape[1]}: a mask of {picture.name} "
            f"has its size, {' or '.join(sorted(either))}"
        )
    hole = ~white if invert else white
    if invert:
        kind = f"not {kind}" if not kind.startswith("white") else f"black{kind[5:]}"
    fitted = hole if hole.shape == fitted_size else shrunk(hole, fitted_size)
    share = fitted.mean()
    if share in (0, 1):
        which = "all" if share else "no"
        remedy = "sample without an image" if share else "give a mask with some white"
        raise errors.Refusal(
            f"{source}: {which} pixels are to be made ({kind}); {remedy}, or turn it "
            "round with --invert"
        )
    first = f"{100 * share:.3g} % of the pixels are to be made ({kind})"
    whole = hole if hole.shape == size else _enlarged(hole, size)
    return Hole(whole, fitted, (first, *lines))


def pasted(picture: Picture, hole: Hole, made: np.ndarray) -> np.ndarray:
    """Return the picture as it was given, with what was made in its hole.

    Args:
        picture: from `read_picture`.
        hole: from `read_hole`.
        made: [H, W, C] as samples are stored: the fitted picture, edited.

    Returns:
        [H', W', C], the picture's own values outside the hole. Where the fitted picture
        does not reach, the hole stays as it was.
    """
    from PIL import Image

    size = picture.original.shape[:2]
    inside = hole.original & _enlarged(np.ones(made.shape[:2], bool), size)
    whole = _as_type(picture.original, made.dtype).copy()
    scale = max(n / old for n, old in zip(made.shape, size, strict=False))
    scaled = [round(old * scale) for old in size]
    top, left = ((s - n) // 2 for s, n in zip(scaled, made.shape, strict=False))
    for channel in range(made.shape[2]):
        # Repeated beyond its edges, so that nothing dark is mixed in.
        canvas = np.pad(
            made[..., channel].astype(np.float32),
            [
                (top, scaled[0] - top - made.shape[0]),
                (left, scaled[1] - left - made.shape[1]),
            ],
            mode="edge",
        )
        large = Image.fromarray(canvas).resize(size[::-1], Image.Resampling.BICUBIC)
        values = np.clip(np.rint(np.asarray(large)), 0, np.iinfo(made.dtype).max)
        whole[inside, channel] = values.astype(made.dtype)[inside]
    return whole


def shrunk(hole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a mask at the size of a fitted picture: any hole makes a hole.

    It is cut about its middle as `crops.center` cuts the picture.

    Args:
        hole: bool [H', W'].
        size: (H, W).
    """
    height, width = hole.shape
    scale = max(size[0] / height, size[1] / width)
    scaled = round(height * scale), round(width * scale)
    rows, columns = (
        _reach(old, new, (new - wanted) // 2, wanted)
        for old, new, wanted in zip(hole.shape, scaled, size, strict=True)
    )
    # Sums over rectangles, from sums over all that is above and to the left.
    total = np.pad(hole.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    (top, bottom), (left, right) = rows, columns
    counts = (
        total[bottom][:, right]
        - total[top][:, right]
        - total[bottom][:, left]
        + total[top][:, left]
    )
    return counts > 0


def _reach(old: int, new: int, first: int, count: int):
    """Return where `count` pixels of `new` begin and end among `old` ones."""
    edges = (first + np.arange(count + 1)) * old / new
    begin = np.clip(np.floor(edges[:-1] + 1e-9).astype(int), 0, old - 1)
    end = np.clip(np.ceil(edges[1:] - 1e-9).astype(int), begin + 1, old)
    return begin, end


def _enlarged(hole, size):
    """Return a mask of a fitted picture at the size of the whole picture."""
    height, width = hole.shape
    scale = max(height / size[0], width / size[1])
    scaled = round(size[0] * scale), round(size[1] * scale)
    whole = np.zeros(size, bool)
    index = []
    for old, new, part in zip(size, scaled, hole.shape, strict=True):
        place = np.floor((np.arange(old) + 0.5) * new / old).astype(int)
        index.append(place - (new - part) // 2)
    rows, columns = index
    inside_rows = (rows >= 0) & (rows < height)
    inside_columns = (columns >= 0) & (columns < width)
    chosen = np.ix_(rows[inside_rows], columns[inside_columns])
    whole[np.ix_(inside_rows, inside_columns)] = hole[chosen]
    return whole


# ---- one file ------------------------------------------------------------------------


def _decoded(name: str) -> tuple[np.ndarray, bool]:
    """Return the pixels of a file and whether the last channel is opacity."""
    try:
        with open(name, "rb") as file:
            data = file.read()
        described = decoding.describe(data)
        return decoding.decode(data), described.alpha
    except decoding.Unreadable as error:
        raise errors.Refusal(f"{name} {error}") from error
    except IsADirectoryError as error:
        raise errors.Refusal(f"{name} is a folder: name one picture in it") from error
    except FileNotFoundError as error:
        raise errors.Refusal(f"there is no file {name}: name a picture") from error


def _of_file(mask: str) -> tuple[np.ndarray, int]:
    """Return where a mask file is lighter than half, and how many pixels are grey."""
    pixels, alpha = _decoded(mask)
    if alpha and pixels[..., -1].min() == pixels[..., -1].max():
        pixels, alpha = pixels[..., :-1], False  # opacity that says nothing
    if pixels.shape[2] not in (1, 3) and not alpha:
        raise errors.Refusal(
            f"{mask} has {pixels.shape[2]} channels: save the mask as a grey picture"
        )
    grey = decoding.convert(pixels, 1, alpha=alpha)[..., 0]
    share = grey / np.iinfo(grey.dtype).max
    return share > HALF, int(np.count_nonzero((share > 0) & (share < 1)))


def _of_box(box: tuple[int, ...], size: tuple[int, int]) -> np.ndarray:
    if len(box) != 4 or not all(isinstance(value, int) for value in box):
        raise errors.Refusal(
            f"--box={_typed(box)}: give four whole numbers, x,y,width,height"
        )
    x, y, width, height = box
    fits = x >= 0 and y >= 0 and x + width <= size[1] and y + height <= size[0]
    if width < 1 or height < 1 or not fits:
        raise errors.Refusal(
            f"--box={_typed(box)} is x,y,width,height and leaves the picture, which is "
            f"{size[1]} wide and {size[0]} high: give one inside"
        )
    white = np.zeros(size, bool)
    white[y : y + height, x : x + width] = True
    return white


def _typed(box):
    return ",".join(map(str, box))


def _check_multiple(name, size, multiple):
    if any(side % multiple for side in size):
        fits = "x".join(
            str(max(multiple, side // multiple * multiple)) for side in size
        )
        raise errors.Refusal(
            f"{name} is {size[0]}x{size[1]}: at its own size the run takes sides that "
            f"are multiples of {multiple}, such as {fits}; cut it, or leave out "
            "--keep-size"
        )


def _conversion(name, own, channels):
    kinds = {1: "grey", 2: "grey with opacity", 3: "RGB", 4: "RGB with opacity"}
    return f"{name} is {kinds[own]} and the run {kinds[channels]}: converted"


def _as_type(pixels: np.ndarray, stored: np.dtype) -> np.ndarray:
    """Return grey values of 8 or 16 bits with as many as samples have."""
    if pixels.dtype == stored:
        return pixels
    if stored == np.uint8:
        return images_lib.shown(pixels)
    return pixels.astype(np.uint16) * np.uint16(images_lib.DEEP)
