"""Bands of the loss: whose run is compared, at which steps, and what is said."""

import make_loss_bands as make
import numpy as np
import pytest

from ddpm_jax import config as config_lib
from ddpm_jax.config import reading
from ddpm_jax.report import history as history_lib
from ddpm_jax.report import loss_bands

BAND = loss_bands.Band("toy", "0.10", "", 6, ((25, 0.8, 1.0), (50, 0.2, 0.4)))


BASE = dict(reading.leaves(config_lib.base().to_dict()))


def digest(config):
    return loss_bands.digest(config, BASE)


def config_of(**changed):
    config = reading.from_file("digits")
    for name, value in changed.items():
        section, field = name.split("__")
        config[section][field] = value
    return dict(reading.leaves(config.to_dict()))


def history(*losses):
    return history_lib.History([{"step": s, "loss": value} for s, value in losses])


def test_a_loss_is_compared_where_the_band_is_known():
    inside = history((25, 0.9), (50, 0.3), (75, 9.0))
    assert loss_bands.outside(BAND, inside) == []
    assert loss_bands.outside(BAND, history((25, 0.9), (50, 0.5))) == [(50, 0.5)]
    assert loss_bands.outside(BAND, history((25, 0.7))) == [(25, 0.7)]


def test_means_over_other_steps_are_not_compared():
    assert loss_bands.outside(BAND, history((50, 9.0))) is None  # of 50 steps
    assert loss_bands.outside(BAND, history((10, 0.9), (20, 0.9))) is None
    assert loss_bands.outside(BAND, history()) is None


@pytest.mark.parametrize(
    ("changed", "same"),
    [
        ({"train__log_every": 5, "data__path": "/x", "sampling__steps": 3}, True),
        ({"train__steps": 300}, False),  # the rate decays to 0 at the last step
        ({"model__channels": 16}, False),
        ({"train__learning_rate": 1e-3}, False),
    ],
)
def test_a_run_is_known_by_what_decides_its_loss(changed, same):
    digests = {digest(config_of(**c)) for c in ({}, changed)}
    assert len(digests) == (1 if same else 2)


def test_what_a_run_lets_change_makes_no_other_band():
    fields = dict(reading.leaves(config_lib.base().to_dict()))
    free = {
        rule
        for rule in config_lib.MUTABLE
        if rule in fields and rule.split(".")[0] in loss_bands.SECTIONS
    }
    assert set(loss_bands.INDIFFERENT) == free - {"train.steps"}


def test_a_stored_config_has_the_digest_of_its_file():
    stored = {
        name: list(v) if isinstance(v, tuple) else v for name, v in config_of().items()
    }
    assert digest(stored) == digest(config_of())


def test_a_field_of_later_versions_changes_no_digest():
    older = {k: v for k, v in config_of().items() if k != "model.attention_scale"}
    assert digest(older) == digest(config_of())


def test_another_seed_is_inside_and_faults_of_training_are_outside():
    """Losses of a run of seed 0, which made no band, and of runs that were spoiled."""
    (band,) = (b for b in loss_bands.BANDS if b.config == "digits")
    steps = range(25, 201, 25)
    seed_0 = (0.8935, 0.3179, 0.1487, 0.1232, 0.1177, 0.1081, 0.1022, 0.1007)
    assert loss_bands.outside(band, history(*zip(steps, seed_0, strict=True))) == []
    untrained = history(*((step, 1.0) for step in steps))  # noise of variance 1
    assert len(loss_bands.outside(band, untrained)) == len(steps)


@pytest.mark.parametrize("band", loss_bands.BANDS, ids=lambda b: f"{b.config}-{b.jax}")
def test_a_band_belongs_to_the_config_as_it_is(band):
    config = dict(reading.leaves(reading.from_file(band.config).to_dict()))
    assert digest(config) == band.digest
    assert loss_bands.of_run(config, BASE, {"jax": f"{band.jax}.1"}) is band
    steps = [step for step, _, _ in band.rows]
    assert steps == list(range(25, 201, 25))
    assert all(0 < low < high for _, low, high in band.rows)


def test_the_page_says_it(monkeypatch):
    band = BAND._replace(digest=digest(config_of()))
    monkeypatch.setattr(loss_bands, "BANDS", (band,))
    stored = {"config": reading.from_file("digits").to_dict(), "versions": {}}
    said = str(loss_bands.element(history((25, 0.9), (50, 0.3)), stored, BASE))
    assert "inside the band of the first 50 steps of 6 seeds of toy" in said
    said = str(loss_bands.element(history((25, 0.9), (50, 0.5)), stored, BASE))
    assert "outside the band" in said
    assert "0.5000 at step 50" in said
    own = {**stored, "network": "own"}
    assert loss_bands.element(history((25, 0.9)), own, BASE) == ""
    stored["config"]["model"]["channels"] = 8
    assert loss_bands.element(history((25, 0.9)), stored, BASE) == ""


def test_a_band_holds_most_seeds():
    """Of curves of a known law 99.9 % of further ones lie inside."""
    rng = np.random.default_rng(0)

    def drawn():
        return {25: float(np.exp(rng.normal(0, 0.1))), 30: 1.0, 225: 1.0}

    held = 0
    for _ in range(300):
        steps, low, high = make.band([drawn() for _ in range(6)])
        assert steps == [25]
        held += low[0] <= drawn()[25] <= high[0]
    assert held >= 297
