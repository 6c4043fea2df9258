"""What every source of images gives, and what every source is asked for."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data.marks import Mark

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Request:
    """What is asked of a source besides the split; see `sources.load`."""

    path: str | None = None
    test_fraction: float = 0.2
    image_size: tuple[int, int] | None = None
    channels: int = 0
    crop: str = "center"
    labels: str = "auto"
    captions: str = "none"
    cache_gib: float = 4.0
    say: Callable[[str], None] = print


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a source, read by index.

    Attributes:
        name: the source's name, as in `sources.load`.
        split: "train" or "test".
        shape: of one example: (H, W, C) of images, (20, 1) of sequences, (2,) of
            points.
        levels: number of grey values of the data, evenly spaced from -1 to 1; None
            for continuous data, whose values are no grid and may leave [-1, 1].
        num_classes: labels are 0 … num_classes - 1; None where there are no labels,
            and then all are 0.
        class_names: one name per class.
        num_examples: number of images; also `len(dataset)`.
        read: indices int64 [n] → (images float32 [n, *shape], in [-1, 1] unless
            continuous, labels int32 [n]), freshly allocated; perhaps with a third
            value, arrays [n, ...] by key, for networks that read them as conditions.
            With `random_crop` it takes a second argument: None for the centre crop, or
            uniform draws [n, 3].
        content: hash of the content or of the listing of its files, else "".
        random_crop: whether training cuts the images out at random.
        count_unreadable: returns how many files of the source could not be read so far.
        place: where the files of both splits lie; "" where there are none.
        marks: marks of these files from an earlier time → theirs now, by name; see
            `marks`.
        read_labels: indices int64 [n] → labels int32 [n] as `read` gives them;
            None where there are no classes.
        read_captions: (indices int64 [n], draws [n] or None) → n texts; None where
            there are no captions. See `captions`.
        derive: (images, draws or None) → arrays [n, ...] by key that are made of the
            finished images, see `low_res`; None without any.
        all_captions: () → texts that hold every word that captions of the splits
            may have, and the longest caption; None where there are no captions.
        encode: texts → arrays [n, ...] by key, for networks that read captions; None
            where captions are not read.
    """

    name: str
    split: str
    shape: tuple[int, ...]
    levels: int | None
    num_classes: int | None
    class_names: tuple[str, ...]
    num_examples: int
    read: Callable[..., tuple]
    content: str = ""
    random_crop: bool = False
    count_unreadable: Callable[[], int] = lambda: 0
    place: str = ""
    marks: Callable[[Mapping[str, Mark]], dict[str, Mark]] = lambda known: {}
    read_labels: Callable[[np.ndarray], np.ndarray] | None = None
    read_captions: Callable[..., Sequence[str]] | None = None
    derive: Callable[..., Mapping[str, np.ndarray]] | None = None
    all_captions: Callable[[], Iterable[str]] | None = None
    encode: Callable[[Sequence[str]], Mapping[str, np.ndarray]] | None = None

    def __len__(self) -> int:
        return self.num_examples

    def fetch(
        self, indices, crop_draws=None, caption_draws=None
    ) -> dict[str, np.ndarray]:
        """Return the examples at `indices`, in buffers that are used once.

        `jax.device_put` on a CPU may alias host memory, so a buffer handed out is never
        written again: every call allocates.

        Args:
            indices: integers [n] in 0 … len - 1, repeats allowed.
            crop_draws: for data with `random_crop`, uniform in [0, 1), [n, 3], that
                choose the crops (`transforms.crop_draws`); None is the centre crop.
            caption_draws: see `captions`.

        Returns:
            {"image": float32 [n, *shape], "label": int32 [n]}, and what else `read`,
            `derive` and `encode` give by key.

        Raises:
            IndexError: an index lies outside the data set.
        """
        indices = self._checked(indices)
        if self.random_crop:
            image, label, *more = self.read(indices, crop_draws)
        else:
            image, label, *more = self.read(indices)
        found = dict(more[0]) if more else {}
        if self.derive is not None:
            found |= self.derive(image)
        if self.encode is not None:  # after the images, of which some may be replaced
            found |= self.encode(self.captions(indices, caption_draws))
        # The images and labels last: no condition may take their names.
        return {**found, "image": image, "label": label}

    def captions(self, indices, draws=None) -> list[str]:
        """Return a caption of each of the examples at `indices`.

        Args:
            indices: as in `fetch`.
            draws: uniform in [0, 1), [n], that choose among the captions of an example;
                None always gives the same one.

        Raises:
            IndexError: an index lies outside the data set.
            Refusal: there are no captions.
        """
        if self.read_captions is None:
            raise errors.Refusal(
                f"the images of {self.name!r} have no captions: choose data that has, "
                "for example data.name=shapes"
            )
        indices = self._checked(indices)
        if draws is not None:
            draws = np.broadcast_to(np.asarray(draws, np.float64), indices.shape)
        return list(self.read_captions(indices, draws))

    def fingerprint(self) -> str:
        """Return a hex string that changes with the data.

        It covers the name, split, count, shape, levels and classes; for data in memory
        also every value, for files their relative paths, sizes and labels (`marks` tell
        of their content), for data sets of TFDS nothing else.
        """
        described = repr(
            [(label, getattr(self, fact)) for label, fact in _FACTS.items()]
        )
        return hashlib.sha256(described.encode()).hexdigest()

    def _checked(self, indices):
        indices = np.asarray(indices, np.int64)
        outside = (indices < 0) | (indices >= len(self))
        if outside.any():
            raise IndexError(
                f"index {indices[outside][0]} is outside {self.name}/{self.split}, "
                f"which has {len(self)} images"
            )
        return indices


# What a fingerprint calls each fact: names that never change, for runs keep it.
_FACTS = {
    "name": "name",
    "split": "split",
    "image_shape": "shape",
    "levels": "levels",
    "num_classes": "num_classes",
    "class_names": "class_names",
    "num_examples": "num_examples",
    "content": "content",
}


def split_of(names, test_fraction: float, split: str) -> np.ndarray:
    """Return the indices of the names that belong to a split.

    A name decides for itself, by the first 64 bits of its SHA-256: files that come or
    go move no other file between the splits. The test split is in the order of these
    bits, so that its first images are a fair sample where names are sorted by class.

    Args:
        names: strings [n].
        test_fraction: the share that is expected in the test split, in (0, 1).
        split: "train" or "test".

    Returns:
        int64 [m].

    Raises:
        Refusal: one of the two splits would be empty.
    """
    bits = np.array(
        [int.from_bytes(hashlib.sha256(encoded(name)).digest()[:8]) for name in names],
        np.uint64,
    )
    order = np.argsort(bits, kind="stable")
    num_test = int(np.sum(bits < np.uint64(int(test_fraction * 2**64))))
    if not 0 < num_test < len(bits):
        raise errors.Refusal(
            f"data.test_fraction {test_fraction} leaves {len(bits) - num_test} "
            f"training and {num_test} test images of {len(bits)}: both need at least "
            "one, so choose another share or add images"
        )
    return order[:num_test] if split == "test" else np.sort(order[num_test:])


def encoded(name: str) -> bytes:
    """Return the bytes of a file's name, whatever encoding it is in."""
    return name.encode("utf-8", "surrogateescape")
