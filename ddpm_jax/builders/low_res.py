"""What an upsampler enlarges: pictures of the user, of the data, or of other runs.

A `Given` is a source of small images with the noise that is put on them. It is asked
for the condition of images by their numbers: image i of the upsampler enlarges image i
of the source, and what else the source knows of it (its label, its prompt) goes along.
"""

import dataclasses
import hashlib
import pathlib
import zlib
from collections.abc import Callable

import numpy as np

from ddpm_jax.builders import process as build_process
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.builders.network import low_res_size
from ddpm_jax.core import errors, keys
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.data import given_images, low_res
from ddpm_jax.data import images as images_lib
from ddpm_jax.sampling import transforms

KEY, LEVEL, LABEL = low_res.KEY, low_res.LEVEL, "label"
SHOWN_EXACTLY = 1.005  # what three digits of a largest value may be above it
WAYS = "a run, a folder of images, or their archive (.npz, .zip)"


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Small images by number.

    Attributes:
        name: a short one, for tags.
        fingerprint: changes with the images and what goes along.
        shape: (h, w, C).
        count: how many there are; None for any number.
        of: indices [n] → arrays [n, ...] by key, KEY among them.
        carried: keys besides KEY that `of` gives.
        make: number of images → whether all are there now.
        classes: of the images, as `sampling.Classes`, where the source chooses them.
    """

    name: str
    fingerprint: str
    shape: tuple[int, int, int]
    count: int | None
    of: Callable[[np.ndarray], dict[str, np.ndarray]]
    carried: frozenset[str] = frozenset()
    make: Callable[[int], bool] = lambda count: True
    classes: object = None


@dataclasses.dataclass(frozen=True, eq=False)
class Given:
    """A source with the noise that is put on its images.

    Attributes:
        source: of the small images.
        level: 0 for no noise, see `data.low_res`.
        alpha_bar: of the process; None for a network that is given no level.
        seed: of the noise, from `stage_seed`.
    """

    source: Source
    level: int
    alpha_bar: np.ndarray | None
    seed: int

    @property
    def word(self) -> str:
        """The source in tags: its name and eight digits of its fingerprint."""
        return f"{self.source.name}.{self.source.fingerprint[:8]}"

    def __call__(self, index: np.ndarray) -> dict[str, np.ndarray]:
        """Return the condition of images by key.

        A label is the class of a guiding classifier too.

        Args:
            index: [n], numbers of images.
        """
        found = dict(self.source.of(np.asarray(index)))
        if LABEL in found:
            found[transforms.CLASS] = found[LABEL]
        if self.alpha_bar is None:
            return found
        level = np.full(len(index), self.level, np.int32)
        if self.level:
            stream = keys.key_for(self.seed, "sample/low_res", index=index)
            noise = np.asarray(keys.normal_each(stream, found[KEY].shape[1:]))
            found[KEY] = low_res.noised(found[KEY], level, noise, self.alpha_bar)
        return {**found, LEVEL: level}

    def check_count(self, wanted: int, field: str = "sampling.num_samples") -> None:
        """Refuse more images than the source has.

        Raises:
            Refusal: names both numbers.
        """
        count = self.source.count
        if count is not None and wanted > count:
            raise errors.Refusal(
                f"{field}={wanted}: {self.source.name} holds {count} images to "
                f"enlarge; give at most {count}"
            )


def given(config, facts: DataInfo, source: Source | None) -> Given | None:
    """Return what an upsampler enlarges, None for a run of another kind.

    Args:
        config, facts: of the run.
        source: of the small images; None without one.

    Raises:
        Refusal: a source for a run that is no upsampler, an upsampler without one, or
            noise that the run was not trained with.
    """
    sampling = config.sampling
    level = noise_level(config)
    if config.model.kind != "upsampler":
        if sampling.low_res:
            raise errors.Refusal(
                f"sampling.low_res={','.join(sampling.low_res)} with "
                f"model.kind={config.model.kind!r}: this run enlarges nothing; sample "
                "from an upsampler, or leave it out"
            )
        return None
    if source is None:
        raise errors.Refusal(
            "model.kind='upsampler': nothing says which images are enlarged; give "
            f"--config.sampling.low_res, {WAYS}"
        )
    noise = config.model.low_res_noise
    alpha_bar = build_process.schedule(config).alpha_bar if noise else None
    seed = stage_seed(sampling.seed, facts.shape)
    return Given(source, level, alpha_bar, seed)


def noise_level(config) -> int:
    """Return the level of noise that config.sampling asks for, 0 for none.

    Raises:
        Refusal: it is given twice, no noise of the process, or of a run that knows
            none.
    """
    sampling = config.sampling
    level, sigma = sampling.low_res_t, sampling.low_res_sigma
    if not level and not sigma:
        return 0
    if not config.model.low_res_noise:
        field = "low_res_t" if level else "low_res_sigma"
        raise errors.Refusal(
            f"sampling.{field}={sampling[field]}: this run was not trained with noise "
            "on what it enlarges (model.low_res_noise); leave it 0"
        )
    if level and sigma:
        raise errors.Refusal(
            f"sampling.low_res_t={level} and sampling.low_res_sigma={sigma:g} are both "
            "given: keep one"
        )
    sigmas = deviations(config)
    if level:
        if level >= len(sigmas):
            raise errors.Refusal(
                f"sampling.low_res_t={level}: the process has {len(sigmas) - 1} steps; "
                f"give 0 … {len(sigmas) - 1}"
            )
        return level
    return _nearest(sigmas, sigma)


def _nearest(sigmas, sigma) -> int:
    """Return the level whose deviation is the nearest to one above 0."""
    level = int(np.argmin(np.abs(sigmas - sigma)))
    if level and sigma <= sigmas[-1] * SHOWN_EXACTLY:
        return level
    raise errors.Refusal(
        f"sampling.low_res_sigma={sigma:g}: the deviations of the process's noise are "
        f"{sigmas[1]:.3g} … {sigmas[-1]:.3g}; give one of them, or 0 for no noise"
    )


def deviations(config) -> np.ndarray:
    """Return √(1/ᾱ − 1) of every level of noise, [T + 1]: of the noise over the image.

    Args:
        config: of the run.
    """
    alpha_bar = np.concatenate([[1.0], build_process.schedule(config).alpha_bar])
    with np.errstate(divide="ignore"):
        return np.sqrt(1 / alpha_bar - 1)


def described(config, one: Given) -> list[str]:
    """Return what is enlarged, in a line each.

    Args:
        config: of the run.
        one: from `given`.
    """
    height, width, _ = one.source.shape
    lines = [f"enlarging images of {height}x{width} from {one.source.name}"]
    if one.level:
        lines.append(
            f"noise on them: t = {one.level} of {config.diffusion.num_steps} steps, "
            f"deviation {deviations(config)[one.level]:.3g} of the noise over the "
            "image's scale (larger trusts them less)"
        )
    return lines


# ---- pictures ------------------------------------------------------------------------


def check_size(config, facts: DataInfo, shape, where: str) -> None:
    """Refuse small images of another size or number of channels.

    Args:
        config, facts: of the upsampler.
        shape: (h, w, C) of the small images.
        where: whose they are, for the sentence.

    Raises:
        Refusal: names both.
    """
    height, width, channels = facts.shape
    if shape[2] != channels:
        raise errors.Refusal(
            f"{where} has images of {shape[2]} channels and the upsampler enlarges "
            f"images of {channels}: give images of {channels}"
        )
    size = low_res_size(config, facts)
    if size is True:  # an imported one does not say
        factor = height // shape[0]
        fits = factor > 1 and (shape[0] * factor, shape[1] * factor) == (height, width)
        good = f"images whose sides are a whole fraction of {height}x{width}"
    else:
        fits, good = tuple(shape[:2]) == size, f"images of {size[0]}x{size[1]}"
    if not fits:
        raise errors.Refusal(
            f"{where} has images of {shape[0]}x{shape[1]} and the upsampler makes "
            f"{height}x{width}: give {good}"
        )


def check_classes(facts: DataInfo, names, where: str) -> None:
    """Refuse small images of another list of classes.

    Names that are numbers alone are of imported runs and archives: their count decides.

    Args:
        facts: of the upsampler.
        names: of their classes.
        where: whose they are.

    Raises:
        Refusal: names both lists.
    """
    ours, theirs = facts.class_names, tuple(names)
    numbered = any(list(n) == [str(i) for i in range(len(n))] for n in (ours, theirs))
    if len(ours) != len(theirs) or (ours != theirs and not numbered):
        raise errors.Refusal(
            f"{where} is of the classes {some(theirs)} and the upsampler of "
            f"{some(ours)}: they must be the same, in the same order"
        )


def of_pictures(
    config, facts: DataInfo, pictures: given_images.GivenImages, path: str
) -> Source:
    """Return the source of a user's pictures, from a file, a folder or an array.

    Args:
        config, facts: of the upsampler.
        pictures: what was read.
        path: where, for sentences.

    Raises:
        Refusal: pictures or labels that the upsampler does not take.
    """
    where = f"sampling.low_res={path}"
    check_size(config, facts, pictures.images.shape[1:], where)
    labels = None
    if config.model.class_conditional and pictures.labels is not None:
        labels = _labels_for(facts, pictures, where)
        for field in ("labels", "per_class"):
            if config.sampling[field]:
                raise errors.Refusal(
                    f"sampling.{field}={config.sampling[field]!r}: {path} says of "
                    "which class each of its images is; leave it out"
                )

    def of(index):
        found = {KEY: images_lib.from_stored(pictures.images[index])}
        return found if labels is None else {**found, LABEL: labels[index]}

    return Source(
        name=given_images.described(path),
        fingerprint=pictures.fingerprint,
        shape=pictures.images.shape[1:],
        count=len(pictures.images),
        of=of,
        carried=frozenset() if labels is None else frozenset([LABEL]),
    )


def _labels_for(facts, pictures, where):
    """Return labels of pictures as indices of the upsampler's classes."""
    if pictures.class_names:
        unknown = sorted(set(pictures.class_names) - set(facts.class_names))
        if unknown:
            raise errors.Refusal(
                f"{where} has a folder {unknown[0]!r} and the upsampler the classes "
                f"{some(facts.class_names)}: name the folders after classes, or put "
                "all images into one and give sampling.labels"
            )
        known = [facts.class_names.index(name) for name in pictures.class_names]
        return np.array(known, np.int32)[pictures.labels]
    wrong = (pictures.labels < 0) | (pictures.labels >= facts.num_classes)
    if wrong.any():
        raise errors.Refusal(
            f"{where} has the label {pictures.labels[wrong][0]} and the upsampler "
            f"{facts.num_classes} classes: give labels of 0 … {facts.num_classes - 1}"
        )
    return pictures.labels.astype(np.int32)


def of_dataset(dataset: dataset_lib.Dataset, *, repeats: int = 1) -> Source:
    """Return the small versions of images of the data, in turn.

    What else the data gives goes along.

    Args:
        dataset: with small versions, see `data.low_res`.
        repeats: images that enlarge one before the next one's turn.
    """
    carried = frozenset(dataset.fetch([0])) - {"image", KEY, LEVEL}

    def of(index):
        found = dataset.fetch(index // repeats % len(dataset))
        return {key: found[key] for key in (KEY, *carried)}

    height, width, channels = dataset.shape
    factor = dataset.derive.factor
    return Source(
        name=f"{dataset.name}-{dataset.split}",
        fingerprint=hashlib.sha256(
            f"{dataset.fingerprint()} {repeats}".encode()
        ).hexdigest(),
        shape=(height // factor, width // factor, channels),
        count=None,
        of=of,
        carried=carried,
    )


def stage_seed(seed: int, shape) -> int:
    """Return the seed of an upsampler's draws, 0 … 2³²−1.

    The runs of a cascade usually have one sampling.seed. Without this the noise of
    image i in one stage would be that of image i in the one before, as far as it goes.

    Args:
        seed: sampling.seed.
        shape: of the images that are made, another in each stage.
    """
    return zlib.crc32(f"upsampler {list(shape)} {seed}".encode())


def expanded(path: str) -> str:
    """Return a path with the home folder for "~"."""
    return str(pathlib.Path(path).expanduser())


def some(names) -> str:
    """Return the first names of classes, and how many there are if more."""
    shown = ", ".join(names[:4]) or "none"
    return f"{shown}, … ({len(names)})" if len(names) > 4 else shown
