"""Pictures that are given to the page: read, fitted to the run, and forgotten."""

import base64
import binascii
import contextlib
import io
import os
import pathlib
import time
from typing import NamedTuple

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.data import inputs, pictures
from ddpm_jax.demo import view
from ddpm_jax.editing import plans

MOST_PIXELS = 16_000_000  # of a picture that is sent, and of it scaled for the run
MOST_STRETCHED = 20  # longer side by shorter side
MOST_BOX = 40  # characters
STRAY_SECONDS = 60  # after which an empty file of gradio's is nobody's any more
FOLDER = "GRADIO_TEMP_DIR"  # variable that names the folder of what is sent
MASK_ADDRESS = "data:image/png;base64,"
# That command lines name.
PICTURE_FILE, OTHER_FILE, MASK_FILE = "picture.png", "other.png", "mask.png"


class Kept(NamedTuple):
    """A picture of a window.

    Attributes:
        picture: as the run takes it.
        remarks: what was done to it, in a line each.
    """

    picture: inputs.Picture
    remarks: tuple[str, ...]

    @property
    def fitted(self) -> np.ndarray:
        """The picture as samples are stored, [H, W, C]."""
        return self.picture.fitted


def reason(player) -> str:
    """Return why a run takes no pictures from the page, "" where it does.

    What is sent must come back as a file that the command line reads to the bit.
    """
    facts = player.facts
    if not images_lib.is_image(facts.shape) or facts.levels is None:
        return f"its examples are no pictures of grey values ({facts.size})"
    channels = facts.shape[2]
    deep = images_lib.stored_type(facts.levels).itemsize > 1
    if channels not in ((1,) if deep else (1, 3)):
        return (
            f"the page takes grey pictures and RGB of 8 bits, and it makes {facts.size}"
        )
    return ""


def read(path: str, player) -> Kept:
    """Return a picture that was sent, fitted to the run; the file is deleted.

    Raises:
        Refusal: no picture, one that is too large, or one that does not fit.
    """
    if not path:
        raise errors.Refusal("no picture was sent: choose a file")
    file = pathlib.Path(path)
    check_sent(file)
    try:
        facts = player.facts
        _check_size(file, facts.shape)
        picture = inputs.read_picture(
            file, shape=facts.shape, levels=facts.levels, crop=player.config.data.crop
        )
    except errors.Refusal as refusal:
        # Where it lies on this machine is nobody's business.
        message = str(refusal).replace(str(file), file.name)
        raise errors.Refusal(message) from refusal
    except FileNotFoundError as error:
        # The same picture from two windows is one file.
        raise _gone(file) from error
    finally:
        _forget(file)
    remarks = tuple(line.replace(str(file), file.name) for line in picture.remarks)
    return of_array(picture.fitted, remarks)


def check_sent(path: str | os.PathLike) -> None:
    """Refuse a file that does not lie where gradio puts what is sent to it.

    Whoever asks names the file: it is read, shown and deleted.
    """
    folder = os.environ.get(FOLDER, "")
    inside = pathlib.Path(path).resolve().is_relative_to(pathlib.Path(folder).resolve())
    if not folder or not inside:
        raise errors.Refusal("that file was not sent to this page: upload it")


def _gone(file):
    return errors.Refusal(
        f"{file.name} was read and deleted meanwhile, by another window: send it again"
    )


def _forget(file: pathlib.Path) -> None:
    """Delete a file that was sent, its folder, and the empty ones that gradio leaves.

    Others may do the same at the same time; a folder with more in it stays.
    """
    file.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        file.parent.rmdir()
    for stray in pathlib.Path(os.environ[FOLDER]).glob("tmp*"):
        with contextlib.suppress(OSError):
            if time.time() - stray.stat().st_mtime < STRAY_SECONDS:
                continue
            if stray.is_dir():
                stray.rmdir()
            elif stray.stat().st_size == 0:
                stray.unlink()


def _check_size(file: pathlib.Path, shape: tuple[int, ...]) -> None:
    """Refuse more pixels than are to be decoded, by what the file says of itself.

    A narrow picture is scaled until its shorter side fills the run's images, [H, W, C]:
    it may have few pixels, and many once it is scaled.
    """
    from PIL import Image

    try:
        with Image.open(file, formats=pictures.FORMATS) as image:
            width, height = image.size
    except FileNotFoundError as error:
        raise _gone(file) from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise errors.Refusal(
            f"{file.name} is no picture that can be read, or it is damaged: send PNG, "
            "JPEG, WebP, TIFF, BMP or GIF"
        ) from error
    if width * height > MOST_PIXELS:
        raise errors.Refusal(
            f"{file.name} has {width * height / 1e6:.1f} million pixels: send at most "
            f"{MOST_PIXELS / 1e6:.0f} million"
        )
    factor = max(1, shape[0] / height, shape[1] / width)
    is_narrow = max(width, height) > MOST_STRETCHED * min(width, height)
    if is_narrow or width * height * factor**2 > MOST_PIXELS:
        raise errors.Refusal(
            f"{file.name} is {width}x{height}, too long and narrow for images of "
            f"{shape[1]}x{shape[0]}: cut it nearer to a square, at most "
            f"{MOST_STRETCHED}:1"
        )


def of_array(fitted: np.ndarray, remarks: tuple[str, ...] = ()) -> Kept:
    """Return a picture that fits already, [H, W, C] as samples are stored."""
    return Kept(inputs.Picture(PICTURE_FILE, fitted, None, fitted, ()), remarks)


def given(*kept: Kept) -> plans.Given:
    """Return pictures as edits take them, by the names that command lines have."""
    names = names_of(len(kept))
    stored = np.stack([one.fitted for one in kept])
    return plans.Given(names, pathlib.Path(names[0]).stem, stored)


def names_of(count: int) -> tuple[str, ...]:
    """Return the files of one or two pictures that command lines name."""
    return (PICTURE_FILE, OTHER_FILE)[:count]


def file_of(array: np.ndarray) -> bytes:
    """Return the PNG that the command line reads as the same array.

    Args:
        array: uint8 [H, W, 1 or 3], uint16 [H, W, 1], or bool [H, W].
    """
    from PIL import Image

    array = 255 * array.astype(np.uint8) if array.dtype == bool else array
    array = array[..., 0] if array.shape[2:] == (1,) else array
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(buffer, "PNG")
    return buffer.getvalue()


def shown(kept: Kept) -> str:
    """Return a picture that was given, as HTML."""
    size = kept.fitted.shape[:2]
    return view.picture(view.png(kept.fitted), "the picture", PICTURE_FILE, size)


def links(*kept: Kept, hole: inputs.Hole | None = None) -> str:
    """Return the files that a command line names, to be saved, as HTML."""
    files = [
        (name, one.fitted) for name, one in zip(names_of(len(kept)), kept, strict=True)
    ]
    files += [] if hole is None else [(MASK_FILE, hole.fitted)]
    found = [
        f'<a download="{name}" href="{view.link(file_of(array))}">{name}</a>'
        for name, array in files
    ]
    return f"<p>Save for the command line: {' and '.join(found)}</p>"


def hole_of(address: str, kept: Kept) -> inputs.Hole:
    """Return the pixels that were brushed.

    Args:
        address: a PNG of the picture's size as the page sends it, white where brushed.
        kept: the picture.

    Raises:
        Refusal: nothing or all is brushed, or no such PNG.
    """
    from PIL import Image

    shape = kept.fitted.shape[:2]
    most = 200 + 8 * shape[0] * shape[1]
    white = np.zeros(shape, bool)
    if address:
        try:
            if not address.startswith(MASK_ADDRESS) or len(address) > most:
                raise ValueError("another address")
            coded = address.removeprefix(MASK_ADDRESS)
            data = base64.b64decode(coded, validate=True)
            with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
                if image.size != shape[::-1]:
                    raise ValueError("another size")
                white = np.asarray(image.convert("L")) > 127
        except (ValueError, OSError, SyntaxError, binascii.Error) as error:
            raise errors.Refusal(
                "what was brushed did not arrive as a mask of the picture's size: "
                "reload the page and brush again"
            ) from error
    if white.all() or not white.any():
        which = "everything" if white.all() else "nothing"
        raise errors.Refusal(
            f"{which} is brushed: brush what is to be made anew and leave some of the "
            "picture, or give a box"
        )
    return inputs.Hole(white, white, ())


def box_of(text: str, kept: Kept) -> inputs.Hole:
    """Return the pixels of a box "x,y,width,height" of the fitted picture.

    Raises:
        Refusal: no four whole numbers, or a box that leaves the picture.
    """
    parts = [part.strip() for part in text.split(",")]
    is_short = len(text) <= MOST_BOX  # int() refuses thousands of digits
    are_whole = all(part.isascii() and part.isdecimal() for part in parts)
    if not is_short or len(parts) != 4 or not are_whole:
        raise errors.Refusal(
            f"the box is {text[:40]!r}: give four whole numbers, x,y,width,height, "
            "such as 0,4,8,4"
        )
    return inputs.read_hole(kept.picture, box=tuple(map(int, parts)))
