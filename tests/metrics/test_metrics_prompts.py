"""Counting what captions say and images show, against pictures that are drawn."""

import numpy as np
import pytest
from scipy import stats

from ddpm_jax.data import shape_captions as captions
from ddpm_jax.data import shape_pictures as pictures
from ddpm_jax.data import shape_scenes as scenes
from ddpm_jax.data import sources
from ddpm_jax.data.dataset import Request
from ddpm_jax.metrics import prompts

SIDE = 16


def picture(*things):
    cells = scenes.cells(tuple(scenes.Thing(*thing) for thing in things))
    return pictures.render(cells[None], SIDE)[0]


@pytest.mark.parametrize(("hits", "count"), [(0, 5), (3, 7), (950, 1000), (40, 40)])
def test_the_interval_is_wilsons(hits, count):
    found = prompts.wilson(hits, count)
    known = stats.binomtest(hits, count).proportion_ci(0.95, method="wilson")
    assert found.share == hits / count
    assert found.count == count
    np.testing.assert_allclose([found.low, found.high], [known.low, known.high], 1e-6)


def test_a_share_of_nothing_is_none():
    assert prompts.wilson(0, 0).share is None


def test_shares_count_what_the_captions_name():
    said = [
        "a red circle",
        "a red circle",
        "a red circle above a blue square",
        "a small shape in the middle",
    ]
    images = np.stack(
        [
            picture(("circle", "red", "big", 0)),
            picture(("circle", "blue", "big", 0)),  # colour wrong
            picture(("square", "blue", "big", 0), ("circle", "red", "big", 8)),  # below
            picture(("cross", "white", "small", 4), ("cross", "white", "small", 5)),
        ]
    )
    found = prompts.agreement(said, images)
    assert found.whole[::3] == (0.25, 4)
    assert found.by_number["one_object"][::3] == (1 / 3, 3)
    assert found.by_number["two_objects"][::3] == (0, 1)
    shares = {name: (one.share, one.count) for name, one in found.by_attribute.items()}
    assert shares == {
        "number": (0.75, 4),
        "colour": (2 / 3, 3),
        "kind": (1, 3),
        "size": (1, 1),
        "relation": (0, 1),
        "place": (1, 1),
    }
    assert found.distance < 1


@pytest.mark.parametrize("split", ["test", "unseen"])
@pytest.mark.parametrize("noise", [0, 8])
def test_real_images_show_their_captions(split, noise):
    dataset = sources.load("shapes", split)
    indices = np.arange(400)
    images = (dataset.fetch(indices)["image"] + 1) * 127.5
    images += noise * np.random.default_rng(0).standard_normal(images.shape)
    images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    said = dataset.captions(indices)
    assert prompts.agreement(said, images).whole.share >= 0.995
    others = [*said[1:], said[0]]
    assert prompts.agreement(others, images).whole.share < 0.2


def test_swapped_captions_differ_in_one_colour_and_stay_seen():
    said = sources.load("shapes", "test").captions(np.arange(300))
    pairs = prompts.swaps(said)
    assert len(pairs) > 150
    articles = {"a", "an"}
    for before, after in pairs:
        changed = [
            (one, other)
            for one, other in zip(before.split(), after.split(), strict=True)
            if one != other and not {one, other} <= articles
        ]
        assert len(changed) == 1
        assert {*changed[0]} <= {*scenes.COLOURS}
        assert not captions.names_unseen(after)
    assert prompts.swaps(["a big circle"]) == []


def test_what_a_swap_changes_is_told_apart():
    pairs = [prompts.Swapped("a red circle", "a blue circle")] * 3
    red = ("circle", "red", "big", 0)
    before = np.stack([picture(red)] * 3)
    after = np.stack(
        [
            picture(("circle", "blue", "big", 0)),  # as asked
            picture(("circle", "blue", "big", 5)),  # it moved
            picture(("circle", "green", "big", 0)),  # another colour
        ]
    )
    found = prompts.swap_effect(pairs, before, after)
    assert found["asked"][::3] == (2 / 3, 3)
    assert found["both"][::3] == (2 / 3, 3)
    assert found["stayed"][::3] == (0.5, 2)


def test_captions_of_other_data_are_refused():
    request = Request(image_size=(SIDE, SIDE))
    image = sources.SOURCES["shapes"]("test", request).fetch([0])["image"]
    with pytest.raises(Exception, match="unknown word 'corgi'"):
        prompts.agreement(["a corgi"], image)
