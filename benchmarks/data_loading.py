"""Measure how fast images are decoded and cut to size.

python benchmarks/data_loading.py [folder]

Without a folder, photographs of 512×512 pixels are imitated as JPEG and PNG files in a
temporary directory. Times are of the process (all threads), so that images per second
and core do not depend on what else the machine does; a second pass reads from memory.
"""

import pathlib
import sys
import tempfile
import time

import numpy as np
from PIL import Image

from ddpm_jax.data import sources

SIDE = 512
COUNT = 240
BATCH = 64


def imitate(folder, extension, count=COUNT):
    """Write smooth noise, which compresses about as photographs do."""
    rng = np.random.default_rng(0)
    for number in range(count):
        coarse = rng.integers(0, 256, (SIDE // 8, SIDE // 8, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        grain = rng.normal(0, 4, (SIDE, SIDE, 3))
        pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}{extension}", quality=90)


def rates(folder, side, crop):
    """Return images per second and core of a first and of a second pass."""
    dataset = sources.load(
        "folder",
        "train",
        path=folder,
        image_size=(side,),
        channels=3,
        crop=crop,
        labels="none",
        say=lambda line: None,
    )
    draws = np.full((BATCH, 3), 0.5) if dataset.random_crop else None
    found = []
    for _ in ("decoded", "from memory"):
        began = time.process_time()
        for first in range(0, len(dataset), BATCH):
            indices = range(first, min(first + BATCH, len(dataset)))
            dataset.fetch(indices, draws[: len(indices)] if draws is not None else None)
        found.append(len(dataset) / (time.process_time() - began))
    return found


def measure(folder, side, crop):
    """Print the rates of a folder."""
    decoded, again = rates(folder, side, crop)
    print(
        f"{folder.name:>10} {crop:>6} to {side:3}: {decoded:7,.0f} images/s per core, "
        f"{again:9,.0f} from memory"
    )


def main(folders):
    """Measure centre and random crops to 64 and 256 pixels."""
    with tempfile.TemporaryDirectory() as temporary:
        if not folders:
            for extension in (".jpg", ".png"):
                folder = pathlib.Path(temporary, extension[1:])
                folder.mkdir()
                imitate(folder, extension)
                folders.append(folder)
        for folder in folders:
            for crop in ("center", "random"):
                for side in (64, 256):
                    measure(pathlib.Path(folder), side, crop)


if __name__ == "__main__":
    main(sys.argv[1:])
