"""A tiny run on the digits, trained once, and quick compilation for every mode."""

import contextlib
import pathlib
import shutil
import signal

import pytest
import small_runs

from ddpm_jax import main


@pytest.fixture(autouse=True, scope="module")
def quickly(cache):
    with small_runs.quick_compilation(cache):
        yield


@pytest.fixture
def tell(capsys):
    """Return a function: arguments → what the command said."""

    def run(*arguments):
        capsys.readouterr()
        status = main.main(["ddpm-jax", *map(str, arguments)])
        said = capsys.readouterr()
        return small_runs.Told(status, said.out, said.err)

    return run


@pytest.fixture(scope="session")
def first_run(cache, made_once):
    """The directory of a finished run and what was said; only to be read."""

    def train(folder):
        arguments = [
            *small_runs.TINY,
            f"--workdir={folder / 'first'}",
            f"--config.train.steps={small_runs.STEPS}",
            "--config.train.sample_every=3",
            "--config.train.evaluate_every=6",
        ]
        with (
            small_runs.quick_compilation(cache),
            (folder / "said").open("w") as file,
            contextlib.redirect_stdout(file),
        ):
            status = main.main(["ddpm-jax", *arguments])
        (folder / "status").write_text(str(status))

    folder = made_once("first_run", train)
    status = int((folder / "status").read_text())
    said = (folder / "said").read_text()
    return folder / "first", small_runs.Told(status, said, "")


@pytest.fixture
def trained(first_run, tmp_path):
    """A copy of the finished run, to be changed: a run works wherever it lies."""
    return pathlib.Path(shutil.copytree(first_run[0], tmp_path / "trained"))


@pytest.fixture
def interrupted(monkeypatch):
    """Return a function that runs a command and sends it one signal.

    The signal is a real one and comes when `owner.name` has done its work for the first
    time.
    """

    def run(owner, name, command, number=signal.SIGINT):
        work = getattr(owner, name)
        sent = []

        def work_and_signal(*args, **kwargs):
            result = work(*args, **kwargs)
            if not sent:
                sent.append(name)
                signal.raise_signal(number)
            return result

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, work_and_signal)
            return command()

    return run
