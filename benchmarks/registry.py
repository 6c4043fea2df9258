"""The benchmarks of `python -m benchmarks.all`: what each measures, in a small size.

Each function is called in a process of its own. It measures as the script of its name
does, and returns rows: a number for each round.
"""

import importlib
import pathlib
import sys
import tempfile
from collections.abc import Callable
from typing import NamedTuple

from ddpm_jax.core import errors

FOLDER = pathlib.Path(__file__).parent
ROUNDS = 5
PHOTOGRAPHS = 64


class Row(NamedTuple):
    """What was measured, and its value in every round."""

    what: str
    values: list[float]


class Benchmark(NamedTuple):
    """A benchmark in its small size.

    Attributes:
        what: it measures, in words.
        measure: returns its rows.
        seconds: that it takes, about, on two cores with nothing else to do.
        needs_torch: whether it is a race against PyTorch.
    """

    what: str
    measure: Callable[[], list[Row]]
    seconds: int
    needs_torch: bool = False


def train_step() -> list[Row]:
    """Race a train step of the CIFAR-10 network of Improved DDPM."""
    return _race("train_step", "--preset=iddpm_cifar10", "--batch=8")


def sample() -> list[Row]:
    """Race a few sampling steps of the same network."""
    flags = ("--preset=iddpm_cifar10", "--batch=8", "--sampling-steps=4")
    return _race("sample", *flags)


def train_step_digits() -> list[Row]:
    """Race a train step so small that what surrounds the products counts."""
    return _race("train_step", "--preset=digits", "--batch=128", "--steps=5")


def guidance() -> list[Row]:
    """Compare guided sampling with plain sampling."""
    script = imported("guidance")
    args = script.parser().parse_args([f"--rounds={ROUNDS}"])
    ratios, _ = script.race(args)
    return [Row("digits, batch 64: time of guided sampling over plain", ratios)]


def data_loading() -> list[Row]:
    """Measure how fast imitated photographs are decoded and cut."""
    script = imported("data_loading")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        script.imitate(folder, ".jpg", PHOTOGRAPHS)
        rates = [script.rates(folder, 64, "center")[0] for _ in range(ROUNDS)]
    return [Row("JPEG 512 to 64 pixels: images/s per core", rates)]


def restoration() -> list[Row]:
    """Measure how far restored Gaussian images are from the mean of the posterior."""
    script = imported("restoration")
    flags = ("gaussian", "--images=64", "--steps=50", "--operators=superres:2")
    args = script.parser().parse_args([*flags, "--likelihoods=pigdm"])
    found = [
        float((off**2).mean())
        for seed in range(ROUNDS)
        for _, _, off, _ in script.distances(args, seed)
    ]
    return [Row("superres:2, squared distance from the true mean (exact: 1)", found)]


BENCHMARKS = {
    # In the order in which they get the time that there is.
    "train_step": Benchmark(
        "train step of iddpm_cifar10, batch 8", train_step, 90, needs_torch=True
    ),
    "sample": Benchmark(
        "4 DDIM steps of iddpm_cifar10, batch 8", sample, 60, needs_torch=True
    ),
    "data_loading": Benchmark("decoding of photographs", data_loading, 15),
    "guidance": Benchmark("classifier-free guidance on digits", guidance, 40),
    "train_step_digits": Benchmark(
        "train step of digits, batch 128", train_step_digits, 45, needs_torch=True
    ),
    "restoration": Benchmark(
        "calibration of restored Gaussian images", restoration, 60
    ),
}


def imported(name: str):
    """Return a script of this folder; what it imports lies beside it."""
    if str(FOLDER) not in sys.path:
        sys.path.insert(0, str(FOLDER))
    return importlib.import_module(name)


def chosen(name: str) -> dict[str, Benchmark]:
    """Return the benchmark of a name, or all of them for "".

    Raises:
        Refusal: there is none of this name.
    """
    if not name:
        return BENCHMARKS
    return {name: errors.choose("benchmark", BENCHMARKS, name)}


def _race(script, *flags):
    """Return our speed over that of each rival, a row for each."""
    script, presets = imported(script), imported("presets")
    args = script.parser().parse_args([*flags, f"--rounds={ROUNDS}"])
    setting, (ours, *rivals), _ = script.race(args)
    size, dtype = setting.config.train.batch_size, setting.config.model.dtype
    return [
        Row(
            f"{setting.name}, batch {size}, {dtype}: our speed over {rival.name}",
            presets.ratios(rival, ours),
        )
        for rival in rivals
    ]
