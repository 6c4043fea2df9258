"""Animations as files: GIF, APNG and WebP by Pillow, MP4 by imageio-ffmpeg."""

import importlib.util
import io
import itertools
import pathlib
import tempfile
import warnings
from collections.abc import Sequence

import numpy as np

from ddpm_jax.core import errors

NAMES = {
    "gif": "animation.gif",
    "apng": "animation.png",
    "webp": "animation.webp",
    "mp4": "animation.mp4",
}
HOLD = 1.5  # seconds that the last frame of what is no loop stays
GIF_CLOCK = 100  # a GIF counts in hundredths of a second …
GIF_FASTEST = 50  # … and viewers slow down what has less than two for a frame
FASTEST = 240
COLOURS = 256
MOST_PIXELS = 100_000  # that decide the palette of a GIF
CRISP = 8  # of imageio-ffmpeg's quality, 0 … 10


def check(format: str, fps: int) -> None:
    """Refuse a format that cannot be written here, or not at that speed.

    Raises:
        Refusal: says what to install, or which speeds there are.
    """
    errors.choose("editing.format", NAMES, format)
    fastest = GIF_FASTEST if format == "gif" else FASTEST
    if fps > fastest:
        raise errors.Refusal(
            f"editing.fps={fps}: --format={format} plays at most {fastest} frames a "
            "second; give fewer" + (", or --format=webp" if format == "gif" else "")
        )
    if format == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise errors.Refusal(
            "--format=mp4 is written by imageio-ffmpeg, which is not installed: "
            "pip install 'ddpm_jax[video]', or give --format=gif, apng or webp"
        )


def encode(
    frames: Sequence[np.ndarray], format: str, *, fps: int, is_loop: bool
) -> bytes:
    """Return the file of an animation, which plays again and again.

    GIF, APNG and WebP are lossless, but for the 256 colours of a GIF: it has one
    palette for all frames and no dithering, so that nothing flickers; grey frames keep
    every level.

    Args:
        frames: uint8 [height, width, 1 or 3], of one size.
        format: a key of `NAMES`.
        fps: frames a second.
        is_loop: the first frame follows the last one; else the last one stays a while.
    """
    if format == "mp4":
        return _mp4(frames, fps, 0 if is_loop else round(HOLD * fps))
    images = _pillow(frames)
    if format == "gif" and images[0].mode == "RGB":
        images = _in_one_palette(images, is_loop)
    clock = GIF_CLOCK if format == "gif" else 1000
    times = [round(number * clock / fps) for number in range(len(frames) + 1)]
    shown = [(b - a) * 1000 // clock for a, b in itertools.pairwise(times)]
    shown[-1] += 0 if is_loop else int(HOLD * 1000)
    options = {
        "gif": {"optimize": False},
        "apng": {"default_image": False},
        "webp": {"lossless": True},
    }
    buffer = io.BytesIO()
    images[0].save(
        buffer,
        format={"gif": "GIF", "apng": "PNG", "webp": "WEBP"}[format],
        save_all=True,
        append_images=images[1:],
        duration=shown,
        loop=0,
        **options[format],
    )
    return buffer.getvalue()


def _pillow(frames):
    from PIL import Image

    return [
        Image.fromarray(np.ascontiguousarray(f[..., 0] if f.shape[-1] == 1 else f))
        for f in frames
    ]


def _in_one_palette(images, is_loop):
    """Return RGB images with the colours of one palette, each pixel its nearest.

    The palette is fitted to all frames; where the last one stays, half to that one, as
    the noise before it has more colours than any image.
    """
    from PIL import Image

    frames = [np.asarray(image).reshape(-1, 3) for image in images]
    parts = [np.concatenate(frames), *([] if is_loop else [frames[-1]])]
    most = MOST_PIXELS // len(parts)
    pixels = np.concatenate([part[:: -(-len(part) // most)] for part in parts])
    every = Image.fromarray(np.ascontiguousarray(pixels[None]))
    palette = every.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=1)
    return [i.quantize(palette=palette, dither=Image.Dither.NONE) for i in images]


def _mp4(frames, fps, held):
    import imageio_ffmpeg

    height, width = frames[0].shape[:2]
    size = (width + width % 2, height + height % 2)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / NAMES["mp4"]
        writer = imageio_ffmpeg.write_frames(
            str(path), size, fps=fps, quality=CRISP, macro_block_size=2
        )
        with warnings.catch_warnings():
            # It starts a process, which forks; no code of ours runs in that.
            warnings.simplefilter("ignore", RuntimeWarning)
            writer.send(None)
        for frame in [*frames, *[frames[-1]] * held]:
            canvas = np.full((size[1], size[0], 3), 255, np.uint8)
            canvas[:height, :width] = frame
            writer.send(canvas.tobytes())
        writer.close()
        return path.read_bytes()
