"""Verdicts of the claims: their arithmetic, their refusals, and the exact plane."""

import json
import pathlib
import sys

import numpy as np
import pytest

from ddpm_jax.core import errors, keys

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # benchmarks/ is no part of the package

from benchmarks.claims import (  # noqa: E402
    __main__,
    arms,
    catalogue,
    evidence,
    gradients,
    measures,
    mixture,
    pages,
    points,
    running,
    store,
)
from benchmarks.claims.claim import Claim  # noqa: E402

# Student's t, 97.5 %, from the printed tables: degrees of freedom → quantile.
PRINTED = {1: 12.706, 2: 4.303, 3: 3.182, 9: 2.262}


def check(side, bound=0.0):
    return evidence.Check("x", evidence.measured("a", "m", "x"), side, bound)


def lookups(*values):
    return [{("a", "m"): {"x": value}} for value in values]


@pytest.mark.parametrize("degrees", PRINTED)
def test_the_interval_is_students(degrees):
    values = np.arange(degrees + 1.0)
    found = evidence.interval(values.tolist())
    error = np.std(values, ddof=1) / np.sqrt(degrees + 1)
    assert found.mean == pytest.approx(degrees / 2)
    assert found.error == pytest.approx(error)
    assert (found.high - found.mean) / error == pytest.approx(
        PRINTED[degrees], abs=6e-4
    )
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_one_seed_has_no_interval():
    with pytest.raises(ValueError, match="1 seed"):
        evidence.interval([1.0])


# 1, 2, 3 have 2 ± 2.484.
@pytest.mark.parametrize(
    ("side", "bound", "state"),
    [
        ("above", -0.49, evidence.HOLDS),
        ("above", -0.48, evidence.UNDECIDED),
        ("above", 4.48, evidence.UNDECIDED),
        ("above", 4.49, evidence.CONTRADICTED),
        ("below", 4.49, evidence.HOLDS),
        ("below", 4.48, evidence.UNDECIDED),
        ("below", -0.49, evidence.CONTRADICTED),
    ],
)
def test_a_check_holds_where_its_whole_interval_does(side, bound, state):
    assert evidence.judge(check(side, bound), lookups(1.0, 2.0, 3.0)).state == state


def test_numbers_of_one_seed_are_compared_first():
    one, other = (evidence.measured(arm, "m", "x") for arm in "ab")
    seeds = [
        {("a", "m"): {"x": x}, ("b", "m"): {"x": x + 1 + d}}
        for x, d in ((0.0, 0.1), (50.0, 0.0), (100.0, -0.1))
    ]
    difference = evidence.Check("b is larger", other - one, "above")
    # 1 ± 0.25 seed by seed, where the arms themselves spread over 100.
    assert evidence.judge(difference, seeds).state == evidence.HOLDS
    assert (other / one).needs == {("a", "m"), ("b", "m")}
    assert (other / one).of(seeds[1]) == pytest.approx(51 / 50)


def test_a_check_of_a_seed_that_was_not_run_is_missing():
    judged = evidence.judge(check("above"), [*lookups(1.0, 2.0), {}])
    assert (judged.state, judged.found) == (evidence.MISSING, None)


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        ([], evidence.UNTESTABLE),
        ([evidence.HOLDS, evidence.HOLDS], evidence.REPRODUCED),
        ([evidence.HOLDS, evidence.UNDECIDED], evidence.IN_PART),
        ([evidence.HOLDS, evidence.CONTRADICTED], evidence.IN_PART),
        ([evidence.UNDECIDED, evidence.CONTRADICTED], evidence.NOT_REPRODUCED),
        ([evidence.HOLDS, evidence.MISSING], evidence.MISSING),
    ],
)
def test_the_rule_of_the_verdict(states, verdict):
    judged = [evidence.Judged(check("above"), state, None) for state in states]
    assert evidence.verdict(judged) == verdict


def test_a_reason_is_shown_beside_its_own_verdict_alone():
    one = Claim("n", "t", "p", "s", because={evidence.REPRODUCED: "it is so."})
    for verdict, reason in ((evidence.REPRODUCED, "it is so."), (evidence.IN_PART, "")):
        found = pages.Outcome(one, [], [], verdict)
        assert found.because == reason
        assert ("it is so." in pages.page(found, has_picture=False)) == bool(reason)


# ---- stored numbers ------------------------------------------------------------------

CONFIG = {"train.steps": 600, "model.channels": 16}


@pytest.fixture
def kept(tmp_path):
    filled = store.Store(tmp_path)
    filled.add("simple", 0, CONFIG, values={"steps": 600}, seconds=1)
    filled.add(
        "simple",
        0,
        CONFIG,
        measure="bits",
        settings={"images": 60},
        values={"total": 2.0123456789, "by_t": [1.0, 2.0, 3.0]},
        seconds=1,
    )
    return filled


def test_numbers_come_back(kept):
    found = kept.values("simple", 0, "bits", {"images": 60})
    assert found == {"total": 2.01235, "by_t": [1.0, 2.0, 3.0]}
    assert kept.values("simple", 0, "fd", {}) is None
    assert kept.values("simple", 1, "bits", {"images": 60}) is None


def test_another_config_is_refused_by_field_and_value(kept):
    with pytest.raises(errors.Refusal, match=r"train\.steps=600 instead of 601"):
        kept.check_config("simple", 0, CONFIG | {"train.steps": 601})
    with pytest.raises(errors.Refusal, match=r"train.decay='the usual' instead of"):
        kept.add("simple", 0, CONFIG | {"train.decay": "x"}, values={}, seconds=0)


def test_other_settings_are_refused(kept):
    with pytest.raises(errors.Refusal, match="images=60 instead of 61"):
        kept.values("simple", 0, "bits", {"images": 61})


def test_a_file_that_was_edited_is_refused(kept):
    path = kept.path("simple", 0)
    changed = json.loads(path.read_text())
    changed["config"]["train.steps"] = 6000
    path.write_text(json.dumps(changed))
    with pytest.raises(errors.Refusal, match="fingerprint"):
        kept.read("simple", 0)


def test_nan_is_no_result(kept):
    with pytest.raises(ValueError, match="nan"):
        kept.add("simple", 0, CONFIG, values={"x": float("nan")}, seconds=0)


# ---- the catalogue -------------------------------------------------------------------


def test_all_that_claims_need_can_be_run():
    every = {key for one in catalogue.CLAIMS.values() for key in one.needs}
    assert {arm for arm, _ in every} <= arms.ARMS.keys()
    assert {measure for _, measure in every} <= measures.MEASURES.keys()
    jobs = running.jobs(catalogue.chosen("all"))
    planned = {(job.arm, measure) for job in jobs for measure in job.measures}
    assert planned == every
    order = [job.arm for job in jobs]
    led = [n for n, job in enumerate(jobs) if "guided free 1" in job.measures]
    assert led
    assert order.index("hybrid") < order.index("classifier") < min(led)


def test_at_least_ten_claims_have_checks():
    assert sum(bool(one.checks) for one in catalogue.CLAIMS.values()) >= 10


def test_arms_differ_from_each_other():
    plain = [
        n for n, arm in arms.ARMS.items() if arm.data != "plane" and not arm.guides
    ]
    records = [arms.record(arms.config(name, 0, ROOT)) for name in plain]
    prints = {store.fingerprint(record) for record in records}
    assert len(prints) == len(plain)
    other_seed = arms.record(arms.config(plain[0], 5, ROOT))
    assert other_seed == records[0]  # seeds share a fingerprint, and a compiled step


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["cosines"], "unknown claim 'cosines': choose one of adagn"),
        ([], "no claim is named: give all, or one of simple_loss"),
        (["cosine", "--fast"], "--results=FOLDER --docs=FOLDER"),
    ],
)
def test_what_cannot_be_done_is_refused(given, told):
    with pytest.raises(errors.Refusal, match=told):
        __main__.run(__main__.parser().parse_args(given))


# ---- the plane -----------------------------------------------------------------------


@pytest.mark.parametrize("t", [50, 400, 900])
def test_the_noise_of_the_plane_is_the_posterior_mean(t):
    levels = mixture.schedule().alpha_bar
    x_t = np.array([[0.3, -0.4], [1.5, 0.2], [-0.7, 0.9]])
    network = mixture.noise_network(levels)
    weights = np.tile(mixture.CLASSES[1], (len(x_t), 1)).astype(np.float32)
    found = network(np.float32(x_t), np.full(len(x_t), t), weights)

    # E[x_0 | x_t] by summing over a grid; then ε = (x_t − √ᾱ E[x_0]) / √(1−ᾱ).
    places = mixture.grid().reshape(-1, 2)
    prior = mixture.tilted(1.0).reshape(-1)
    for row, place in zip(np.asarray(found), x_t, strict=True):
        gaps = np.sum((place - np.sqrt(levels[t]) * places) ** 2, axis=1)
        posterior = prior * np.exp(-gaps / (2 * (1 - levels[t])))
        x_0 = posterior @ places / posterior.sum()
        noise = (place - np.sqrt(levels[t]) * x_0) / np.sqrt(1 - levels[t])
        np.testing.assert_allclose(row, noise, atol=2e-3)


def test_the_law_of_the_points_is_that_of_the_points():
    law = points.law()
    assert law.sum() == pytest.approx(1)
    data = points.dataset("train")
    drawn = data.fetch(np.arange(len(data)))["image"]
    values = np.rint((drawn + 1) / points.BIN).astype(int)
    # The mean of −log2 P over drawn points is the entropy, within its standard error.
    bits = -np.log2(law[values[:, 0], values[:, 1]]) / 2
    error = bits.std() / np.sqrt(len(bits))
    assert points.entropy() == pytest.approx(bits.mean(), abs=4 * error)


def test_points_have_a_network_of_two_outputs_for_each_coordinate():
    x, t = np.zeros((3, 2), np.float32), np.array([0, 5, 199], np.int32)
    for learned, outputs in ((True, 4), (False, 2)):
        own = points.network(learned=learned, scale_shift=True)
        params = own.init(keys.key(0))
        assert own.apply(params, x, t).shape == (3, outputs)


def test_the_energy_distance_by_hand():
    one = np.array([[0.0, 0.0], [2.0, 0.0]])
    other = np.array([[1.0, 0.0], [1.0, 4.0]])
    # across: 1, √17, 1, √17; within: 2 and 4
    expected = 2 * (1 + np.sqrt(17)) / 2 - 2 - 4
    assert mixture.energy_distance(one, other) == pytest.approx(expected)


def test_the_noise_of_gradients_whose_covariance_is_known():
    batch, number, size = 8, 4000, 5
    random = np.random.default_rng(0)
    deviation = np.array([1.0, 2.0, 0.5, 3.0, 0.0])
    mean = np.array([1.0, 0.0, -2.0, 0.0, 2.0])  # squared length 9
    noise = random.normal(size=(number, size)) * deviation / np.sqrt(batch)
    trace, scale = gradients.noise_scale(mean + noise, batch)
    expected = np.sum(deviation**2)  # 14.25; the estimate's deviation is 0.21
    assert trace == pytest.approx(expected, abs=0.9)
    assert scale == pytest.approx(expected / 9, abs=0.12)
