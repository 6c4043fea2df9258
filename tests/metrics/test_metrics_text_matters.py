"""Training says once when captions begin to change what is predicted."""

import types

import pytest

from ddpm_jax.evaluation import monitor


def records_of(changes, first, earlier, monkeypatch):
    """Records of validations, each 100 steps on, with changes in the third quarter."""
    written, values = [], iter(changes)

    def measure(weights):
        quarters = {f"sensitivity_q{q}": 0.0 for q in range(4)}
        quarters["sensitivity_q2"] = next(values)
        return {"validation_loss": 1.0, "sensitivity": 0.1, **quarters}

    kind = types.SimpleNamespace(validator=lambda *given, **named: measure)
    monkeypatch.setattr(monitor.kinds, "of", lambda config: kind)

    class Run(tuple):  # what `_validation` takes the first three of
        config = None
        run_dir = types.SimpleNamespace(read_metrics=lambda: [*earlier, *written])
        mesh = dataset = None
        weights_name = "EMA"
        writer = types.SimpleNamespace(write=written.append)
        test_split = weights = staticmethod(lambda *given: None)

    validate = monitor._validation(Run(((), (), ())))
    for number in range(len(changes)):
        validate(None, first + 100 * number)
    return written


BEFORE = [{"step": 100}, {"step": 400, "text_matters_since": 400}]


@pytest.mark.parametrize(
    ("changes", "first", "earlier", "since"),
    [
        ((0.001, 0.019, 0.03, 0.5), 100, [], [300]),
        ((0.03, 0.5), 100, [], [100]),
        ((0.001, 0.01), 100, [], []),
        ((0.03, 0.01, 0.03), 100, [], [100]),
        # A run that goes on: what its file tells is not said again.
        ((0.4, 0.5), 5100, BEFORE, []),
        ((0.4, 0.5), 5100, BEFORE[:1], [5100]),
    ],
)
def test_the_step_is_said_once(changes, first, earlier, since, monkeypatch, capsys):
    records = records_of(changes, first, earlier, monkeypatch)
    found = [r["step"] for r in records if "text_matters_since" in r]
    assert found == since
    said = capsys.readouterr()
    lines = [
        line for line in (said.out + said.err).splitlines() if "begun to matter" in line
    ]
    assert len(lines) == len(since)
    for step, line in zip(since, lines, strict=True):
        assert f"step {step:,}" in line
