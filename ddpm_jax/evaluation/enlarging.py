"""Scores of an upsampler on the test images, and a preview with the truth."""

import math
import pathlib
from typing import NamedTuple

import numpy as np

from ddpm_jax.builders import captions, low_res, sample_pictures
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import errors
from ddpm_jax.data import dataset as dataset_lib
from ddpm_jax.data import images as images_lib
from ddpm_jax.evaluation import cards, image_sets
from ddpm_jax.metrics import enlarging, table
from ddpm_jax.runtime import distributed, image_grid
from ddpm_jax.runtime.cluster import shared_disk
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation

FEWEST = 2  # images that have a standard error
NOT_READ = ("labels", "per_class", "low_res")  # of config.sampling
ROWS = 64  # images in memory at a time
DB_PER_SHARE = 10 / math.log(10)  # dB that a relative error of a squared error makes


class Prepared(NamedTuple):
    """What is to be scored.

    Attributes:
        dataset: the test split, with small versions.
        num_images: of it.
        given: what the upsampler enlarges.
        recipe: of the results.
        names: of the metrics.
    """

    dataset: dataset_lib.Dataset
    num_images: int
    given: low_res.Given
    recipe: object
    names: tuple[str, ...]


def prepare(config, facts, names) -> Prepared | None:
    """Return what is to be scored by metrics of upsamplers, None where none is asked.

    Raises:
        Refusal: data without small versions, or settings that the run cannot meet.
    """
    names = tuple(name for name in names if name in table.OF_UPSAMPLERS)
    if not names:
        return None
    if not config.data.low_res_factor:
        raise errors.Refusal(
            f"evaluation.metric={','.join(names)} with data.low_res_factor=0: this "
            "imported upsampler does not say how much it enlarges; give the factor"
        )
    _check_settings(config, names)
    build_data.check_grey(facts, names[0], "leave it out")
    dataset = captions.test_split(config, facts)
    source = low_res.of_dataset(dataset, repeats=config.evaluation.draws)
    given = low_res.given(config, facts, source)
    count = build_data.num_test_images(config, len(dataset))
    if count < FEWEST:
        raise errors.Refusal(
            f"evaluation.metric={','.join(names)} of {count} test image: the error of "
            f"a mean needs at least {FEWEST}; set evaluation.num_images, 0 for all"
        )
    return Prepared(
        dataset,
        count,
        given,
        build_sampling.recipe(config, facts, given=given),
        names,
    )


def _check_settings(config, names) -> None:
    """Refuse settings of other images than small versions of the test images."""
    for field in NOT_READ:
        value = config.sampling[field]
        if value:
            shown = value if isinstance(value, int) else ",".join(map(str, value))
            raise errors.Refusal(
                f"sampling.{field}={shown}: {' and '.join(names)} are of the test "
                "images, enlarged from their small versions with their own labels; "
                f"leave it out, or give --config.sampling.{field}="
                f"{0 if isinstance(value, int) else ''} where the run's own config "
                "has it"
            )


def score(trained, prepared: Prepared) -> bool:
    """Write the cards of an upsampler unless they are there.

    Args:
        trained: the run, on its devices.
        prepared: from `prepare`.

    Returns:
        Whether to go on; False after a request to stop.
    """
    config, recipe = trained.config, prepared.recipe
    weights = trained.chosen_weights("sampling.weights")
    paths = _paths(trained, prepared, recipe.tag(weights))
    if cards.exist(*paths.values()):
        return True
    times, count = config.evaluation.draws, prepared.num_images
    say(f"{count} test images, {times} draws of each")
    store = generation.open_store(trained.run_dir.samples, recipe, weights)
    made_by = build_sampling.make_sampler(
        recipe,
        config,
        trained.network,
        trained.mesh,
        weights=weights,
        given=prepared.given,
    )
    if not generation.generate_until(
        store,
        made_by,
        weights,
        count * times,
        batch_size=config.sampling.batch_size,
        levels=trained.facts.levels,
    ):
        return False
    if distributed.is_first():
        shared_disk.wait_until(lambda: store.is_finished(count * times), store.archive)
        found, shown = _measured(store, prepared, times, trained.facts.levels)
        _write(trained, prepared, recipe.as_dict(weights), found, paths)
        path = store.folder / sample_pictures.PREVIEW
        image_grid.write_png(path, shown)
        say(f"preview: {path}")
    distributed.barrier("the cards of an upsampler")
    return True


def _paths(trained, prepared, tag) -> dict[str, pathlib.Path]:
    data = image_sets.hash_of(prepared.dataset, trained.config.data.crop)
    draws = f"{prepared.num_images}x{trained.config.evaluation.draws}"
    end = f"{tag}-{draws}-{cards.short_hash(data)}.json"
    return {n: trained.run_dir.evaluation / f"{n}_{end}" for n in prepared.names}


def _measured(store, prepared, times, levels):
    """Return the errors of all images, and the preview of the first."""
    parts, shown, first = [], None, 0
    for draws in _by_image(store.rows(prepared.num_images * times), times):
        batch = prepared.dataset.fetch(np.arange(first, first + len(draws)))
        small, truth = batch[low_res.KEY], batch["image"]
        parts.append(enlarging.errors_of(draws, small, truth, levels))
        if shown is None:
            few = draws[: sample_pictures.SHOWN]
            shown = sample_pictures.preview(small, few, truth)
        first += len(draws)
    return enlarging.Errors(*map(np.concatenate, zip(*parts, strict=True))), shown


def _by_image(rows, times):
    """Yield float32 [n, times, H, W, C] of stored draws, those of an image in a row."""
    left = []
    for part in rows:
        left += list(images_lib.from_stored(part))
        while len(left) >= ROWS * times:
            ready, left = left[: ROWS * times], left[ROWS * times :]
            yield np.stack(ready).reshape(-1, times, *ready[0].shape)
    if left:
        yield np.stack(left).reshape(-1, times, *left[0].shape)


def _write(trained, prepared, settings, found: enlarging.Errors, paths) -> None:
    """Write and print the cards."""
    config, times = trained.config, found.draw.shape[1]
    value = {
        table.PSNR: enlarging.psnr(found.mean),
        table.CONSISTENCY: float(found.within.mean()),
    }
    error = {
        table.PSNR: _error_of(found.mean) / found.mean.mean() * DB_PER_SHARE,
        table.CONSISTENCY: _error_of(found.within),
    }
    details = {
        table.PSNR: {
            "single_draw": enlarging.psnr(found.draw),
            "bicubic": enlarging.psnr(found.bicubic),
        },
        table.CONSISTENCY: {"largest_deviation": float(found.deviation.max())},
    }
    notes = {
        table.PSNR: [
            f"of the mean of {times} draws; a single draw is no estimate of the image "
            "and has a lower one"
        ],
        table.CONSISTENCY: [
            "share of the small pixels that the area mean of the result keeps within "
            "one grey level of the data"
        ],
    }
    protocol = {
        **{"sampler" if k == "method" else k: v for k, v in settings.items()},
        "data": config.data.name,
        "split": "test",
        "num_images": len(found.mean),
        "draws": times,
        "low_res_factor": config.data.low_res_factor,
        "data_fingerprint": prepared.dataset.fingerprint(),
        "image_shape": prepared.dataset.shape,
        "levels": trained.facts.levels,
        "crop": image_sets.crop_of(config.data.crop),
        "dtype": config.model.dtype,
    }
    for name, path in paths.items():
        cards.write(
            path,
            metric=name,
            value=value[name],
            unit="dB" if name == table.PSNR else "",
            standard_error=error[name],
            details=details[name],
            protocol=protocol,
            notes=notes[name],
        )
        more = ", ".join(f"{k} {v:.4f}" for k, v in details[name].items())
        say(f"{name} {cards.measured(value[name], error[name])} ({more})")
        say(f"card: {path}")


def _error_of(values) -> float:
    """Return the standard error of a mean of independent values."""
    return float(np.std(values, ddof=1) / math.sqrt(len(values)))
