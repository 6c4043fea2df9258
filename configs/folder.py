"""Your own images: a folder, zip or .npz file, looked at to choose size and steps.

    python -m ddpm_jax.main --mode=data --config=configs/folder.py:photos
    python -m ddpm_jax.main --config=configs/folder.py:photos
    python -m ddpm_jax.main --mode=sample --workdir=runs/folder-photos

The part after the colon is the path; `photos@64` or `photos@48x64` asks for images of
that side or of that height and width. Without it images keep their own size, or become
64×64 if they are larger or differ in size. Captions beside the images, photo.txt for
photo.png, or in a metadata.jsonl make it a network that reads texts. docs/your_data.md
tells the rest.

Numbers: our own, for two CPU cores, by the rules in this file; variance and schedule
follow Improved DDPM. Result to expect: a first grid of samples, blobs at best, within
about three minutes; how good the last one is depends on the images. Cost: 200 views of
each image, at least 2,000 steps. On a GPU make the network wider and look less often,
with --config.model.channels=128 --config.train.batch_size=64
--config.train.sample_every=2000.
"""

import collections
import math
import pathlib
import re

import numpy as np

from ddpm_jax import config as schema
from ddpm_jax.core import errors
from ddpm_jax.data import captions_files, decoding, files, labels, sources
from ddpm_jax.text import words as tokens

LARGEST_OWN_SIDE = 64  # larger images are made smaller unless a size is asked for
SHOWN_FILES = 32  # headers that are read to see whether sizes differ
MAX_WORDS = 5_000  # more different words in captions are read as bytes …
SEEN_WORD = 3  # … and so they are if most stand in fewer captions than this
MAX_BYTES = 256  # of a caption: each is a position of the text
VIEWS = 200  # times that training sees each image: digits.py sees each 107 times

# Width of each level by the number of levels: digits.py, DDPM's, ADM's 128 and 256.
CHANNEL_MULT = {
    2: (1, 2),
    3: (1, 2, 2),
    4: (1, 2, 2, 2),
    5: (1, 1, 2, 3, 4),
    6: (1, 1, 2, 2, 4, 4),
}


def get_config(path=""):
    """Return the configuration for the images in `path`, "folder" or "folder@size"."""
    path, wanted = _split(path)
    name, number, has_classes, captions, own_size = look(path)
    height, width = wanted or own_size()

    config = schema.base()
    config.data.name = name
    config.data.path = str(path)
    config.data.image_size = (height, width)
    config.data.test_fraction = 0.1
    # A few thousand images are worth twice as many when mirrored. Switch it off where
    # left and right mean something, as in letters: --config.data.flip=false
    config.data.flip = number < 5000

    levels = number_of_levels(height, width)
    config.model.channels = 32
    config.model.norm_groups = 8
    config.model.channel_mult = CHANNEL_MULT[levels]
    config.model.num_res_blocks = 1
    # Attention at the maps of at most 16, as in DDPM: its cost grows with the area².
    sides = [min(height, width) // 2**level for level in range(levels)]
    config.model.attention_resolutions = tuple(s for s in sides if s <= 16)
    config.model.num_heads = 4
    # The fewer images, the sooner a network knows them by heart.
    config.model.dropout = 0.2 if number < 1000 else 0.1
    config.model.class_conditional = has_classes
    config.train.label_dropout = 0.1 if has_classes else 0.0

    if captions is not None:
        read_text(config, captions)

    config.diffusion.schedule = "cosine"
    config.diffusion.num_steps = 1000
    # v stays well-posed at the noisiest steps, where x̂_0 from noise is multiplied by
    # 20,000 and a single image makes the loss of a small batch jump.
    config.diffusion.prediction = "v"
    config.diffusion.variance = "learned_range"
    config.diffusion.loss = "rescaled_hybrid"

    batch_size = batch_size_for(number, height * width)
    steps = steps_for(number, batch_size)
    config.train.batch_size = batch_size
    config.train.steps = steps
    config.train.learning_rate = 5e-4
    config.train.warmup_steps = 100
    config.train.decay = "cosine"
    config.train.clip_norm = 1.0
    config.train.ema_decay = (ema_decay_for(steps),)
    config.train.log_every = 10
    config.train.sample_every = grid_interval(batch_size, height * width)
    config.train.checkpoint_every = 500
    config.train.validate_every = 500

    config.sampling.method = "ddim"  # good at few steps, so a grid costs seconds
    config.sampling.steps = 20
    return config


# ---- the rules -----------------------------------------------------------------------


def read_text(config, captions):
    """Let the network read captions instead of classes, in place.

    Args:
        config: to be changed.
        captions: all of them; () where they cannot be read.
    """
    config.model.text_layers = 2
    config.model.text_width = 64
    config.model.text_heads = 4
    # A caption says more than the class does, and guidance by one of them is enough.
    config.model.class_conditional = False
    config.train.label_dropout = 0.1
    config.data.flip = False  # left and right have their words
    counts = collections.Counter()
    longest = 1
    for caption in captions:
        words = tokens.split(caption)
        counts.update(set(words))
        longest = max(longest, len(caption.encode()))
    often = sum(count >= SEEN_WORD for count in counts.values())
    if len(counts) > MAX_WORDS or 2 * often < len(counts):
        # A word that is seen once or twice is not learned, letters are.
        config.data.tokenizer = "bytes"
        config.model.text_context = min(longest, MAX_BYTES)


def number_of_levels(height, width):
    """Return how many resolutions the network has: down to maps of 8 … 15, as in ADM.

    One halving fewer is taken where the sides cannot be halved that often.

    Raises:
        Refusal: sides that can still not be halved often enough, or tiny ones.
    """
    side = min(height, width)
    halvings = math.ceil(math.log2((side + 1) / 16))
    halvings = min(max(halvings, 1), max(CHANNEL_MULT) - 1)
    for number in range(halvings, max(halvings - 2, 0), -1):
        if height % 2**number == 0 and width % 2**number == 0:
            return number + 1
    factor = 2**halvings
    if side < factor:
        raise errors.Refusal(
            f"images of {height}x{width} are too small for a network: both sides need "
            f"{factor} pixels at least, so remove tiny images"
        )
    smaller = "x".join(str(length // factor * factor) for length in (height, width))
    raise errors.Refusal(
        f"the sides of {height}x{width} are not divisible by {factor}: ask for another "
        f"size after the path, such as @{smaller}"
    )


def batch_size_for(num_images, num_pixels):
    """Return a power of two: 32 for small images, 16 for larger, few for few images."""
    largest = 32 if num_pixels <= 32 * 32 else 16
    return min(largest, 2 ** int(math.log2(max(num_images // 2, 1))))


def steps_for(num_images, batch_size):
    """Return the steps that show each image `VIEWS` times, but 2,000 … 400,000."""
    return int(np.clip(VIEWS * num_images // batch_size, 2000, 400_000))


def ema_decay_for(steps):
    """Return the longest average that still spans a tenth of the run at most."""
    fitting = [d for d in (0.995, 0.999, 0.9995, 0.9999) if steps * (1 - d) >= 10]
    return max(fitting)


def grid_interval(batch_size, num_pixels):
    """Return the steps that take two CPU cores some 45 seconds, while they are idle."""
    pixels = 2_500_000  # what they train on in that time at 32 channels
    return max(10, pixels // (batch_size * num_pixels) // 10 * 10)


# ---- what is there -------------------------------------------------------------------


def look(path):
    """Return data.name, number of images, whether they have classes, captions, size.

    The captions are None where there are none; the size is a function that returns
    (height, width).
    """
    if path.suffix.lower() == ".npz":
        arrays = sources.load("npz", "train", path=path)
        own = {arrays.shape[:2]}
        has_classes = arrays.num_classes is not None
        return "npz", len(arrays), has_classes, None, lambda: size_for(own)
    images = files.open_images(path)
    name = "folder" if path.is_dir() else "zip"
    has_classes = images.has_labels or lies_in_classes(images)
    captions = captions_of(images)
    return name, len(images), has_classes, captions, lambda: size_for(sizes_of(images))


def captions_of(images):
    """Return all captions of the images, None where there are none."""
    try:
        found = captions_files.find(images, "auto", lambda line: None)
    except errors.Refusal:
        return ()  # said again when they are read, unless model.text_layers=0 is given
    # A few notes beside images are no captions.
    few = found is None or 2 * len(found.without()) > len(images)
    return None if few else found.captions


def sizes_of(images):
    """Return the (height, width) of some of the images.

    Raises:
        Refusal: none of them can be read.
    """
    shown = images.entries[:: max(1, len(images) // SHOWN_FILES)]
    described = [_describe(images, entry.name) for entry in shown]
    sizes = {(i.height, i.width) for i in described if not isinstance(i, str)}
    if not sizes:
        raise errors.Refusal(
            f"none of {len(shown)} files of {images.root} can be read as an image; "
            f"{shown[0].name} {described[0]}"
        )
    return sizes


def size_for(sizes):
    """Return (height, width): the images' own if they are alike and small."""
    shortest = min(min(size) for size in sizes)
    if len(sizes) == 1 and shortest <= LARGEST_OWN_SIDE:
        return next(iter(sizes))
    side = max(min(shortest, LARGEST_OWN_SIDE) // 8 * 8, 8)
    return side, side


def lies_in_classes(images):
    """Return whether the folders of the images are classes.

    Where they are not, `data.labels` stays "auto": what is odd about them is refused
    with the remedy when the images are read.
    """
    tops = [
        entry.name.partition("/")[0] for entry in images.entries if "/" in entry.name
    ]
    classes = set(tops)
    return (
        len(tops) == len(images)
        and 1 < len(classes) <= len(images) / 2
        and not {name.lower() for name in classes} <= labels.SPLIT_FOLDERS
    )


def _describe(images, name):
    """Return what the header says, or why it says nothing."""
    try:
        return images.use(name, decoding.describe)
    except decoding.Unreadable as error:
        return str(error)


def _split(text):
    """Return path and (height, width) of "path@64" or "path@48x64", else None."""
    if not text:
        raise errors.Refusal(
            "configs/folder.py without a path: give your folder, zip or .npz file "
            "after a colon, --config=configs/folder.py:PATH"
        )
    asked = re.fullmatch(r"(.+)@(\d+)(?:x(\d+))?", text)
    size = None
    if asked and not pathlib.Path(text).exists():
        text, height, width = asked.groups()
        size = int(height), int(width or height)
    # Absolute: the run is used from other directories too.
    return pathlib.Path(text).expanduser().absolute(), size
