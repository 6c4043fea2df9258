"""Evaluation from end to end: the card, the plot, and going on."""

import json

import numpy as np
from small_runs import T, grey_levels, metrics

from ddpm_jax.data import dataset
from ddpm_jax.runtime import files


def evaluate(tell, workdir, **fields):
    given = [f"--config.evaluation.{name}={value}" for name, value in fields.items()]
    return tell("--mode=evaluate", f"--workdir={workdir}", *given)


def card_of(workdir):
    (path,) = (workdir / "evaluation").glob("bits_per_dim_*.json")
    return json.loads(path.read_text()), path


def test_the_card_is_what_the_contract_says(trained, tell):
    told = evaluate(tell, trained)
    assert told.status == 0
    card, path = card_of(trained)
    assert {"metric", "value", "unit", "standard_error", "protocol"} <= card.keys()
    assert card["metric"] == "bits_per_dim"
    assert card["unit"] == "bits/dim"
    assert card["standard_error"] > 0
    protocol = card["protocol"]
    assert protocol["num_images"] == 32
    assert protocol["steps"] == 3
    assert protocol["levels"] == 17
    assert protocol["checkpoint"] == 6
    assert protocol["weights"] == "ema"
    assert f"{card['value']:.4f}" in told.out
    assert grey_levels(path.with_suffix(".png")) > 16
    # Training scored the same images, noise, steps and weights after the same step.
    (record,) = [r for r in metrics(trained) if "test_bits_per_dim" in r]
    assert record["step"] == 6
    np.testing.assert_allclose(card["value"], record["test_bits_per_dim"], rtol=1e-5)


def test_other_data_is_scored_anew(trained, tell, monkeypatch):
    evaluate(tell, trained, num_images=8)
    monkeypatch.setattr(dataset.Dataset, "fingerprint", lambda self: "ab" * 32)
    told = evaluate(tell, trained, num_images=8)
    assert told.status == 0, told.err
    assert "scored already" not in told.out
    assert len(list((trained / "evaluation").glob("bits_per_dim_*.json"))) == 2


def test_the_parts_add_up(trained, tell):
    evaluate(tell, trained)
    card, _ = card_of(trained)
    terms = card["by_t"]["bits_per_dim"]
    assert len(terms) == len(card["by_t"]["timestep"]) == 3
    assert card["by_t"]["timestep"][-1] == T - 1
    np.testing.assert_allclose(card["value"], card["prior"] + sum(terms), rtol=1e-6)
    np.testing.assert_allclose(card["decoder"], terms[0], rtol=1e-6)
    assert card["prior"] >= 0
    assert all(term >= 0 for term in terms)


def test_the_curve_of_progressive_coding(trained, tell):
    told = evaluate(tell, trained)
    card, path = card_of(trained)
    terms, errors = card["by_t"]["bits_per_dim"], card["by_t"]["x_0_mse"]
    curve = card["rate_distortion"]
    for t in range(3):
        paid = card["prior"] + sum(terms[t + 1 :])
        np.testing.assert_allclose(curve["rate"][t], paid, rtol=1e-6)
        # Half of 255 makes one unit of the networks' range.
        error = 255 / 2 * errors[t] ** 0.5
        np.testing.assert_allclose(curve["distortion"][t], error, rtol=1e-6)
    np.testing.assert_allclose(curve["rate"][0], card["rate"], rtol=1e-6)
    plot = path.with_name(f"{path.stem}_rate_distortion.png")
    assert plot.name in told.out
    assert grey_levels(plot) > 16


def test_the_batch_size_changes_no_score(trained, tell):
    evaluate(tell, trained)
    card, path = card_of(trained)
    path.unlink()
    evaluate(tell, trained, batch_size=8)
    again, _ = card_of(trained)
    np.testing.assert_allclose(again["value"], card["value"], rtol=1e-5)


def test_fewer_images_have_a_larger_error(trained, tell):
    evaluate(tell, trained, num_images=8)
    card, _ = card_of(trained)
    assert card["protocol"]["num_images"] == 8
    assert card["standard_error"] > 0


def test_an_interruption_changes_no_score(trained, tell, interrupted):
    evaluate(tell, trained)
    card, path = card_of(trained)
    path.unlink()
    told = interrupted(files, "write_bytes", lambda: evaluate(tell, trained))
    assert told.status == 0
    assert "stopped by SIGINT after 16 of 32" in told.out
    assert not list((trained / "evaluation").glob("*.json"))
    again = evaluate(tell, trained)
    assert "after 16 of 32" in again.out
    assert card_of(trained)[0] == card
