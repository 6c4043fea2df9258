"""What is given to an edit is refused before anything is opened, where it can be."""

import types

import numpy as np
import pytest

from ddpm_jax import config as config_lib
from ddpm_jax.core import errors
from ddpm_jax.editing import inpainting, likeliest, plans
from ddpm_jax.runtime.console import say

STORED = np.zeros((2, 4, 4, 1), np.uint8)
PICTURES = plans.Given(("one.png", "two.png"), "word", STORED)
HALF = np.arange(4) < 2
HOLE = np.tile(HALF, (4, 1))


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_holes_are_bool_or_zeros_and_ones(kind):
    made = inpainting.with_holes(PICTURES, HOLE.astype(kind))
    assert made.holes.dtype == bool
    np.testing.assert_array_equal(made.holes, [HOLE, HOLE])
    listed = inpainting.with_holes(PICTURES, HOLE.astype(kind).tolist())
    np.testing.assert_array_equal(listed.holes, made.holes)


@pytest.mark.parametrize(
    ("holes", "words"),
    [
        (HOLE & False, r"one\.png has no pixels"),
        (HOLE | True, r"one\.png has all pixels"),
        ([HOLE, HOLE & False], r"two\.png has no pixels"),
        ([HOLE | True, HOLE], r"one\.png has all pixels"),
        (np.where(HOLE, np.nan, 0), "nan"),
        (HOLE * 255, "255.*0 and 1"),
        (HOLE * 0.5, r"0\.5.*0 and 1"),
        (-HOLE.astype(int), "-1"),
        (np.where(HOLE, "yes", "no"), "type.*0 and 1"),
        (HOLE.astype(object), "type object"),
        ([[True, False], [True]], "several shapes"),
        ([], "shape"),
    ],
)
def test_other_holes_are_refused(holes, words):
    with pytest.raises(errors.Refusal, match=words):
        inpainting.with_holes(PICTURES, holes)


def test_ragged_pictures_are_refused():
    facts = types.SimpleNamespace(shape=(4, 4, 1), levels=256)
    with pytest.raises(errors.Refusal, match="pictures are of several shapes"):
        plans.from_arrays([STORED[0], STORED[1, :2]], facts)


# ---- the likeliest class -------------------------------------------------------------


def asked(*, sampling=(), editing=()):
    config = config_lib.base()
    config.model.class_conditional = True
    config.sampling.labels, config.editing.image_labels = sampling, editing
    return config


def facts_of(classes):
    return types.SimpleNamespace(class_names=classes)


def not_opened(config, shape):
    raise AssertionError("opened, and scored, before it was refused")


def test_what_no_class_permits_is_refused_before_classes_are_scored(capsys):
    def make(config, facts, given):
        say("a line of the plan")
        raise errors.Refusal(f"labels={config.sampling.labels[0]}: not with this")

    config = asked(sampling=("likeliest",))
    with pytest.raises(errors.Refusal, match="labels=likeliest: not"):
        plans.planned(make, config, facts_of(("a", "b")), PICTURES, not_opened)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("label", ["index:0", "index:1", "index:2"])
def test_a_class_that_is_given_for_the_results_is_no_hindrance(label):
    """An encoder refuses pictures that are of the class of the results already."""

    class Opened(Exception):
        pass

    def make(config, facts, given):
        if config.editing.image_labels == config.sampling.labels:
            raise errors.Refusal("no other class")

    def opening(config, shape):
        raise Opened

    config = asked(sampling=(label,), editing=("likeliest",))
    with pytest.raises(Opened):
        plans.planned(make, config, facts_of(("a", "b", "c")), PICTURES, opening)


def test_one_class_has_no_likeliest():
    config = asked(sampling=("likeliest",))
    with pytest.raises(errors.Refusal, match=r"one class, dog.*name it"):
        likeliest.check(config, facts_of(("dog",)), PICTURES)
