"""Where images come from: every source gives `Dataset` values with random access.

A source is one function `(split, *, path, test_fraction) → Dataset` and one entry of
`SOURCES`. Images leave `Dataset.fetch` as float32 in [-1, 1], channels last, together
with int32 labels; nothing else in the package knows where they came from.
"""

import dataclasses
import gzip
import hashlib
import importlib.util
import pathlib
from collections.abc import Callable

import numpy as np

from ddpm_jax.core import errors

SPLITS = ("train", "test")


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One split of a source, read by index.

    Attributes:
        name: the source's name in `SOURCES`.
        split: "train" or "test".
        image_shape: (H, W, C).
        levels: number of grey values of the data, evenly spaced from -1 to 1.
        num_classes: labels are 0 … num_classes - 1.
        class_names: one name per class.
        num_examples: number of images; also `len(dataset)`.
        read: indices int64 [n] → (images float32 [n, H, W, C] in [-1, 1],
            labels int32 [n]), both freshly allocated.
        content: hash of the content where it is in memory, else "".
    """

    name: str
    split: str
    image_shape: tuple[int, int, int]
    levels: int
    num_classes: int
    class_names: tuple[str, ...]
    num_examples: int
    read: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
    content: str = ""

    def __len__(self) -> int:
        return self.num_examples

    def fetch(self, indices) -> dict[str, np.ndarray]:
        """Return the images and labels at `indices`, in buffers that are used once.

        `jax.device_put` on a CPU may alias host memory, so a buffer handed out is never
        written again: every call allocates.

        Args:
            indices: integers [n] in 0 … len - 1, repeats allowed.

        Returns:
            {"image": float32 [n, H, W, C] in [-1, 1], "label": int32 [n]}.

        Raises:
            IndexError: an index lies outside the data set.
        """
        indices = np.asarray(indices, np.int64)
        outside = (indices < 0) | (indices >= len(self))
        if outside.any():
            raise IndexError(
                f"index {indices[outside][0]} is outside {self.name}/{self.split}, "
                f"which has {len(self)} images"
            )
        image, label = self.read(indices)
        return {"image": image, "label": label}

    def fingerprint(self) -> str:
        """Return a hex string that changes with the data.

        It covers the name, split, count, shape, levels and classes; for data in memory
        also every value, for data read from disk none.
        """
        facts = [field.name for field in dataclasses.fields(self)]
        facts.remove("read")
        described = repr([(fact, getattr(self, fact)) for fact in facts])
        return hashlib.sha256(described.encode()).hexdigest()


def load(name: str, split: str, *, path=None, test_fraction: float = 0.2) -> Dataset:
    """Return one split of a named source.

    Args:
        name: a key of `SOURCES`.
        split: "train" or "test".
        path: where the source keeps its files; None or "" means the source's own
            default. A source that comes with an installed package takes no path.
        test_fraction: share of the images that becomes the test split, in (0, 1); only
            for sources without a test split of their own.

    Raises:
        Refusal: unknown name or split, a fraction outside (0, 1), or data that is not
            there.
    """
    source = errors.choose("data source", SOURCES, name)
    if split not in SPLITS:
        raise errors.Refusal(
            f"unknown split {split!r}: choose one of {', '.join(SPLITS)}"
        )
    if not 0.0 < test_fraction < 1.0:
        raise errors.Refusal(
            f"data.test_fraction {test_fraction} is not between 0 and 1: give the "
            "share of the images that is kept for testing, for example 0.2"
        )
    return source(split, path=path, test_fraction=test_fraction)


def digits(split: str, *, path=None, test_fraction: float = 0.2) -> Dataset:
    """Return scikit-learn's 1,797 handwritten digits: 8×8×1, 17 grey levels.

    The grey value v = 0 … 16 becomes v/8 - 1. The test split is the last
    `test_fraction` of a fixed permutation (NumPy's default generator, seed 0).

    Raises:
        Refusal: a path is given, scikit-learn is missing, or a split would be empty.
    """
    if path:
        raise errors.Refusal(
            f"data.path {str(path)!r} has no meaning for digits, which scikit-learn "
            "brings along: leave data.path empty"
        )
    grey, label = _digits_table()
    count = len(grey)
    num_test = round(test_fraction * count)
    if not 0 < num_test < count:
        raise errors.Refusal(
            f"data.test_fraction {test_fraction} leaves {count - num_test} training "
            f"and {num_test} test images of {count}: choose it between {1 / count:.4f} "
            f"and {1 - 1 / count:.4f}"
        )
    permutation = np.random.default_rng(0).permutation(count)
    chosen = {"train": permutation[:-num_test], "test": permutation[-num_test:]}[split]
    image = (grey[chosen] / 8.0 - 1.0).astype(np.float32)
    label = label[chosen].astype(np.int32)

    def read(indices):
        return image[indices], label[indices]

    return Dataset(
        name="digits",
        split=split,
        image_shape=(8, 8, 1),
        levels=17,
        num_classes=10,
        class_names=tuple("0123456789"),
        num_examples=len(image),
        read=read,
        content=hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest(),
    )


def _digits_table():
    """Grey values [1797, 8, 8, 1] and labels [1797], float64."""
    # Found, not imported: importing sklearn.datasets takes longer than everything else
    # before the first step, and all that is needed is one packaged table.
    spec = importlib.util.find_spec("sklearn")
    if spec is None:
        raise errors.Refusal(
            "the digits come with scikit-learn, which is not installed: "
            "pip install scikit-learn"
        )
    folder = pathlib.Path(spec.submodule_search_locations[0], "datasets", "data")
    table_path = folder / "digits.csv.gz"
    if table_path.is_file():
        with gzip.open(table_path, "rt", encoding="utf-8") as file:
            table = np.loadtxt(file, delimiter=",")  # [1797, 64 grey values + label]
        return table[:, :-1].reshape(-1, 8, 8, 1), table[:, -1]
    from sklearn import datasets

    bunch = datasets.load_digits()
    return bunch.images[..., None], bunch.target


def cifar10(split: str, *, path=None, test_fraction: float = 0.2) -> Dataset:
    """Return CIFAR-10, 32×32×3 in 256 levels: 50,000 training, 10,000 test images.

    Args:
        split: "train" or "test", the data set's own splits.
        path: the TFDS data directory; None means TFDS's default.
        test_fraction: not used, as the data set has a test split.

    Raises:
        Refusal: see `tfds_dataset`.
    """
    del test_fraction
    return tfds_dataset("cifar10", split, data_dir=path or None)


def tfds_dataset(name: str, split: str, *, data_dir=None) -> Dataset:
    """Return a split of an image-classification set that TFDS has prepared on disk.

    Reading needs no TensorFlow. Preparing does: TFDS 4.9 unpacks archives and reads
    CIFAR-10's files with it. So a set that is not there is refused with the commands
    that prepare it in an environment of its own, and TensorFlow never enters this one.

    Args:
        name: TFDS's name of the data set; it needs the features "image" (8 bits, one
            shape) and "label".
        split: TFDS's name of the split.
        data_dir: the TFDS data directory; None means TFDS's default.

    Raises:
        Refusal: tensorflow_datasets is missing, or the data set is not on disk with
            random access, has no such split, or has other features.
    """
    if importlib.util.find_spec("tensorflow_datasets") is None:
        raise errors.Refusal(
            f"{name} is read by tensorflow_datasets, which is not installed: "
            "pip install 'ddpm-jax[tfds]'"
        )
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    formats = builder.info.available_file_formats() if builder.info.splits else set()
    if not formats & set(tfds.core.FileFormat.with_random_access()):
        raise errors.Refusal(_how_to_prepare(name, builder.info))
    if split not in builder.info.splits:
        raise errors.Refusal(
            f"{name} has no split {split!r}: choose one of "
            f"{', '.join(sorted(builder.info.splits))}"
        )
    features = dict(builder.info.features.items())
    image_feature, label_feature = features.get("image"), features.get("label")
    if (
        not isinstance(image_feature, tfds.features.Image)
        or not isinstance(label_feature, tfds.features.ClassLabel)
        or image_feature.np_dtype != np.uint8
        or None in image_feature.shape
    ):
        raise errors.Refusal(
            f"{name} has the features {features}: choose a data set with an "
            "8-bit 'image' of one shape and a class 'label'"
        )
    records = builder.as_data_source(split)

    def read(indices):
        examples = records.__getitems__(indices.tolist())
        image = np.stack([example["image"] for example in examples])
        label = np.array([example["label"] for example in examples], np.int32)
        return image / np.float32(127.5) - np.float32(1.0), label

    return Dataset(
        name=name,
        split=split,
        image_shape=tuple(image_feature.shape),
        levels=256,
        num_classes=label_feature.num_classes,
        class_names=tuple(label_feature.names),
        num_examples=len(records),
        read=read,
    )


def _how_to_prepare(name, info):
    # The folder ends in NAME/VERSION or NAME/CONFIG/VERSION.
    folder = str(info.data_dir)
    data_dir = folder[: folder.rindex(f"/{name.split('/')[0]}/")]
    if info.splits:
        # TFDS does not write a second format beside the first.
        found = f"{name} is in {folder} in the format {info.file_format.value}"
        data_dir += "-array_record"
    else:
        found = f"{name} is not in {folder}"
    program = (
        f"import tensorflow_datasets as tfds; tfds.builder({name!r}, "
        f"data_dir={data_dir!r}, file_format='array_record').download_and_prepare()"
    )
    return (
        f"{found}, but is needed in TFDS's array_record format: point data.path at a "
        "TFDS directory that holds it so, or prepare it once with the command below "
        "(in an environment of its own: TFDS needs TensorFlow for this step alone) and "
        f"set data.path to {data_dir}: python -m venv tfds-env && "
        "tfds-env/bin/pip install tensorflow tensorflow-datasets importlib_resources "
        f'&& tfds-env/bin/python -c "{program}"'
    )


SOURCES = {"digits": digits, "cifar10": cifar10}
