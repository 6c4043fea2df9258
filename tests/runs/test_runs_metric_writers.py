"""TensorBoard and wandb beside metrics.jsonl: what arrives, resumes and fails."""

import json
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.core import errors
from ddpm_jax.runs import directory, metric_writers


@pytest.fixture
def run_dir(tmp_path):
    made = directory.RunDir.create(tmp_path / "run")
    made.write_json(made.config, {"config": {}, "data": {}})
    return made


def opened(run_dir, *names, step=0):
    return metric_writers.open_writers(
        names, run_dir=run_dir, config={"seed": 3}, name="run", step=step
    )


class Broken:
    """A writer whose disk is full."""

    failures = (OSError,)

    def __init__(self, error=None):
        self.error = error or OSError(28, "No space left on device")
        self.calls = 0

    def _fail(self, *args):
        self.calls += 1
        raise self.error

    write = image = close = _fail


# ---- metrics.jsonl -------------------------------------------------------------------


def test_without_names_there_is_metrics_jsonl_alone(run_dir):
    with opened(run_dir) as writer:
        writer.write({"step": 2, "loss": 0.5, "loss_q0": None})
        writer.image(2, "samples", "no such file")  # nobody looks at it
    assert run_dir.read_metrics() == [{"step": 2, "loss": 0.5, "loss_q0": None}]
    names = sorted(path.name for path in run_dir.path.iterdir())
    assert names == ["config.json", "metrics.jsonl"]


def test_a_writer_that_fails_is_named_once_and_left_out(run_dir, capsys):
    broken = Broken()
    with opened(run_dir) as writer:
        writer.add("tensorboard", broken)
        for step in (1, 2, 3):
            writer.write({"step": step})
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("tensorboard cannot be written ([Errno 28] No space left")
    assert "metrics.jsonl holds every record" in line
    assert broken.calls == 1
    assert [record["step"] for record in run_dir.read_metrics()] == [1, 2, 3]


def test_a_defect_of_a_writer_is_no_failure_to_live_with(run_dir):
    writer = metric_writers.Writer(run_dir)
    writer.add("tensorboard", Broken(TypeError("a defect")))
    with pytest.raises(TypeError, match="a defect"):
        writer.write({"step": 1})


def test_metrics_jsonl_that_fails_ends_the_run(run_dir):
    run_dir.metrics.mkdir()
    with opened(run_dir) as writer, pytest.raises(OSError, match="directory"):
        writer.write({"step": 1})


# ---- what cannot be had --------------------------------------------------------------


def test_unknown_writers_are_refused():
    with pytest.raises(
        errors.Refusal, match="'mlflow': choose one of tensorboard, wandb"
    ):
        metric_writers.check(["mlflow"])


@pytest.mark.parametrize(
    ("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")]
)
def test_a_missing_package_is_refused_with_its_pip_line(name, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(errors.Refusal, match=f"pip install {package}"):
        metric_writers.check([name])


def test_a_folder_named_like_the_package_is_not_the_package(tmp_path, monkeypatch):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setitem(sys.modules, "wandb", None)  # and then as if never imported
    del sys.modules["wandb"]
    with pytest.raises(errors.Refusal, match="it is not installed"):
        metric_writers.check(["wandb"])


# ---- TensorBoard ---------------------------------------------------------------------


def events(run_dir):
    """Return the events of all files in the order of their writing.

    A record is its length (8 bytes), a checksum (4), the data, a checksum (4).
    """
    from tensorboardX.proto import event_pb2

    found = []
    files = (run_dir.path / "tensorboard").glob("events.out.tfevents.*")
    for path in sorted(files, key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            found.append(event_pb2.Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return found


def scalars(found):
    return [
        (event.step, value.tag, value.simple_value)
        for event in found
        for value in event.summary.value
        if value.HasField("simple_value")
    ]


def shown(found):
    """Return the scalars that TensorBoard shows: a start hides its step and later."""
    kept = []
    for event in found:
        if event.HasField("session_log"):
            kept = [other for other in kept if other[0] < event.step]
        kept += scalars([event])
    return kept


@pytest.fixture
def tensorboard():
    pytest.importorskip("tensorboardX")


def test_tensorboard_holds_the_numbers(run_dir, tensorboard):
    with opened(run_dir, "tensorboard") as writer:
        writer.write({"step": 2, "loss": 0.5, "none": None, "mean": [1.0, -2.0]})
        assert scalars(events(run_dir)) == [  # there before the end
            (2, "loss", 0.5),
            (2, "mean/0", 1.0),
            (2, "mean/1", -2.0),
        ]
    assert run_dir.read_metrics()[0]["mean"] == [1.0, -2.0]


def test_tensorboard_shows_the_picture(run_dir, tensorboard, tmp_path):
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 6)
    Image.fromarray(pixels).save(tmp_path / "grid.png")
    with opened(run_dir, "tensorboard") as writer:
        writer.image(4, "samples", tmp_path / "grid.png")
    ((step, value),) = [
        (event.step, value)
        for event in events(run_dir)
        for value in event.summary.value
    ]
    assert (step, value.tag) == (4, "samples")
    (tmp_path / "again.png").write_bytes(value.image.encoded_image_string)
    with Image.open(tmp_path / "again.png") as image:
        np.testing.assert_array_equal(np.asarray(image)[..., 0], pixels)


@pytest.mark.parametrize("goes_back", [False, True], ids=["resumed", "gone back"])
def test_steps_that_are_taken_again_are_shown_once(run_dir, tensorboard, goes_back):
    with opened(run_dir, "tensorboard") as writer:
        for step in (2, 4, 6):
            writer.write({"step": step, "loss": float(step)})
        if goes_back:
            writer.restart(4)
            writer.write({"step": 6, "loss": 60.0})
    if not goes_back:
        with opened(run_dir, "tensorboard", step=4) as writer:
            writer.write({"step": 6, "loss": 60.0})
    assert shown(events(run_dir)) == [
        (2, "loss", 2.0),
        (4, "loss", 4.0),
        (6, "loss", 60.0),
    ]


def test_a_disk_that_fills_up_stops_tensorboard_alone(
    run_dir, tensorboard, monkeypatch, capsys
):
    from tensorboardX import event_file_writer

    with opened(run_dir, "tensorboard") as writer:
        writer.write({"step": 1, "loss": 1.0})
        with monkeypatch.context() as patch:
            patch.setattr(event_file_writer.EventsWriter, "flush", Broken()._fail)
            writer.write({"step": 2, "loss": 1.0})
        writer.write({"step": 3, "loss": 1.0})
    (line,) = capsys.readouterr().out.splitlines()
    assert "No space left on device" in line
    assert len(run_dir.read_metrics()) == 3
    assert (3, "loss", 1.0) not in scalars(events(run_dir))


# ---- wandb ---------------------------------------------------------------------------


def test_wandb_resumes_by_the_id_in_the_run(run_dir, monkeypatch, tmp_path):
    """Against a stand-in: what wandb is asked to do."""
    calls = []

    class Run:
        url = ""
        offline = False

        def define_metric(self, *args, **kwargs):
            calls.append(("define_metric", args, kwargs))

        def log(self, values):
            calls.append(("log", values))

        def finish(self):
            calls.append(("finish",))

    class Library:
        __file__ = "wandb.py"
        Error = type("Error", (Exception,), {})
        Image = staticmethod(lambda path: ("image", path))
        Settings = staticmethod(dict)

        @staticmethod
        def init(**kwargs):
            calls.append(("init", kwargs))
            return Run()

    monkeypatch.setitem(sys.modules, "wandb", Library)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    for step in (0, 4):
        with opened(run_dir, "wandb", step=step) as writer:
            writer.write({"step": 6, "loss": 0.5, "loss_q0": None})
            writer.image(6, "samples", tmp_path / "grid.png")
    (first, second) = [call[1] for call in calls if call[0] == "init"]
    assert first == second
    assert first["id"] == json.loads((run_dir.path / "wandb.json").read_text())["id"]
    assert first["resume"] == "allow"
    assert first["dir"] == str(run_dir.path)
    assert first["config"] == {"seed": 3}
    assert ("log", {"step": 6, "loss": 0.5}) in calls
    image = ("image", str(tmp_path / "grid.png"))
    assert ("log", {"step": 6, "samples": image}) in calls
    assert ("define_metric", ("*",), {"step_metric": "step"}) in calls
    assert calls[-1] == ("finish",)

    Library.init = staticmethod(
        lambda **kwargs: (_ for _ in ()).throw(Library.Error("x"))
    )
    with (
        pytest.raises(errors.Refusal, match="WANDB_MODE=offline"),
        opened(run_dir, "wandb"),
    ):
        pass


def test_wandb_offline_writes_into_the_run(run_dir, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for step in (0, 2):
        with opened(run_dir, "wandb", step=step) as writer:
            writer.write({"step": step + 2, "loss": 0.5})
    kept = json.loads((run_dir.path / "wandb.json").read_text())["id"]
    runs = list((run_dir.path / "wandb").glob(f"offline-run-*-{kept}"))
    assert runs
    assert all(list(folder.glob("*.wandb")) for folder in runs)
