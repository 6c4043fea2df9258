"""What the page shows: pictures inside the page itself, words, how far a job is.

Pictures are part of the page, as data of their links: nothing is written for them, and
the browser asks nobody for them.
"""

import base64
import html
import io
import logging
import re
from collections.abc import Sequence

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.demo.player import Progress
from ddpm_jax.runtime import image_grid
from ddpm_jax.training import progress as progress_lib

LEAST_SIDE = 128  # pixels of the screen that an image has
MOST_SIDE = 384
SUBSCRIPT = re.compile(r"\b(x\u0302?)_([0t])")  # of x_t and x̂_0


def png(image: np.ndarray) -> bytes:
    """Return a stored image, [H, W, C] or [H, W], as the PNG that a screen shows."""
    from PIL import Image

    shown = images_lib.shown(np.asarray(image))
    if shown.ndim == 3:
        shown = image_grid.shown_channels(shown)
        shown = shown[..., 0] if shown.shape[-1] == 1 else shown
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(shown)).save(buffer, "PNG")
    return buffer.getvalue()


def link(data: bytes, kind: str = "image/png") -> str:
    """Return data as an address that holds it."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def picture(
    data: bytes, alt: str, name: str, size: tuple[int, int], least: int = LEAST_SIDE
) -> str:
    """Return an image that saves itself when it is clicked.

    Args:
        data: a PNG or GIF.
        alt: what it shows, in words.
        name: of the file that is saved.
        size: (height, width) in pixels.
        least: pixels of the screen that the shorter side has.
    """
    is_film = name.endswith(".gif")  # which has its size, and words in it
    kind = "image/gif" if is_film else "image/png"
    factor = max(1, -(-least // max(1, min(size))))
    width = min(MOST_SIDE, size[1] * factor) if min(size) < MOST_SIDE else MOST_SIDE
    width, looks = (size[1], " dj-film") if is_film else (width, "")
    source, alt, name = link(data, kind), html.escape(alt), html.escape(name)
    return (
        f'<a class="dj-picture{looks}" download="{name}" href="{source}" '
        f'title="save as {name}"><img alt="{alt}" src="{source}" width="{width}"></a>'
    )


def pictures(
    images: np.ndarray,
    names: Sequence[str],
    file: str = "image",
    least: int = LEAST_SIDE,
) -> str:
    """Return stored images [n, H, W, C] side by side, each with its words.

    Args:
        images: as samples are stored.
        names: the words.
        file: first part of the names of files to save.
        least: pixels of the screen that the shorter side of an image has.
    """
    if not images_lib.is_image(images.shape[1:]):
        return numbers(images, file)
    parts = []
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        saved = f"{file}_{number:04d}.png"
        shown = picture(png(image), name or file, saved, image.shape[:2], least)
        words = SUBSCRIPT.sub(r"\1<sub>\2</sub>", html.escape(name))
        caption = f"<figcaption>{words}</figcaption>"
        parts.append(f"<figure>{shown}{caption}</figure>")
    return f'<div class="dj-pictures">{"".join(parts)}</div>'


SHOW_ONE = (
    "this.parentElement.querySelectorAll('[data-frame]').forEach("
    "(one, i) => one.hidden = i != this.value)"
)


def way(images: np.ndarray, whole: int) -> str:
    """Return images [n, H, W, C] on a way: one at a time by a slider, and all.

    Args:
        images: as samples are stored, from the first one on.
        whole: how many the way has.
    """
    names = [f"λ = {number / (whole - 1):.2f}" for number in range(len(images))]
    parts = []
    for number, (image, name) in enumerate(zip(images, names, strict=True)):
        file = f"way_{number:04d}.png"
        one = picture(png(image), f"on the way, {name}", file, image.shape[:2], 256)
        hidden = " hidden" if number else ""
        parts.append(f"<div data-frame{hidden}>{one}<div>{name}</div></div>")
    slider = (
        f'<input type="range" aria-label="λ, from the first to the second" min="0" '
        f'max="{len(images) - 1}" value="0" oninput="{SHOW_ONE}">'
    )
    return f'<div class="dj-way">{slider}{"".join(parts)}</div>' + pictures(
        images, names, "way", 72
    )


def numbers(values: np.ndarray, file: str) -> str:
    """Return examples that are no images: a file to save, and the first of them."""
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    address = link(buffer.getvalue(), "application/octet-stream")
    lines = [np.array2string(v.reshape(-1)[:8], precision=3) for v in values[:16]]
    shown = html.escape("\n".join(lines))
    size = "x".join(map(str, values.shape))
    return (
        f"<p>Examples of this run are no images. "
        f'<a download="{file}.npy" href="{address}">Save the {size} numbers</a></p>'
        f"<pre>{shown}</pre>"
    )


def status(now: Progress | None) -> str:
    """Return how far a job is, None before its first step."""
    if now is None:
        return note(
            "Waiting: other requests come first, or a program is compiled, once …"
        )
    if now.is_finished:
        return note("Done.")
    left, seen = "the time is not known yet", "below is the estimate of the image"
    if now.seconds_left is not None:
        left = f"about {progress_lib.duration(now.seconds_left)} left"
    if now.images is None:
        seen = "first the pictures are encoded"
    return (
        f'<div class="dj-status" role="status"><progress max="{now.whole}" '
        f'value="{now.done}" aria-label="evaluations"></progress> '
        f"{now.done} of {now.whole} evaluations, {left}; {seen}</div>"
    )


def note(text: str) -> str:
    """Return a sentence."""
    return f'<p class="dj-status" role="status">{html.escape(text)}</p>'


def _error(text):
    return f'<p class="dj-error" role="alert">{html.escape(text)}</p>'


def failed(error: Exception) -> str:
    """Return what went wrong as a sentence: a refusal says it, the rest is logged."""
    if isinstance(error, errors.Refusal):
        return _error(str(error))
    logging.getLogger(__name__).error("the page failed", exc_info=error)
    return _error(
        "That failed, and it is an error of the program: the terminal that serves this "
        "page shows where; reload the page, or change the settings"
    )
