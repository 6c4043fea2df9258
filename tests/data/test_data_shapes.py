"""Pictures of scenes, the scenes of each split, and reading scenes from pictures."""

import itertools
import math
import time

import numpy as np
import pytest

from ddpm_jax.core import errors
from ddpm_jax.data import shape_pictures as pictures
from ddpm_jax.data import shape_scenes as scenes
from ddpm_jax.data import sources

MANY = 20_000
SIDES = (16, 17, 24, 32, 64)


def seen_by_definition(things):
    """The rule of what training never shows, spelt out."""
    never = {
        *(("green", "triangle"), ("purple", "circle")),
        *(("yellow", "square"), ("white", "cross")),
    }
    if any((thing.colour, thing.kind) in never for thing in things):
        return False
    return not any(
        a.cell // 3 < b.cell // 3
        and (a.kind, b.kind) in {("triangle", "circle"), ("cross", "square")}
        for a in things
        for b in things
    )


@pytest.fixture(scope="module")
def drawn():
    return {split: scenes.drawn(0, split, np.arange(MANY)) for split in scenes.SPLITS}


# ---- scenes --------------------------------------------------------------------------


def test_training_never_shows_what_is_unseen(drawn):
    for split in ("train", "test"):
        for cells in np.unique(drawn[split], axis=0):
            assert seen_by_definition(scenes.scene(cells))
    for cells in np.unique(drawn["unseen"], axis=0):
        assert not seen_by_definition(scenes.scene(cells))


def test_no_scene_is_in_two_splits(drawn):
    other = scenes.drawn(1, "train", np.arange(MANY))
    found = [set(map(bytes, drawn[split])) for split in scenes.SPLITS]
    found[0] |= set(map(bytes, other))
    for first, second in itertools.combinations(found, 2):
        assert not first & second


def test_scenes_are_functions_of_seed_split_and_index(drawn):
    some = np.array([19_999, 0, 7, 7])
    np.testing.assert_array_equal(scenes.drawn(0, "train", some), drawn["train"][some])
    assert (scenes.drawn(1, "train", np.arange(99)) != drawn["train"][:99]).any(1).all()
    assert scenes.drawn(0, "train", np.arange(0)).shape == (0, 9)
    # Runs were trained on these: they never change.
    assert [scenes.scene(cells) for cells in drawn["train"][:2]] == [
        (("triangle", "white", "small", 0), ("circle", "yellow", "small", 2)),
        (("circle", "yellow", "small", 5),),
    ]


def test_every_seen_combination_and_every_place_is_trained_on(drawn):
    cells = drawn["train"]
    count = (cells > 0).sum(1)
    assert set(count) == {1, 2}
    assert 0.3 < np.mean(count == 1) < 0.45
    looks = {(*scenes.named(code),) for code in np.unique(cells) if code}
    unseen = {(kind, colour) for colour, kind in scenes.UNSEEN_PAIRS}
    expected = set(itertools.product(scenes.KINDS, scenes.COLOURS, scenes.SIZES))
    assert looks == {look for look in expected if look[:2] not in unseen}
    share = (cells > 0).mean(0) / count.mean() * 9
    np.testing.assert_allclose(share, 1, atol=0.06)
    above = set()
    for row in cells[count == 2]:
        first, second = scenes.scene(row)
        if first.row < second.row:
            above.add((first.kind, second.kind))
    assert len(above) == 16 - len(scenes.UNSEEN_ABOVE)
    assert not above & set(scenes.UNSEEN_ABOVE)


def test_things_and_cells_are_the_same_scene(drawn):
    for cells in drawn["train"][:200]:
        np.testing.assert_array_equal(scenes.cells(scenes.scene(cells)), cells)
    assert scenes.named(1) == ("circle", "red", "big")
    assert [scenes.code(*scenes.named(code)) for code in range(1, 49)] == [
        *range(1, 49)
    ]


# ---- pictures ------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", scenes.SIZES)
def test_covered_areas_are_those_of_geometry(side, size):
    radius = {"big": 0.45, "small": 0.3}[size] * pictures.templates(side).colours.shape[
        1
    ]
    areas = {
        "circle": math.pi * radius**2,
        "square": 4 * radius**2,
        "triangle": 0.5 * 2 * radius * 1.85 * radius,
        "cross": (2 * 2 * 0.34 * 2 - (2 * 0.34) ** 2) * radius**2,
    }
    background = np.array(pictures.BACKGROUND, float)
    for kind, area in areas.items():
        thing = scenes.Thing(kind, "white", size, 4)
        image = pictures.render(scenes.cells((thing,))[None], side)[0]
        # One channel: 34 is the ground, 244 is white.
        covered = (image[..., 1] - background[1]).sum() / (244 - background[1])
        assert covered == pytest.approx(area, rel=0.03, abs=0.15), kind


@pytest.mark.parametrize("side", SIDES)
def test_a_thing_looks_the_same_in_every_cell_and_stays_in_it(side):
    things = [scenes.Thing("square", "red", "big", cell) for cell in range(9)]
    alone = pictures.render(np.array([scenes.cells((t,)) for t in things]), side)
    marked = alone != np.array(pictures.BACKGROUND, np.uint8)
    assert (marked.any(-1).sum(0) <= 1).all()  # no pixel belongs to two cells
    assert len(set(marked.sum((1, 2, 3)))) == 1
    middles = np.array([np.argwhere(mask).mean(0)[:2] for mask in marked.any(-1)])
    expected = np.array([divmod(cell, 3) for cell in range(9)]) * side / 3 + side / 6
    assert abs(middles + 0.5 - expected).max() <= 1.5
    together = pictures.render(scenes.cells(tuple(things))[None], side)[0]
    ground = np.int64(pictures.BACKGROUND)
    np.testing.assert_array_equal(together, (alone - ground).sum(0) + ground)


def test_colours_in_the_middle_are_the_named_ones():
    for colour, rgb in pictures.RGB.items():
        cells = scenes.cells((scenes.Thing("circle", colour, "small", 8),))
        image = pictures.render(cells[None], 33)[0]
        np.testing.assert_array_equal(image[27, 27], rgb)
        np.testing.assert_array_equal(image[5, 5], pictures.BACKGROUND)


# ---- the reader ----------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
def test_pictures_are_read_exactly(side, drawn):
    cells = np.concatenate([drawn[split][:300] for split in scenes.SPLITS])
    image = pictures.render(cells, side)
    for given in (image, image / 127.5 - 1, (image / 127.5 - 1).astype(np.float32)):
        reading = pictures.read(given)
        np.testing.assert_array_equal(reading.cells, cells)
        assert reading.distance.max() < 0.3  # grey levels: from rounding


@pytest.mark.parametrize("side", [16, 24, 32])
def test_pictures_are_read_after_noise(side, drawn):
    generator = np.random.default_rng(0)
    cells = drawn["test"][:2000]
    image = pictures.render(cells, side)
    noisy = image + 8 * generator.standard_normal(image.shape)
    stored = np.rint(noisy.clip(0, 255)).astype(np.uint8)
    for given, distance in ((noisy / 127.5 - 1, 8), (stored, 8)):
        reading = pictures.read(given)
        assert (reading.cells == cells).all(1).mean() >= 0.995
        np.testing.assert_allclose(reading.distance.mean(), distance, rtol=0.05)


def test_what_shows_no_scene_is_far_from_all():
    noise = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3))
    assert pictures.read(noise).distance.min() > 60
    reading = pictures.read(np.zeros((0, 16, 16, 3), np.float32))
    assert reading.cells.shape == (0, 9)
    assert reading.distance.shape == (0,)


def test_no_two_things_look_nearly_the_same():
    colours = pictures.templates(16).colours.reshape(49, -1)
    apart = np.linalg.norm(colours[:, None] - colours, axis=-1) + 1e9 * np.eye(49)
    assert apart.min() > 140  # grey levels, over all pixels: at noise 8 that is 8.7 σ


# ---- as a source ---------------------------------------------------------------------


@pytest.mark.parametrize("split", scenes.SPLITS)
def test_shapes_are_a_source(split, drawn):
    dataset = sources.load("shapes", split, image_size=(24,))
    batch = dataset.fetch([5, 0, 5])
    assert batch.keys() == {"image", "label"}
    assert batch["image"].dtype == np.float32
    assert batch["image"].shape == (3, *dataset.shape) == (3, 24, 24, 3)
    assert not batch["label"].any()
    levels = (batch["image"] + 1) * 127.5
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-4)
    np.testing.assert_array_equal(
        pictures.read(batch["image"]).cells, drawn[split][[5, 0, 5]]
    )
    assert (dataset.levels, dataset.num_classes) == (256, None)
    assert sources.load("shapes", split).shape == (16, 16, 3)


def test_fingerprints_tell_splits_and_sizes_apart():
    some = [
        sources.load("shapes", split, image_size=(side,)).fingerprint()
        for split in scenes.SPLITS
        for side in (16, 24)
    ]
    assert len(set(some)) == 6
    assert some[0] == sources.load("shapes", "train").fingerprint()


def test_two_thousand_images_a_second():
    dataset = sources.load("shapes", "train")
    dataset.fetch([0])
    start = time.process_time()
    dataset.fetch(np.arange(4000))
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"path": "/data"}, "'/data' has no meaning for shapes"),
        ({"image_size": (8,)}, "image_size=8x8: .* are square, with 16 to 64 pixels"),
        ({"image_size": (128,)}, "image_size=128x128: .* 16 to 64"),
        ({"image_size": (32, 16)}, "image_size=32x16: .* are square"),
        ({"channels": 1}, "channels=1: images of 'shapes' have 3"),
        ({"crop": "random"}, "crop='random': .* are not cut"),
        ({"labels": "folders"}, "labels='folders' has no meaning for shapes"),
        ({"split": "validation"}, "unknown split 'validation': .* train, test, unseen"),
        ({"name": "digits"}, "unknown split 'unseen': choose one of train, test$"),
    ],
)
def test_refusals(options, message):
    arguments = {"name": "shapes", "split": "unseen", **options}
    with pytest.raises(errors.Refusal, match=message):
        sources.load(**arguments)
