"""Classes asked for: names first, indices second, and no other class in silence."""

import numpy as np
import pytest

from ddpm_jax.builders import class_labels
from ddpm_jax.core import errors

DIGITS = tuple("0123456789")
FROM_ONE = ("1", "2", "3")
PETS = ("cat, black", "dog", "golden retriever")
PADDED = ("001", "002", "003")
QUOTED = ('"x"', "[a]", "it's")


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ((3,), DIGITS, (3,)),
        (("3",), DIGITS, (3,)),
        ((3, "7"), DIGITS, (3, 7)),
        (("3,7",), DIGITS, (3, 7)),
        ((" 3 , 7 ",), DIGITS, (3, 7)),
        # A name where the index does not exist, and the other way round.
        ((3,), FROM_ONE, (2,)),
        (("3",), FROM_ONE, (2,)),
        ((0,), FROM_ONE, (0,)),
        (("name:1",), FROM_ONE, (0,)),
        (("index:1",), FROM_ONE, (1,)),
        (("name:1,index:1,3",), FROM_ONE, (0, 1, 2)),
        # Blanks, commas and quotes.
        (("cat, black",), PETS, (0,)),
        (("cat, black", "dog"), PETS, (0, 1)),
        (('"cat, black",dog',), PETS, (0, 1)),
        (("'cat, black', golden retriever",), PETS, (0, 2)),
        (("name:cat, black",), PETS, (0,)),
        (("2,dog",), PETS, (2, 1)),
        (('"x"',), QUOTED, (0,)),
        (("""'"x"',[a],it's""",), QUOTED, (0, 1, 2)),
        # What Python would read as something else.
        (("001",), PADDED, (0,)),
        (("002,003",), PADDED, (1, 2)),
        ((1,), PADDED, (1,)),
        (("True,False",), ("False", "True"), (1, 0)),
        (("1e3,None",), ("1e3", "None"), (0, 1)),
        # The whole text is a name before its parts are.
        (("a,b",), ("a", "a,b", "b"), (1,)),
        (('"a","b"',), ("a", "a,b", "b"), (0, 2)),
        (("name:x",), ("name:x", "x"), (0,)),
    ],
)
def test_the_class_asked_for_is_found(labels, names, expected):
    assert class_labels.indices(labels, names) == expected


@pytest.mark.parametrize("label", [1, "1", "3,1", np.int64(1)])
def test_a_name_that_is_the_index_of_another_class_is_refused(label):
    with pytest.raises(errors.Refusal) as refused:
        class_labels.indices((label,), FROM_ONE)
    for part in ("sampling.labels", "index 0", "'2'", "name:1 or index:1"):
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("label", "names", "sentence"),
    [
        (4, FROM_ONE, "label 4 is out of range: choose 0 … 2 (1, 2, 3)"),
        ("index:3", FROM_ONE, "label 3 is out of range: choose 0 … 2 (1, 2, 3)"),
        ("name:0", FROM_ONE, "unknown class '0': choose among 1, 2, 3"),
        ("007", DIGITS, "unknown class '007'"),
        ("dog,cat", PETS, "unknown class 'cat': choose among \"cat, black\", dog"),
        (",", PETS, "unknown class ','"),
        ("", PETS, "unknown class ''"),
    ],
)
def test_what_is_no_class_is_refused(label, names, sentence):
    with pytest.raises(errors.Refusal) as refused:
        class_labels.indices((label,), names)
    assert str(refused.value).startswith(f"sampling.labels: {sentence}")


def test_classes_are_told_by_name():
    assert class_labels.described((0,), FROM_ONE) == "1"
    assert class_labels.described((2, 0), FROM_ONE) == "3, 1 in turn"
    assert class_labels.described((0,), PETS) == "cat, black"
    assert class_labels.described((0, 1), PETS) == '"cat, black", dog in turn'
    many = tuple(f"c{i}" for i in range(1000))
    told = class_labels.described(tuple(range(1000)), many)
    assert told == "c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, … (1000) in turn"


def test_texts_are_listed_as_earlier_versions_stored_them():
    assert class_labels.listed(("3,7",)) == class_labels.listed((3, 7)) == (3, 7)
    assert class_labels.listed(("cat,dog",)) == ("cat", "dog")
    assert class_labels.listed(()) == ()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("1", "10", "2"), ["1 is 0", "10 is 1", "2 is 2"]),
        (("0", "1", "2"), []),
        (("cat", "7"), []),
        ((), []),
    ],
)
def test_names_that_are_numbers_are_told(names, said):
    remark = class_labels.remark(names)
    assert bool(remark) == bool(said)
    assert [word for word in said if word not in remark] == []
