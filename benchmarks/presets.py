"""What the benchmarks race over: networks, data, clocks and the table they print."""

import argparse
import os
import pathlib
import platform
import resource
import shlex
import statistics
import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

# Before JAX starts: PyTorch races in the same process and needs its share of a GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import numpy as np

from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import reading
from ddpm_jax.core import conditions
from ddpm_jax.runtime import cost, hardware

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
GIB = 2**30
COLUMNS = (
    "preset",
    "batch",
    "dtype",
    "what",
    "compile, s",
    "ms (median, all)",
    "images/s",
    "peak memory, GiB",
    "MFU",
    "our speed over its",
)


TINY = {
    "channels": 8,
    "channel_mult": (1,),
    "num_res_blocks": 1,
    "norm_groups": 4,
    "attention_resolutions": (8,),
}


class Preset(NamedTuple):
    """A config with the facts of the data that it is made for.

    `model` are fields of config.model that are changed.
    """

    config: str
    image_shape: tuple[int, int, int]
    num_classes: int | None = None
    levels: int = 256
    model: Mapping = MappingProxyType({})


PRESETS = {
    "iddpm_cifar10": Preset("cifar10_iddpm", (32, 32, 3)),
    "ddpm_cifar10": Preset("cifar10_ddpm", (32, 32, 3)),
    "adm64": Preset("imagenet64_adm", (64, 64, 3), num_classes=1000),
    "adm256": Preset("imagenet256_adm", (256, 256, 3), num_classes=1000),
    "digits": Preset("digits", (8, 8, 1), num_classes=10, levels=17),
    # To see whether a benchmark runs: its numbers mean nothing.
    "tiny": Preset("digits", (8, 8, 1), num_classes=10, levels=17, model=TINY),
}


class Setting(NamedTuple):
    """One preset, ready to be built from."""

    name: str
    config: object
    facts: build_data.DataInfo
    network: object
    params: dict
    mesh: jax.sharding.Mesh


class Result(NamedTuple):
    """What a contender told of itself and what the clock said."""

    name: str
    compile_seconds: float | None
    milliseconds: list[float]
    memory: int | None


def parser(doc: str) -> argparse.ArgumentParser:
    """Return the flags that both races share."""
    flags = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    flags.add_argument("--preset", default="iddpm_cifar10", choices=PRESETS)
    flags.add_argument("--batch", type=int, default=8)
    flags.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    flags.add_argument("--rounds", type=int, default=7, help="times each one runs")
    flags.add_argument("--alone", action="store_true", help="without PyTorch")
    flags.add_argument(
        "--compiled",
        action=argparse.BooleanOptionalAction,
        default=jax.default_backend() == "gpu",
        help="race torch.compile too; by default on a GPU only",
    )
    flags.add_argument("--torch-mode", default="default", help="of torch.compile")
    flags.add_argument(
        "--half",
        action="store_true",
        help="beside bfloat16, race PyTorch in float16 too: eager and NCHW, as the "
        "published codes of 2021 run",
    )
    flags.add_argument("--profile", help="folder for a profile of our program")
    return flags


def rivals(args) -> dict[str, dict]:
    """Return what runs in PyTorch: its name and the options of `torch_training`."""
    if args.alone:
        return {}
    found = {"PyTorch eager": {}}
    if args.half and args.dtype == "bfloat16":
        found["PyTorch eager, float16, NCHW"] = {"half": True}
    if args.compiled:
        found["torch.compile"] = {"mode": args.torch_mode}
    return found


def setting(args, **model) -> Setting:
    """Return the preset that the flags name, with weights that are not zero.

    Args:
        args: flags of `parser`.
        model: fields of config.model to set besides.
    """
    preset = PRESETS[args.preset]
    config = reading.from_file(str(CONFIGS / f"{preset.config}.py"))
    config.train.batch_size = args.batch
    config.model.dtype = args.dtype
    for name, value in {**preset.model, **model}.items():
        config.model[name] = value
    classes = preset.num_classes or 0
    facts = build_data.DataInfo(
        shape=preset.image_shape,
        levels=preset.levels,
        num_examples=50_000,
        num_classes=preset.num_classes,
        class_names=tuple(map(str, range(classes))),
        fingerprint="random",
    )
    mesh = build_training.mesh(config)
    network = build_network.network(config, facts)
    params = build_training.initial_params(config, network, mesh)
    # Where a network starts at zero, two of them agree whatever they compute.
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jax.device_put(
            np.asarray(leaf) + 0.02 * rng.standard_normal(leaf.shape, np.float32),
            leaf.sharding,
        ),
        params,
    )
    return Setting(args.preset, config, facts, network, params, mesh)


def images(setting: Setting) -> dict[str, np.ndarray]:
    """Return a random batch."""
    rng = np.random.default_rng(0)
    shape = (setting.config.train.batch_size, *setting.facts.shape)
    batch = {"image": rng.uniform(-1, 1, shape).astype(np.float32)}
    if setting.config.model.class_conditional:
        labels = rng.integers(0, setting.facts.num_classes, shape[0])
        batch["label"] = labels.astype(np.int32)
    return batch


def forward_flops(setting: Setting) -> int:
    """Return the FLOPs of the network for one image."""
    return cost.forward_flops(
        setting.network.apply,
        setting.network.shapes,
        setting.facts.shape,
        conditions.abstract(setting.network.condition_spec, 1),
        setting.config.diffusion.rescale_timesteps,
    )


def race(contenders: dict, rounds: int) -> dict[str, list[float]]:
    """Return the milliseconds of every round of every contender.

    They take turns, so that what else the machine does meets all of them alike. Each is
    a function without arguments that runs some steps, waits for the last, and returns
    their number.
    """
    clocked = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            steps = run()
            clocked[name].append(1e3 * (time.perf_counter() - began) / steps)
    return clocked


def device_memory() -> int:
    """Return the peak bytes of the device so far, of a CPU those of this process."""
    stats = jax.local_devices()[0].memory_stats()
    if stats:
        return stats["peak_bytes_in_use"]
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def print_table(setting: Setting, results: list[Result], flops: float) -> None:
    """Print a Markdown table, ours first, and what it was measured on.

    Args:
        flops: of a batch.
    """
    print(f"\n{machine()}\n`{shlex.join(['python', *sys.argv])}`\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for cells in rows(setting, results, flops):
        print(f"| {' | '.join(cells)} |")


def rows(setting: Setting, results: list[Result], flops: float) -> list[tuple]:
    """Return the cells of `COLUMNS` for each result, see `print_table`."""
    return [_cells(setting, result, results[0], flops) for result in results]


def results(contenders: dict, entries: list, rounds: int) -> list[Result]:
    """Race, and return what was found of each, ours first.

    Args:
        contenders: see `race`.
        entries: (name, seconds of compiling, peak memory) of each.
        rounds: see `race`.
    """
    clocked = race(contenders, rounds)
    return [
        Result(name, seconds, clocked[name], memory)
        for name, seconds, memory in entries
    ]


def ratios(theirs: Result, ours: Result) -> list[float]:
    """Return our speed over theirs in each round: above 1 ours is faster."""
    pairs = zip(theirs.milliseconds, ours.milliseconds, strict=True)
    return [their_time / our_time for their_time, our_time in pairs]


def _cells(setting, result, ours, flops):
    config, clocked = setting.config, result.milliseconds
    median = statistics.median(clocked)
    kind, dtype = jax.devices()[0].device_kind, config.model.dtype
    peak = hardware.peak_flops(kind, dtype)
    mfu = flops / (median / 1e3) / (peak * setting.mesh.size) if peak else None
    compiled, memory = result.compile_seconds, result.memory
    return (
        setting.name,
        str(config.train.batch_size),
        dtype,
        result.name,
        "–" if compiled is None else f"{compiled:.1f}",
        spread(clocked, ",.0f" if median >= 100 else ".1f"),
        f"{config.train.batch_size / (median / 1e3):.1f}",
        "–" if memory is None else f"{memory / GIB:.1f}",
        "–" if mfu is None else f"{mfu:.1%}",
        "1" if result is ours else spread(ratios(result, ours), ".2f"),
    )


def spread(values, form=".2f"):
    """Return "median (smallest … largest)"."""
    middle, low, high = (
        format(value, form)
        for value in (statistics.median(values), min(values), max(values))
    )
    return f"{middle} ({low} … {high})"


def machine() -> str:
    """Return a line about devices, cores, load and versions."""
    devices = jax.devices()
    parts = [
        time.strftime("%Y-%m-%d"),
        f"{len(devices)} × {devices[0].device_kind}",
        f"{len(os.sched_getaffinity(0))} cores ({_processor()})",
        f"load {os.getloadavg()[0]:.1f}",
        f"Python {platform.python_version()}",
        f"jax {jax.__version__}",
    ]
    if "torch" in sys.modules:
        parts.append(f"torch {sys.modules['torch'].__version__}")
    return ", ".join(parts)


def _processor():
    """Return the CPU's name and widest vectors, as Linux tells them."""
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    told = dict(line.split("\t: ", 1) for line in lines if "\t: " in line)
    name = next((v for k, v in told.items() if k.strip() == "model name"), "CPU")
    return f"{name}, AVX-512" if "avx512f" in " ".join(told.values()) else name
