"""Data and what a run keeps of it."""

import dataclasses

from ddpm_jax.core import errors
from ddpm_jax.data import images, low_res, sources
from ddpm_jax.data import marks as marks_lib
from ddpm_jax.runtime import console, distributed


@dataclasses.dataclass(frozen=True)
class TextFacts:
    """What a run that reads texts must know of its captions.

    Attributes:
        tokenizer: record of its tokenizer, see `text.tokenizers.from_json`.
        captions: some of the training data, for who gives no prompt.
    """

    tokenizer: dict
    captions: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a run must know of its data once the data is out of reach.

    Attributes:
        shape: of one example: (H, W, C) of images, (20, 1) of sequences, (2,) of
            points.
        levels: number of grey values, evenly spaced from -1 to 1; None for continuous
            data.
        num_examples: of the training split.
        num_classes: None without labels.
        class_names: one name per class.
        fingerprint: changes with the data.
        text: of the captions; None for a run that does not read them.
    """

    shape: tuple[int, ...]
    levels: int | None
    num_examples: int
    num_classes: int | None
    class_names: tuple[str, ...]
    fingerprint: str
    text: TextFacts | None = None

    @property
    def size(self) -> str:
        """What one example is, in words: "8x8x1, 17 levels"."""
        levels = "continuous" if self.levels is None else f"{self.levels} levels"
        return f"{'x'.join(map(str, self.shape))}, {levels}"

    @classmethod
    def of(cls, dataset: sources.Dataset) -> "DataInfo":
        """Return the facts of the training split."""
        return cls(
            shape=tuple(dataset.shape),
            levels=dataset.levels,
            num_examples=len(dataset),
            num_classes=dataset.num_classes,
            class_names=tuple(dataset.class_names),
            fingerprint=dataset.fingerprint(),
        )

    @classmethod
    def from_dict(cls, values: dict) -> "DataInfo":
        """Return the facts stored in a run's config.json, whatever its age.

        What tokenizer.json holds is read by `builders.captions`.
        """
        values = {k: v for k, v in values.items() if k != "tokenizer"}
        values = {_RENAMED.get(name, name): value for name, value in values.items()}
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        if values.get("text"):
            text = values["text"]
            lists["text"] = TextFacts(text["tokenizer"], tuple(text["captions"]))
        return cls(**{**values, **lists})


_RENAMED = {"image_shape": "shape"}  # as older runs call the facts, read for ever


def dataset(
    config, split: str, *, say=console.say, captions: str | None = None
) -> sources.Dataset:
    """Return a split of the configured data.

    Args:
        say: called with a line for each remark about the files.
        captions: instead of data.captions, which only a run that reads text follows:
            captions that nobody reads are no part of a run's data.

    Raises:
        Refusal: unknown source, or data that cannot be used as asked.
    """
    data = config.data
    if captions is None:
        captions = data.captions if config.model.text_layers else "none"
    found = sources.load(
        data.name,
        split,
        path=data.path or None,
        test_fraction=data.test_fraction,
        image_size=tuple(data.image_size),
        channels=data.channels,
        crop=data.crop,
        labels=data.labels,
        captions=captions,
        cache_gib=data.cache_gib,
        say=say,
    )
    if data.flip and not images.is_image(found.shape):
        raise errors.Refusal(
            f"data.flip=True mirrors images [height, width, channels], and one example "
            f"of {found.name!r} is {list(found.shape)}: set data.flip=False"
        )
    return with_small_versions(config, found)


def with_small_versions(config, dataset: sources.Dataset) -> sources.Dataset:
    """Return data with what an upsampler reads, see `data.low_res`.

    The data itself is returned where data.low_res_factor is 0.
    """
    if not config.data.low_res_factor:
        return dataset
    alpha_bar = None
    if config.model.low_res_noise:
        from ddpm_jax.builders import process  # which builds on the facts here

        alpha_bar = process.schedule(config).alpha_bar
    make = low_res.SmallVersions(config.data.low_res_factor, alpha_bar)
    return low_res.with_small_versions(dataset, make)


def check_grey(facts: DataInfo, what: str, instead: str) -> None:
    """Refuse what is defined for grey values alone where the data is continuous.

    Args:
        what: needs them, e.g. "bits per dimension".
        instead: what the user can do.

    Raises:
        Refusal: says so.
    """
    if facts.levels is None:
        raise errors.Refusal(
            f"{what}: the data is continuous and has no grey levels to count or to "
            f"show; {instead}"
        )


def check_pictures(facts: DataInfo, what: str, instead: str) -> None:
    """Refuse what is defined for images of grey values alone; see `check_grey`."""
    if not images.is_image(facts.shape):
        raise errors.Refusal(
            f"{what}: one example of the data is {list(facts.shape)}, no image "
            f"[height, width, channels]; {instead}"
        )
    check_grey(facts, what, instead)


def check_alike(dataset: sources.Dataset, marks=None) -> None:
    """Refuse, on all of several processes, data that is not process 0's.

    Args:
        dataset: the data here.
        marks: of its files, where they are known.

    Raises:
        Refusal: names the process and both fingerprints.
    """
    described = f"{len(dataset)} images, fingerprint {dataset.fingerprint()}"
    if marks:
        described += f", content {marks_lib.digest(marks)}"
    distributed.check_alike(
        {f"the {dataset.split} split of the data": described},
        "give every host the same data",
    )


def check_images(dataset: sources.Dataset, facts: DataInfo) -> None:
    """Refuse images or labels that a run's network does not take.

    Raises:
        Refusal: names both, and the fields that make them alike.
    """
    pair = (tuple(dataset.shape), facts.shape)
    if pair[0] != pair[1] and not all(map(images.is_image, pair)):
        raise errors.Refusal(
            f"one example of {dataset.name!r} is {list(pair[0])} and the run's network "
            f"takes {list(pair[1])}: choose the data that the run was trained on"
        )
    if tuple(dataset.shape) != facts.shape:
        raise errors.Refusal(
            f"the images of {dataset.name!r} are {dataset.shape} (height, width, "
            f"channels) and the run's network takes {facts.shape}: set "
            f"data.image_size={','.join(map(str, facts.shape[:2]))} and "
            f"data.channels={facts.shape[2]}, or choose other data"
        )
    if facts.num_classes and dataset.num_classes != facts.num_classes:
        raise errors.Refusal(
            f"{dataset.name!r} has {dataset.num_classes or 'no'} classes and the run's "
            f"network {facts.num_classes}: choose data.labels and data.path so that "
            "they agree"
        )


def num_test_images(config, there: int) -> int:
    """Return how many of the test images to score.

    Raises:
        Refusal: more than there are.
    """
    asked = config.evaluation.num_images
    if asked > there:
        raise errors.Refusal(
            f"evaluation.num_images={asked}: the test split has {there} images; choose "
            f"1 … {there}, or 0 for all"
        )
    return asked or there
