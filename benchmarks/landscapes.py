"""Write a folder of small pictures to train on: landscapes by day and by night.

    python benchmarks/landscapes.py photos
    python -m ddpm_jax.main --config=configs/folder.py:photos

Every picture is drawn from its own random numbers: a sky that fades, a sun or a moon,
two ranges of hills, and at times a lake. Classes are the folders "day" and "night".
"""

import pathlib
import sys

import numpy as np
from PIL import Image

HEIGHT, WIDTH, FINER = 24, 32, 4  # drawn FINER times as large, for soft edges
NUMBER = 600  # of each class
SKY = {"day": ((96, 160, 235), (225, 235, 250)), "night": ((10, 12, 40), (70, 60, 110))}
LIGHT = {"day": (255, 225, 90), "night": (235, 235, 225)}
HILLS = {"day": ((120, 160, 130), (60, 120, 50)), "night": ((40, 50, 80), (18, 32, 40))}
LAKE = {"day": (80, 130, 190), "night": (30, 36, 70)}


def picture(random: np.random.Generator, time: str) -> np.ndarray:
    """Return a landscape, uint8 [HEIGHT, WIDTH, 3]."""
    rows, columns = np.mgrid[: HEIGHT * FINER, : WIDTH * FINER] / FINER
    top, horizon = (np.array(c) + random.normal(0, 8, 3) for c in SKY[time])
    share = (rows / HEIGHT)[..., None]
    values = (1 - share) * top + share * horizon
    x, y = random.uniform(3, WIDTH - 3), random.uniform(3, 10)
    light = np.hypot(columns - x, rows - y) < random.uniform(2, 3.2)
    values[light] = LIGHT[time]
    for color, level in zip(HILLS[time], (13, 17), strict=True):
        edge = level + random.uniform(-1.5, 1.5)
        for wave in (9, 17):
            phase, height = random.uniform(0, 2 * np.pi), random.uniform(0.5, 2)
            edge = edge + height * np.sin(2 * np.pi * columns / wave + phase)
        values[rows > edge] = np.array(color) + random.normal(0, 8, 3)
    if random.random() < 0.4:
        values[rows > HEIGHT - random.uniform(2, 5)] = LAKE[time]
    small = values.reshape(HEIGHT, FINER, WIDTH, FINER, 3).mean((1, 3))
    return np.clip(small.round(), 0, 255).astype(np.uint8)


def main(folder: str) -> None:
    """Write NUMBER pictures of each class."""
    for label, time in enumerate(SKY):
        (pathlib.Path(folder) / time).mkdir(parents=True)
        for number in range(NUMBER):
            made = picture(np.random.default_rng((label, number)), time)
            Image.fromarray(made).save(
                pathlib.Path(folder) / time / f"{number:04d}.png"
            )


if __name__ == "__main__":
    main(sys.argv[1])
