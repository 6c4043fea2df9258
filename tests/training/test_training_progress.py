"""Records: when they come, what they hold, and the line that they make."""

import types

import jax
import numpy as np
import pytest

from ddpm_jax.training import progress


class Clock:
    """Stands in for `time` in the module under test."""

    def __init__(self, monkeypatch):
        self.now = 100.0
        fake = types.SimpleNamespace(perf_counter=lambda: self.now)
        monkeypatch.setattr(progress, "time", fake)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class OnDevice:
    """A metric still on the device: reading it is noticed."""

    def __init__(self, value, is_ready=True):
        self.value, self.was_read = value, False
        self.ndim = np.ndim(value)
        self.is_ready = lambda: is_ready

    def __array__(self, dtype=None, copy=None):
        self.was_read = True
        return np.array(self.value, dtype)


def metrics(step, *, is_ready=True, **changes):
    """Metrics of one step, different at every step; quarter 3 is never drawn."""
    random = np.random.default_rng(step)
    counts = np.array([*random.integers(0, 5, 3), 0], np.float32)
    values = {
        "loss": np.float32(random.uniform()),
        "mse": np.float32(random.uniform()),
        "vb": np.float32(random.uniform()),
        "grad_norm": np.float32(random.uniform()),
        "learning_rate": np.float32(step),
        "finite": np.True_,
        "quarter_loss": counts * random.uniform(size=4).astype(np.float32),
        "quarter_count": counts,
        "example_loss": random.uniform(size=16).astype(np.float32),
        **changes,
    }
    on_device = {name: OnDevice(value, is_ready) for name, value in values.items()}
    share = OnDevice(np.float32(0.5**step), is_ready)
    return {**on_device, "ema_initial_share": {"0.5": share}}


def of_another_kind(step):
    """Metrics of a step that has one term of its own besides the loss."""
    values = metrics(step)
    terms = [values.pop(name) for name in ("mse", "vb")]
    return values | {
        "accuracy": terms[0],
        "example_hits": OnDevice(np.ones(16, np.float32)),
        "drawn": {"noise": OnDevice(np.float32(0))},
    }


def make(first_step=0, last_step=100, batch_size=16, **flops):
    return progress.Progress(
        first_step=first_step, last_step=last_step, batch_size=batch_size, **flops
    )


# ---- when ----------------------------------------------------------------------------


@pytest.mark.parametrize("is_ready", [False, True])
def test_records_come_one_interval_late(clock, is_ready):
    watch = make()
    added = []
    for step in range(1, 31):
        added.append(metrics(step, is_ready=is_ready))
        watch.add(added[-1])
        clock.now += 0.5
        if step % 10 == 0:
            record = watch.turn(step, 0.0)
            if step == 10:
                assert record is None
            else:
                assert record["step"] == step - 10
        read = [
            any(value.was_read for value in jax.tree.leaves(values)) for values in added
        ]
        due = max(step // 10 * 10 - 10, 0)
        assert read == [True] * due + [False] * (step - due)
    assert [record["step"] for record in watch.flush(30, 0.0)] == [30]
    assert watch.flush(30, 0.0) == []
    # What no record tells does not even come from the device.
    assert not any(values["example_loss"].was_read for values in added)


def test_flush_in_the_middle_of_an_interval(clock):
    """A flush gives the finished interval and the started one; a resume begins anew."""
    watch = make(first_step=200, last_step=300)
    for step in range(201, 211):
        watch.add(metrics(step))
    assert watch.turn(210, 0.0) is None
    for step in range(211, 214):
        watch.add(metrics(step))
    assert [record["step"] for record in watch.flush(213, 0.0)] == [210, 213]
    watch.add(metrics(214))
    assert watch.turn(214, 0.0) is None
    assert [record["step"] for record in watch.flush(214, 0.0)] == [214]


# ---- what ----------------------------------------------------------------------------


def test_means(clock):
    watch = make()
    steps = [metrics(step) for step in range(1, 8)]
    for values in steps:
        watch.add(values)
    (record,) = watch.flush(7, 0.0)
    for name in ("loss", "mse", "vb", "grad_norm"):
        expected = sum(float(values[name].value) for values in steps) / 7
        assert record[name] == pytest.approx(expected, rel=1e-6)
    for quarter in range(3):
        # Over all images of the interval, not a mean of the steps' means.
        total = sum(float(values["quarter_loss"].value[quarter]) for values in steps)
        count = sum(float(values["quarter_count"].value[quarter]) for values in steps)
        assert record[f"loss_q{quarter}"] == pytest.approx(total / count, rel=1e-6)
    assert record["loss_q3"] is None
    assert record["learning_rate"] == 7  # of the last step
    assert record["ema_initial_share/0.5"] == 0.5**7
    assert all(
        value is None or type(value) in (int, float) for value in record.values()
    )


def test_means_of_another_kind_of_step(clock):
    """Its own scalars, whatever their names, where the U-Net has mse and vb."""
    steps = [of_another_kind(step) for step in range(1, 8)]
    unet, other = make(), make()
    for step, values in enumerate(steps, start=1):
        unet.add(metrics(step))
        other.add(values)
    (usual,), (record,) = unet.flush(7, 0.0), other.flush(7, 0.0)
    assert list(usual)[:5] == ["step", "loss", "mse", "vb", "grad_norm"]
    assert list(record)[:4] == ["step", "loss", "accuracy", "grad_norm"]
    assert record["accuracy"] == usual["mse"]
    assert usual.keys() - record.keys() == {"mse", "vb"}
    assert record.keys() - usual.keys() == {"accuracy"}
    assert not any(values["example_hits"].was_read for values in steps)
    assert not any(values["drawn"]["noise"].was_read for values in steps)
    lines = [progress.line(each, 100).split("images/s")[0] for each in (record, usual)]
    told = f"  accuracy {100 * record['accuracy']:.1f} %"  # the one that a line tells
    assert told in lines[0]
    lines[0] = lines[0].replace(told, "")
    assert lines[0].rpartition("  ")[0] == lines[1].rpartition("  ")[0] != ""


def test_rates_of_a_device_that_keeps_up(clock):
    """16 images and 0.5 s a step, a tenth of it waiting, in every record."""
    watch = make(last_step=60, batch_size=16)
    records = []
    for step in range(1, 51):
        watch.add(metrics(step))
        clock.now += 0.5
        if step % 10 == 0 and step < 50:
            records.append(watch.turn(step, 0.05 * step))
    records = [*filter(None, records), *watch.flush(50, 2.5)]
    assert [record["step"] for record in records] == [10, 20, 30, 40, 50]
    for record in records:
        assert record["images_per_second"] == pytest.approx(32)
        assert record["data_wait"] == pytest.approx(0.1)
        assert record["eta_seconds"] == pytest.approx(0.5 * (60 - record["step"]))


def test_rates_of_a_device_that_lags_behind(clock):
    """The host enqueues at once and waits, when it reads, for 0.5 s a step."""
    watch = make(last_step=60, batch_size=16)
    records = []
    for step in range(1, 51):
        values = metrics(step, is_ready=False)
        values["loss"] = Slow(values["loss"].value, clock, 100 + 0.5 * step)
        watch.add(values)
        if step % 10 == 0 and step < 50:
            records.append(watch.turn(step, 0.0))
    records = [*filter(None, records), *watch.flush(50, 0.0)]
    assert [record["step"] for record in records] == [10, 20, 30, 40, 50]
    for record in records:
        assert record["images_per_second"] == pytest.approx(32)
        assert record["data_wait"] == 0


class Slow(OnDevice):
    """A metric that is there from a certain time on; reading it waits until then."""

    def __init__(self, value, clock, ready_at):
        super().__init__(value)
        self.clock, self.ready_at = clock, ready_at
        self.is_ready = lambda: clock.now >= ready_at

    def __array__(self, dtype=None, copy=None):
        self.clock.now = max(self.clock.now, self.ready_at)
        return super().__array__(dtype)


def test_a_pause_is_no_training(clock):
    watch = make()
    for step in range(1, 11):
        watch.add(metrics(step))
        clock.now += 1
    watch.flush(10, 0.0)
    clock.now += 1000  # a grid of samples
    watch.pause()
    for step in range(11, 21):
        watch.add(metrics(step))
        clock.now += 2
    (record,) = watch.flush(20, 5.0)
    assert record["images_per_second"] == pytest.approx(8)
    assert record["data_wait"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("flops", "mfu"),
    [
        ({}, None),
        ({"flops_per_image": 5e9}, None),
        ({"peak_flops": 1e12}, None),
        # 32 images/s of 5 GFLOP each are 160 GFLOP/s, 16 % of 1 TFLOP/s.
        ({"flops_per_image": 5e9, "peak_flops": 1e12}, 0.16),
    ],
)
def test_share_of_the_peak(clock, flops, mfu):
    watch = make(**flops)
    for step in range(1, 11):
        watch.add(metrics(step))
        clock.now += 0.5
    (record,) = watch.flush(10, 0.0)
    assert record["images_per_second"] == pytest.approx(32)
    assert record.get("mfu") == (mfu and pytest.approx(mfu))
    assert ("MFU 16 %" in progress.line(record, 100)) == bool(mfu)


def test_use_of_the_host(clock, monkeypatch):
    """Both are those of the moment, record by record."""
    watch = make()
    records = []
    for step, (memory, count) in enumerate([(1.5, 3), (2.5, 4)], start=1):
        monkeypatch.setattr(progress.resources, "host_memory_gib", lambda m=memory: m)
        monkeypatch.setattr(progress.resources, "compilations", lambda c=count: c)
        watch.add(metrics(step))
        clock.now += 1
        records += watch.flush(step, 0.0)
    assert [record["host_memory_gib"] for record in records] == [1.5, 2.5]
    assert [record["compilations"] for record in records] == [3, 4]


# ---- numbers that are not finite -----------------------------------------------------

NAN = np.float32(np.nan)


def bad(step):
    worthless = {"quarter_loss": np.full(4, NAN), "quarter_count": np.ones(4)}
    return metrics(
        step, finite=np.False_, loss=NAN, mse=NAN, vb=NAN, grad_norm=NAN, **worthless
    )


def test_means_are_over_the_steps_that_counted(clock):
    """A record of two good and two bad steps is that of the good ones alone."""
    good = [metrics(1), metrics(3)]
    records = []
    for steps in ([good[0], bad(2), good[1], bad(4)], good):
        watch = make()
        for values in steps:
            watch.add(values)
        clock.now += 1
        records += watch.flush(len(steps), 0.0)
    mixed, clean = records
    assert (mixed["skipped"], clean["skipped"]) == (2, 0)
    assert mixed["step"] == 4
    for name in ("loss", "mse", "vb", "grad_norm", *(f"loss_q{q}" for q in range(4))):
        assert mixed[name] == clean[name]
    assert "2 updates skipped" in progress.line(mixed, 100)
    assert "skipped" not in progress.line(clean, 100)


def test_an_interval_of_bad_steps_has_no_means(clock):
    watch = make()
    watch.add(bad(1))
    clock.now += 1
    (record,) = watch.flush(1, 0.0)
    assert record["skipped"] == 1
    for name in ("loss", "grad_norm", "loss_q0", "loss_q3"):
        assert record[name] is None
    line = progress.line(record, 100)
    assert "loss –  " in line
    assert line.endswith("  1 update skipped")


# ---- text ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.2, "1 s"),
        (45, "45 s"),
        (59, "59 s"),
        (59.5, "1 min 00 s"),
        (200, "3 min 20 s"),
        (3599, "59 min 59 s"),
        (3599.1, "1 h 00 min"),
        (18459, "5 h 07 min"),
        (360000, "100 h 00 min"),
    ],
)
def test_duration(seconds, text):
    assert progress.duration(seconds) == text


def test_line():
    record = {
        "step": 50,
        "loss": 0.123456,
        "loss_q0": 0.5,
        "loss_q1": 0.25,
        "loss_q2": 0.0625,
        "loss_q3": None,
        "images_per_second": 1234.56,
        "data_wait": 0.0125,
        "eta_seconds": 200,
        "mfu": 0.414,
        "skipped": 0,
    }
    line = progress.line(record, 3000)
    for part in (
        "step   50/3000",
        "loss 0.1235",
        "0.5000 0.2500 0.0625 –",
        "1235 images/s  MFU 41 %",
        "data wait 1.2 %",
        "ETA 3 min 20 s",
    ):
        assert part in line
    assert "\n" not in line
