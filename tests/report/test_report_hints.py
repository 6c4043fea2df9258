"""Sentences about runs whose trouble is known."""

import pytest
import written_runs as runs

from ddpm_jax.report import hints
from ddpm_jax.report import history as history_lib

CONFIG = history_lib.leaves(runs.CONFIG)


def said(records, **changes):
    element = hints.element(history_lib.History(records), {**CONFIG, **changes})
    found = runs.Page(element)
    return found.text, [item["class"] for item in found.all("li")]


def series(name, values):
    return [{"step": 100 * (k + 1), name: value} for k, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1.0] * 4 + [0.5] * 8, "plain", "The mean loss is flat, at 0.5."),
        ([1.0] * 6 + [0.5] * 3 + [0.25] * 3, "good", "falls: 0.5 before, 0.25 in"),
        ([0.1] * 9 + [0.5] * 3, "watch", "rises: 0.1 before, 0.5 in the last"),
    ],
)
def test_trend(values, kind, expected):
    text, kinds = said(series("loss", values))
    assert expected in text
    assert kinds == [kind]


def test_no_trend_is_read_from_few_records():
    assert said(series("loss", [1.0] * 7)) == ("", [])


def test_the_young_average_is_named():
    text, kinds = said([{"step": 10_000, "ema_initial_share/0.999": 0.9999**10_000}])
    for part in ("EMA 0.999", "37 %"):
        assert part in text
    assert kinds == ["watch"]
    text, kinds = said([{"step": 10_000, "ema_initial_share/0.999": 0.004}])
    for part in ("EMA 0.999", "0.4 %"):
        assert part in text
    assert kinds == ["good"]
    text, _ = said([{"step": 1, "ema_initial_share/0.999": 1e-9}])
    assert "less than 0.01 %" in text


def test_updates_that_were_left_out_are_counted():
    text, kinds = said(series("skipped", [0, 0, 2, 0, 1]))
    assert "3 updates were not finite" in text
    assert "step 300" in text
    assert kinds == ["watch"]
    assert said(series("skipped", [0] * 5)) == ("", [])


def test_going_back_is_told():
    text, kinds = said([{"step": 600, "went_back_from": 911}])
    assert "from step 911 to 600" in text
    assert kinds == ["watch"]


def test_compiling_all_the_time_is_said():
    text, kinds = said(series("compilations", [60 + 2 * k for k in range(20)]))
    assert "18 in the last 10 records" in text
    assert kinds == ["watch"]
    # The first looks compile; a later one may, once.
    assert said(series("compilations", [9, 30, 60, *[65] * 10, 66])) == ("", [])


def test_waiting_for_data():
    text, kinds = said(series("data_wait", [0.3] * 10))
    assert "Training waits 30 % of its time for data." in text
    assert "data.cache_gib" in text
    assert kinds == ["watch"]
    assert said(series("data_wait", [0.9] * 10 + [0.1] * 8)) == ("", [])


def test_quarters_of_noise_prediction():
    usual = {"step": 2000, "loss_q0": 0.3, "loss_q3": 0.01}
    assert said([usual])[1] == ["plain"]
    unusual = {"step": 2000, "loss_q0": 0.01, "loss_q3": 0.3}
    text, kinds = said([unusual])
    assert text.index("last quarter") < text.index("0.3") < text.index("0.01")
    assert kinds == ["watch"]
    assert said([{**unusual, "step": 50}]) == ("", [])  # too early to tell
    for changes in ({"diffusion.prediction": "v"}, {"diffusion.weighting": "p2"}):
        assert said([unusual], **changes) == ("", [])


def test_jumps_of_the_gradient():
    records = series("grad_norm", [0.5] * 8 + [6.0] + [0.5] * 3)
    text, kinds = said(records)
    for part in ("to 6 ", "step 900", "12 times", "train.clip_norm=1."):
        assert part in text
    assert kinds == ["watch"]
    text, kinds = said(records, **{"train.clip_norm": 1.0})
    assert "train.clip_norm=1 has cut it." in text
    assert kinds == ["plain"]
    # The first steps are always rough.
    assert said(series("grad_norm", [9.0, 7.0] + [0.5] * 10)) == ("", [])


def test_clipping_most_steps_is_said():
    text, _ = said(series("grad_norm", [0.5] * 8), **{"train.clip_norm": 0.1})
    for part in ("train.clip_norm=0.1", "100 %"):
        assert part in text


def test_memorising():
    text, kinds = said(series("validation_loss", [0.5, 0.2, 0.21, 0.23]))
    assert "lowest at step 200, 0.2, and is 0.23 now." in text
    assert "data.flip=True" in text
    assert kinds == ["watch"]
    text, kinds = said(series("validation_loss", [0.5, 0.2, 0.201]))
    assert "The validation loss fell from 0.5 to 0.201." in text
    assert kinds == ["good"]


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        ([0.6, 0.0, 0.0], "Samples are 1.2 σ too red"),
        ([0.0, -0.2, 0.1], "Samples are 0.4 σ too magenta"),
        (
            [0.0, 0.01, 0.02],
            "mean colour of the samples is that of the data, to 0.04 σ",
        ),
    ],
)
def test_colour(sample, expected):
    """(sample − data) / deviation of the data, which is 0.5 here."""
    text, _ = said([runs.channels(100, sample, [0.0, 0.0, 0.0], [0.5, 0.5, 0.5])])
    assert expected in text


def test_brightness_of_grey_images_and_other_channels():
    text, _ = said([runs.channels(100, [-0.5], [0.5], [0.5])])
    assert "Samples are 2 σ too dark" in text
    text, _ = said([runs.channels(100, [0.0, 1.0], [0.0, 0.5], [1.0, 0.5])])
    assert "Samples are 1 σ too high in channel 1" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"data_channel_mean": None},
        {"data_channel_mean": [0.1, 0.2]},
        {"data_channel_std": [0.0]},
    ],
)
def test_no_colour_is_read_from_half_a_record(changes):
    record = {**runs.channels(100, [0.5], [0.5], [0.5]), **changes}
    assert said([record]) == ("", [])


def test_what_may_be_wrong_comes_first():
    records = series("loss", [1.0] * 12) + series("data_wait", [0.5])
    assert said(records)[1] == ["watch", "plain"]


# ---- classifiers ---------------------------------------------------------------------

OF_CLASSIFIER = {"model.kind": "classifier", "train.ema_decay": []}


def validated(training, test, step=500):
    """A record of a classifier's validation: accuracies by quarter of t."""
    record = {"step": step, "validation_loss": 1.0, "training_images_loss": 0.9}
    for name, parts in (("training_images", training), ("validation", test)):
        record[f"{name}_accuracy"] = sum(parts) / 4
        record |= {f"{name}_accuracy_q{q}": part for q, part in enumerate(parts)}
    return record


def test_images_known_by_heart_are_told_with_the_quarter_and_what_helps():
    record = validated((0.99, 0.7, 0.2, 0.1), (0.84, 0.6, 0.2, 0.11))
    text, kinds = said([record], **OF_CLASSIFIER, **{"data.crop": "center"})
    for part in ("49.8 %", "43.8 %", "15.0 points", "quarter 1"):
        assert part in text
    for remedy in ("data.crop=random", "train.weight_decay"):
        assert remedy in text
    assert kinds == ["watch"]
    text, _ = said([record], **OF_CLASSIFIER, **{"data.crop": "random"})
    assert "data.crop=random" not in text


def test_a_classifier_that_generalises_is_told_so():
    record = validated((0.98, 0.5, 0.2, 0.1), (0.96, 0.5, 0.2, 0.1))
    text, kinds = said([record], **OF_CLASSIFIER)
    for part in ("44.5 %", "44.0 %"):
        assert part in text
    assert kinds == ["good"]


def test_nothing_of_samples_or_noise_prediction_is_said_of_a_classifier():
    losses = [{"step": k, "loss": 1.0, "loss_q0": 0.1, "loss_q3": 2.3} for k in (1, 2)]
    assert said(losses * 10, **OF_CLASSIFIER) == ("", [])
    assert said(losses * 10)[1] == ["plain"]


def test_a_gap_is_one_of_the_same_record():
    records = [
        validated((0.9, 0.5, 0.2, 0.1), (0.8, 0.5, 0.2, 0.1)),
        {"step": 600, "validation_accuracy_q0": 0.8},
    ]
    ((step, gap),) = hints.gap(history_lib.History(records), "accuracy_q0")
    assert (step, gap) == (500, pytest.approx(0.1))
