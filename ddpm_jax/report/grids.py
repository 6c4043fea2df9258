"""Grids of samples on a page: which ones, and in how many bytes."""

import dataclasses
import io
import os
import pathlib
import re
import urllib.parse

import numpy as np

from ddpm_jax.report import html
from ddpm_jax.runtime import image_grid

STEP_FILE = re.compile(r"step_(\d+)\.png")
MAX_FRAMES = 16
NEWEST_BYTES = 700_000
OLDER_BYTES = 1_100_000  # of all older frames together
TAGGED_BYTES = 500_000  # of all grids of --mode=sample together
MAX_TAGGED = 6
WHITE = 255
QUALITY = 82  # of WebP
SMALLEST_SIDE = 8


@dataclasses.dataclass(frozen=True)
class Encoded:
    """One picture as it goes into the page: bytes, mime, and its size in pixels."""

    data: bytes
    mime: str
    width: int
    height: int

    def element(self, alt: str) -> html.Html:
        """Return the image."""
        return html.picture(
            self.data, self.mime, alt=alt, width=self.width, height=self.height
        )


def training_frames(run_dir) -> list[tuple[int, pathlib.Path]]:
    """Return (step, file) of the grids made while training, oldest first."""
    found = [
        (int(match[1]), path)
        for path in run_dir.samples.glob("step_*.png")
        if (match := STEP_FILE.fullmatch(path.name))
    ]
    return sorted(found)


def evenly(items: list, count: int) -> list:
    """Return the first, the last and evenly spaced ones between: `count` at most."""
    if len(items) <= count:
        return items
    return [items[round(i * (len(items) - 1) / (count - 1))] for i in range(count)]


def film(run_dir) -> html.Html:
    """Return the grids over time: the newest in full, older ones as thumbnails.

    The script of the page makes a slider of them; without it the older ones open below.
    """
    every = training_frames(run_dir)
    if not every:
        return html.Html("")
    *older, newest = evenly(every, MAX_FRAMES)
    share = OLDER_BYTES // max(len(older), 1)
    first = _frame(run_dir, *newest, NEWEST_BYTES)
    rest = [_frame(run_dir, *item, share) for item in reversed(older)]
    left_out = len(every) - len(older) - 1
    said = f"{left_out} more grids lie in samples/." if left_out else None
    return html.tag(
        "div",
        html.tag("ol", first, class_="frames"),
        rest
        and html.details(
            f"{len(rest)} older grids", html.tag("ol", rest, class_="frames")
        ),
        said and html.note(said),
        data_film=True,
    )


def tagged(run_dir) -> html.Html:
    """Return the grids of --mode=sample, newest first, each under its folder's name."""
    found = sorted(
        run_dir.samples.glob("*/grid.png"), key=os.path.getmtime, reverse=True
    )
    shown = found[:MAX_TAGGED]
    figures = []
    for path in shown:
        image, name = opened(path), path.parent.name
        if image is None:
            figures.append(_unreadable(run_dir, path))
            continue
        encoded = encode(image, path, TAGGED_BYTES // len(shown))
        archive = path.with_name("samples.npz")
        links = [_link(run_dir, path, "original"), " · ", _link(run_dir, archive)]
        figures.append(
            html.figure(
                encoded.element(f"Samples {name}"),
                name,
                below=links if archive.exists() else links[:1],
            )
        )
    more = len(found) - len(shown)
    return html.join(
        [
            html.figures(figures),
            html.note(f"{more} more folders in samples/.") if more else None,
        ]
    )


def _frame(run_dir, step, path, limit):
    image = opened(path)
    halves = [] if image is None else split(image)
    names = ("raw weights", "EMA weights") if len(halves) == 2 else ("samples",)
    figures = [] if halves else [_unreadable(run_dir, path)]
    for name, half in zip(names, halves, strict=False):
        source = path if len(halves) == 1 else None
        encoded = encode(half, source, limit // len(halves))
        alt = f"Samples at step {step:,}, {name}"
        figures.append(html.figure(encoded.element(alt), name))
    shown = html.tag("b", f"Step {html.short(step)}")
    return html.tag(
        "li",
        html.tag("p", shown, " · ", _link(run_dir, path, "original")),
        html.tag("div", figures, class_="pair"),
        class_="frame",
        data_step=step,
    )


def _link(run_dir, path, text=None):
    relative = path.relative_to(run_dir.path).as_posix()
    return html.tag("a", text or path.name, href=urllib.parse.quote(relative))


def inline(images: np.ndarray, *, columns: int, alt: str, limit: int) -> html.Html:
    """Return images as a grid that lies inside the page.

    Args:
        images: uint8 [n, H, W, C].
        columns: images in a row.
        alt: what they show, in words.
        limit: bytes.
    """
    from PIL import Image

    grid = image_grid.grid(images, columns=columns)
    image = Image.fromarray(grid[..., 0] if grid.shape[-1] == 1 else grid)
    return encode(image, None, limit).element(alt)


# ---- pictures ------------------------------------------------------------------------


def opened(path):
    """Return the image in a file, or None where it holds none."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return None
    return image


def _unreadable(run_dir, path):
    relative = path.relative_to(run_dir.path).as_posix()
    return html.note(f"{relative} is no picture that can be read.")


def split(image) -> list:
    """Return the raw and the EMA half of a grid made while training.

    They are told by the white gap in its middle; a grid without one is returned whole.
    """
    width = (image.width - image_grid.PAIR_GAP) // 2
    if width < 1 or 2 * width + image_grid.PAIR_GAP != image.width:
        return [image]
    gap = image.crop((width, 0, width + image_grid.PAIR_GAP, image.height))
    if np.asarray(gap).min() < WHITE:
        return [image]
    return [
        image.crop((0, 0, width, image.height)),
        image.crop((width + image_grid.PAIR_GAP, 0, image.width, image.height)),
    ]


def encode(image, path, limit: int) -> Encoded:
    """Return a picture in at most `limit` bytes.

    As it is in the file, or lossless, where that fits; else as WebP, halved until it
    fits. It keeps the size at which it is shown.

    Args:
        image: a Pillow image.
        path: the PNG file that holds just this picture, or None.
        limit: bytes.
    """
    width, height = image.size
    if path and path.stat().st_size <= limit:
        return Encoded(path.read_bytes(), "image/png", width, height)
    if not path and width * height <= 4 * limit:  # else not worth trying
        data = _save(image, "PNG")
        if len(data) <= limit:
            return Encoded(data, "image/png", width, height)
    data = None
    while data is None or (len(data) > limit and min(image.size) > SMALLEST_SIDE):
        # Even noise takes no more than half a byte a pixel at this quality.
        if data is not None or image.width * image.height > 4 * limit:
            image = image.reduce(2)
        data = _save(image, "WebP", quality=QUALITY, method=1)
    return Encoded(data, "image/webp", width, height)


def _save(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()
