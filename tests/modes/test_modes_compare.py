"""Comparing cards: sorted with uncertainty, unlike protocols refused by name."""

import json
import re

import pytest

from ddpm_jax.core import errors
from ddpm_jax.modes import compare

PROTOCOL = {
    "data": "digits",
    "split": "test",
    "num_images": 360,
    "steps": 200,
    "respacing": "",
    "weights": "ema",
    "seed": 0,
    "checkpoint": 1000,
    "data_fingerprint": "ab" * 32,
    "versions": {"jax": "0.10.0"},
    "notes": [],
}
BITS = {"metric": "bits_per_dim", "unit": "bits/dim"}


@pytest.fixture
def card(tmp_path):
    """Return a function that writes a card and returns its path."""

    def write(name, value, error=0.02, *, protocol=None, **fields):
        content = {**BITS, "value": value, "standard_error": error, **fields}
        content["protocol"] = PROTOCOL | (protocol or {})
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(content))
        return str(path)

    return write


@pytest.fixture
def compared(capsys):
    """Return a function: paths → the lines that were said."""

    def run(*paths):
        capsys.readouterr()
        compare.run(paths)
        return capsys.readouterr().out.splitlines()

    return run


def refusal(*paths):
    with pytest.raises(errors.Refusal) as caught:
        compare.run(paths)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- the table -----------------------------------------------------------------------


def test_the_lowest_bits_come_first_with_differences_and_their_errors(card, compared):
    paths = [
        card("late", 2.50, 0.03, protocol={"checkpoint": 3000}),
        card("near", 2.35, 0.04, protocol={"checkpoint": 2000}),
        card("best", 2.30, 0.03, protocol={"checkpoint": 1000}),
    ]
    first, head, *rows, note = compared(*paths)
    assert first == "bits_per_dim in bits/dim, lower is better"
    assert [row.split("  ")[-1].strip() for row in rows] == [
        paths[2],
        paths[1],
        paths[0],
    ]
    assert "2.300 ± 0.030" in rows[0]
    # √(0.03² + 0.04²) = 0.05; 0.05 < 1.96·0.05. √(0.03² + 0.03²) = 0.042; 0.2 > 0.083.
    assert "+0.050 ± 0.050  within the uncertainty  2000" in rows[1]
    assert "+0.200 ± 0.042  more than chance        3000" in rows[2]
    assert re.search("value +from the first +checkpoint +card", head)
    assert "errors count as independent" in note


def test_more_is_better_where_it_is(card, compared):
    paths = [
        card(name, value, None, metric="recall", unit="")
        for name, value in (("low", 0.4), ("high", 0.6))
    ]
    first, _, best, other, _ = compared(*paths)
    assert first == "recall, higher is better"
    assert best.endswith("high.json")
    assert "-0.2000" in other
    assert "uncertainty unknown" in other


def test_intervals_of_95_percent_stand_for_errors(card, compared):
    half = 1.96 * 0.02
    interval = [2.3 - half, 2.3 + half]
    paths = [card("a", 2.3, None, interval=interval), card("b", 2.5, 0.03)]
    rows = compared(*paths)
    assert "2.300 ± 0.020" in rows[2]


@pytest.mark.parametrize(
    "protocol",
    [
        {"weights": "raw"},
        {"seed": 7},
        {"commit": "f" * 40},
        {"versions": {"jax": "0.12.0", "flax": "0.12"}},
        {"checkpoint": 5},
        {"samples": "x.npz", "samples_hash": "cd" * 32},
        {"notes": ["few images"]},
    ],
)
def test_what_is_compared_may_differ(card, compared, protocol):
    _, head, *rows, _ = compared(card("a", 2.3), card("b", 2.4, protocol=protocol))
    for name in protocol:
        if name in ("weights", "seed", "commit", "checkpoint", "samples"):
            assert name in head
    assert len(rows) == 2


def test_a_metric_of_others_is_sorted_by_value(card, compared):
    paths = [card(n, v, metric="sharpness") for n, v in (("a", 2), ("b", 1))]
    first, _, best, *_ = compared(*paths)
    assert first.endswith("by value")
    assert best.endswith("b.json")


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocol", "ours", "theirs"),
    [
        ({"steps": 50}, "steps=200", "steps=50"),
        ({"num_images": 10}, "num_images=360", "num_images=10"),
        ({"respacing": "ddim50"}, "respacing=none", "respacing=ddim50"),
        ({"data_fingerprint": "cd" * 32}, "=abababababab…", "=cdcdcdcdcdcd…"),
        ({"clip": True}, "no clip", "clip=true"),
        ({"reference": {"hash": "x"}}, "no reference.hash", "reference.hash=x"),
    ],
)
def test_unlike_protocols_are_refused_by_name(card, protocol, ours, theirs):
    a, b = card("a", 2.3), card("b", 2.2, protocol=protocol)
    said = refusal(a, b)
    made, _, other = said.partition(" and ")
    assert made.startswith(f"{a} was made with ")
    assert other.startswith(f"{b} with ")
    assert ours in made
    assert theirs in other
    assert "--mode=evaluate" in said


def test_every_difference_is_named(card):
    said = refusal(card("a", 2.3), card("b", 1, protocol={"steps": 9, "data": "x"}))
    assert "data=digits, steps=200" in said
    assert "data=x, steps=9" in said


def test_a_third_card_is_looked_at_too(card):
    said = refusal(card("a", 2), card("b", 2), card("c", 2, protocol={"steps": 1}))
    assert "c.json with steps=1" in said


def test_the_name_of_a_reference_counts_only_without_its_hash(card, compared):
    one, other = ({"reference": n, "reference_hash": "ee"} for n in ("a.npz", "b.npz"))
    compared(card("a", 1, protocol=one), card("b", 2, protocol=other))
    one, other = ({"reference": n, "reference_hash": ""} for n in ("a.npz", "b.npz"))
    said = refusal(card("c", 1, protocol=one), card("d", 2, protocol=other))
    assert "reference=a.npz" in said


def test_other_metrics_and_units_are_refused(card):
    said = refusal(card("a", 2.3), card("b", 9.0, metric="fid", unit=""))
    assert "a.json is bits_per_dim in bits/dim and " in said
    assert "b.json is fid: compare cards of one metric" in said
    assert "nats" in refusal(card("a", 2.3), card("b", 2.0, unit="nats"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"metric": "fid"', "is damaged or no JSON"),
        ("\xff\xfe", "is damaged or no JSON"),
        ("[1, 2]", "it holds no object"),
        ('{"value": 1, "protocol": {}}', "it names no metric"),
        ('{"metric": "fid", "value": "x", "protocol": {}}', "its value is 'x'"),
        ('{"metric": "fid", "value": NaN, "protocol": {}}', "its value is nan"),
        ('{"metric": "fid", "value": 1}', "it does not say how"),
    ],
)
def test_damaged_cards_are_refused(card, tmp_path, text, said):
    bad = tmp_path / "bad.json"
    bad.write_text(text, encoding="latin-1")
    told = refusal(card("a", 2.3), str(bad))
    assert told.startswith(str(bad))
    assert said in told


def test_missing_files_folders_and_lone_cards_are_refused(card, tmp_path):
    a = card("a", 2.3)
    assert "cannot be read (No such file" in refusal(a, f"{tmp_path}/none.json")
    assert f"is a folder: give the cards in it, {a}" in refusal(a, str(tmp_path))
    assert f"({a} was given)" in refusal(a)
    assert "(none was given)" in refusal()
    assert "given twice" in refusal(a, a)
