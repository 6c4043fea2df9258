"""Data and what a run keeps of it."""

import dataclasses

from ddpm_jax.core import errors
from ddpm_jax.data import sources
from ddpm_jax.runtime import console, distributed


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """What a run must know of its data once the data is out of reach."""

    image_shape: tuple[int, int, int]
    levels: int
    num_examples: int
    num_classes: int | None
    class_names: tuple[str, ...]
    fingerprint: str

    @classmethod
    def of(cls, dataset: sources.Dataset) -> "DataInfo":
        """Return the facts of the training split."""
        return cls(
            image_shape=tuple(dataset.image_shape),
            levels=dataset.levels,
            num_examples=len(dataset),
            num_classes=dataset.num_classes,
            class_names=tuple(dataset.class_names),
            fingerprint=dataset.fingerprint(),
        )

    @classmethod
    def from_dict(cls, values: dict) -> "DataInfo":
        """Return the facts stored in a run's config.json."""
        lists = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return cls(**{**values, **lists})


def dataset(config, split: str, *, say=console.say) -> sources.Dataset:
    """Return a split of the configured data.

    Args:
        say: told, a line each, what was noticed about the files.

    Raises:
        Refusal: unknown source, or data that cannot be used as asked.
    """
    data = config.data
    return sources.load(
        data.name,
        split,
        path=data.path or None,
        test_fraction=data.test_fraction,
        image_size=tuple(data.image_size),
        channels=data.channels,
        crop=data.crop,
        labels=data.labels,
        cache_gib=data.cache_gib,
        say=say,
    )


def check_alike(dataset: sources.Dataset) -> None:
    """Refuse, on all of several processes, data that is not process 0's.

    Raises:
        Refusal: names the process and both fingerprints.
    """
    told = f"{len(dataset)} images, fingerprint {dataset.fingerprint()}"
    distributed.check_alike(
        {f"the {dataset.split} split of the data": told},
        "give every host the same data",
    )


def check_images(dataset: sources.Dataset, facts: DataInfo) -> None:
    """Refuse images or labels that a run's network does not take.

    Raises:
        Refusal: names both, and the fields that make them alike.
    """
    if tuple(dataset.image_shape) != facts.image_shape:
        raise errors.Refusal(
            f"the images of {dataset.name!r} are {dataset.image_shape} (height, width, "
            f"channels) and the run's network takes {facts.image_shape}: set "
            f"data.image_size={','.join(map(str, facts.image_shape[:2]))} and "
            f"data.channels={facts.image_shape[2]}, or choose other data"
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
