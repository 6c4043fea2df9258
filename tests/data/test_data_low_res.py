"""Small versions of images: exact means, the same noise wherever a batch begins."""

import dataclasses

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import low_res, order, pipeline, sources

ALPHA_BAR = np.cumprod(1 - np.linspace(0.01, 0.3, 20))


def test_the_mean_of_every_block():
    images = np.arange(2 * 4 * 6 * 1, dtype=np.float64).reshape(2, 4, 6, 1)
    found = low_res.area_mean(images, 2)[0, ..., 0]
    # Of rows of 6: block (r, c) holds 12r + 2c + {0, 1, 6, 7}.
    wanted = [[12 * r + 2 * c + 3.5 for c in range(3)] for r in range(2)]
    np.testing.assert_array_equal(found, wanted)


def test_it_is_the_area_interpolation_of_torch():
    torch = pytest.importorskip("torch")
    images = np.random.default_rng(0).normal(size=(3, 8, 12, 3)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(images.transpose(0, 3, 1, 2)), scale_factor=0.25, mode="area"
    )
    found = low_res.area_mean(images, 4)
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "factor", "words"),
    [
        ((8, 6, 1), 4, "images of 8x6 have no means of blocks of 4x4"),
        ((8, 8, 1), 1, "divisor of both sides, from 2 on"),
        ((20, 1), 2, "no image"),
    ],
)
def test_a_factor_that_does_not_divide(shape, factor, words):
    with pytest.raises(errors.Refusal, match=words):
        low_res.check_factor(shape, factor)


@pytest.mark.parametrize("side", [4, 2])
def test_smaller_digits_are_means_of_the_digits(side):
    whole = sources.load("digits", "test").fetch(np.arange(5))
    small = sources.load("digits", "test", image_size=(side,))
    assert small.shape == (side, side, 1)
    found = small.fetch(np.arange(5))
    factor = 8 // side
    blocks = whole["image"].reshape(5, side, factor, side, factor, 1)
    np.testing.assert_array_equal(found["image"], blocks.mean(axis=(2, 4)))
    np.testing.assert_array_equal(found["label"], whole["label"])
    # Every value is one of the levels, which lie evenly on [−1, 1].
    grey = (found["image"] + 1) / 2 * (small.levels - 1)
    np.testing.assert_array_equal(grey, np.round(grey))


def test_digits_have_no_other_sides():
    with pytest.raises(errors.Refusal, match="or give 4 or 2"):
        sources.load("digits", "test", image_size=(3,))


def enlarging(alpha_bar=None):
    digits = sources.load("digits", "train")
    make = low_res.SmallVersions(2, alpha_bar)
    return low_res.with_small_versions(digits, make)


def batch(dataset, step, *, flip=False, start=0, stop=None):
    whole = order.Order(len(dataset), 6, seed=3)
    with pipeline.batches(
        dataset,
        whole,
        first_step=step,
        flip=flip,
        seed=3,
        start=start,
        stop=stop,
        prefetch=1,
    ) as batches:
        return next(batches)[1]


def test_mirrored_images_have_mirrored_small_versions():
    dataset = enlarging()
    plain, mirrored = (batch(dataset, 0, flip=flip) for flip in (False, True))
    changed = np.any(plain["image"] != mirrored["image"], axis=(1, 2, 3))
    assert 0 < changed.sum() < 6
    wanted = np.where(
        changed[:, None, None, None], plain["low_res"][:, :, ::-1], plain["low_res"]
    )
    np.testing.assert_array_equal(mirrored["low_res"], wanted)


def test_level_and_noise_of_an_image_depend_on_its_place_alone():
    dataset = enlarging(ALPHA_BAR)
    whole, part = batch(dataset, 4), batch(dataset, 4, start=2, stop=5)
    for key in ("low_res", "low_res_level"):
        np.testing.assert_array_equal(part[key], whole[key][2:5])
    assert not np.array_equal(whole["low_res"], batch(dataset, 5)["low_res"])


def test_levels_are_uniform_and_the_noise_is_that_of_the_process():
    images = np.zeros((8000, 4, 4, 1), np.float32)
    made = low_res.SmallVersions(2, ALPHA_BAR)(images, (0, 10**12))
    level = made["low_res_level"]
    counts = np.bincount(level, minlength=21)
    assert counts.size == 21
    assert np.abs(counts - 8000 / 21).max() < 5 * np.sqrt(8000 / 21)
    assert np.all(made["low_res"][level == 0] == 0)
    for k in (1, 10, 20):
        noise = made["low_res"][level == k]
        deviation = np.sqrt(1 - ALPHA_BAR[k - 1])
        assert abs(noise.std() / deviation - 1) < 5 / np.sqrt(2 * noise.size)


def test_what_is_looked_at_has_no_noise():
    made = enlarging(ALPHA_BAR).fetch(np.arange(3))
    np.testing.assert_array_equal(made["low_res_level"], 0)
    np.testing.assert_array_equal(made["low_res"], low_res.area_mean(made["image"], 2))
    assert enlarging().fetch([0]).keys() == {"image", "label", "low_res"}


def test_what_is_derived_takes_no_name_of_image_or_label():
    dataset = dataclasses.replace(
        enlarging(), derive=lambda image, draws=None: {"label": image[:, 0, 0, 0]}
    )
    assert dataset.fetch([0])["label"].dtype == np.int32
