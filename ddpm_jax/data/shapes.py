"""Pictures of simple scenes with captions, made on the spot: no download, no file.

Image i of a split is a function of (seed, split, i); so is its caption, of which there
are many more for who draws one. `shape_scenes` says what occurs where,
`shape_pictures` draws and reads pictures, `shape_captions` writes and reads captions.
"""

import hashlib

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import shape_captions as captions
from ddpm_jax.data import shape_pictures as pictures
from ddpm_jax.data import shape_scenes as scenes
from ddpm_jax.data.dataset import Dataset, Request

SIDE = 16  # where none is asked for
SEED = 0
NUM_EXAMPLES = {"train": 50_000, "test": 2_000, "unseen": 2_000}
CAPTION = 1_000  # keeps the draws of captions apart from those of scenes


def shapes(split: str, request: Request, seed: int = SEED) -> Dataset:
    """Return scenes of one or two shapes, RGB, 16 to 64 pixels wide and high.

    Besides "train" and "test" there is a split "unseen", of combinations that never
    occur in training.

    Args:
        split: one of `shape_scenes.SPLITS`.
        request: image_size () means 16; path, labels and random crops have no meaning.
        seed: another one draws other scenes into the same splits.

    Raises:
        Refusal: a path, another size, other channels or random crops are asked for.
    """
    side = _side(request)

    def read(indices):
        image = pictures.render(scenes.drawn(seed, split, indices), side)
        label = np.zeros(len(indices), np.int32)
        return image.astype(np.float32) / np.float32(127.5) - 1, label

    def write(indices, draws):
        drawn = scenes.drawn(seed, split, indices)
        # 0 is the caption of the index alone; 1 … 2⁵³ are those of a draw.
        bits = (
            0 if draws is None else (draws * 2.0**53).astype(np.uint64) + np.uint64(1)
        )
        stream = CAPTION + scenes.SPLITS.index(split)
        numbers = scenes.uniform(captions.DRAWS, seed, stream, indices, bits)
        return [
            captions.write(scenes.scene(cells), row, complete=split == "unseen")
            for cells, row in zip(drawn, numbers, strict=True)
        ]

    return Dataset(
        name="shapes",
        split=split,
        shape=(side, side, 3),
        levels=256,
        num_classes=None,
        class_names=(),
        num_examples=NUM_EXAMPLES[split],
        read=read,
        read_captions=write,
        all_captions=lambda: (
            " ".join(captions.WORDS[: captions.MAX_WORDS]),
            *captions.WORDS,
        ),
        content=_content(read, write),
    )


def _side(request):
    if request.path:
        raise errors.Refusal(
            f"data.path {request.path!r} has no meaning for shapes, which are made on "
            "the spot: leave data.path empty"
        )
    height, width = request.image_size or (SIDE, SIDE)
    if height != width or not pictures.MIN_SIDE <= height <= pictures.MAX_SIDE:
        raise errors.Refusal(
            f"data.image_size={height}x{width}: images of 'shapes' are square, with "
            f"{pictures.MIN_SIDE} to {pictures.MAX_SIDE} pixels a side"
        )
    if request.channels not in (0, 3):
        raise errors.Refusal(
            f"data.channels={request.channels}: images of 'shapes' have 3; leave the "
            "field 0"
        )
    if request.crop == "random":
        raise errors.Refusal(
            "data.crop='random': images of 'shapes' have their size and are not cut; "
            "use 'center' or 'none'"
        )
    return height


def _content(read, write):
    """Return a hash that changes with the templates, the scenes or the captions."""
    first = np.arange(64)
    digest = hashlib.sha256(np.rint((read(first)[0] + 1) * 127.5).astype(np.uint8))
    digest.update("\n".join(write(first, None)).encode())
    return digest.hexdigest()
