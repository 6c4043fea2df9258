"""What a run will need, before its first step: memory, work, traffic, time."""

import re

import jax

from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import planning
from ddpm_jax.builders import step as build_step
from ddpm_jax.builders import training as build_training
from ddpm_jax.models import functional
from ddpm_jax.runs import checkpoint_arrays
from ddpm_jax.runtime import (
    compilation,
    cost,
    devices,
    hardware,
    sharding,
    tpu_topology,
)
from ddpm_jax.runtime.console import say
from ddpm_jax.training import progress

ASSUMED_MFU = 0.4
"""Share of the peak speed that hours are computed for: a round number, not measured."""


def run(config, topology: str = "") -> None:
    """Print what the run would need; nothing is trained and no file written.

    Args:
        config: the whole config, its values checked.
        topology: of the TPU to plan for, see `tpu_topology.devices`; "" for the devices
            of this machine.

    Raises:
        Refusal: a config that training would refuse too, or an unknown topology.
    """
    if topology:
        found = tpu_topology.devices(topology)
    else:
        devices.check()
        found = jax.devices()
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, found)
    planning.check_batch(config, mesh)
    facts, missing = planning.facts(config)
    network = build_network.network(config, facts)
    train_step = build_step.train_step(config, facts, network)
    abstract = build_training.abstract_state(config, network, mesh)
    work = planning.training_flops(config, facts, network)
    state = planning.state_bytes(abstract)

    table("data", data_rows(config, facts, missing))
    table("network", network_rows(config, network, work))
    table("devices", device_rows(config, mesh))
    table("state on each device", sum_rows(state))
    table("checkpoints", checkpoint_rows(config, checkpoint_arrays.size_of(abstract)))
    table("time", time_rows(config, mesh, work))
    say("")
    compiled = compile_step(
        build_step.jitted_step(train_step, abstract, mesh),
        abstract,
        build_step.abstract_batch(config, facts, network, mesh),
        what=f"the train step for {devices_in_words(mesh)}",
    )
    limit = hardware.memory_bytes(found[0])
    if isinstance(compiled, str):
        fits, temporary = False, temporaries_of(compiled)
        table("memory of each device", [("peak", f"DOES NOT FIT: {compiled}")])
    else:
        needed = cost.memory(compiled)
        fits = needed is None or limit is None or needed.peak <= limit
        temporary = needed and needed.temporary
        table("memory of each device", memory_rows(needed, limit))
        sent = cost.collective_bytes(compiled.as_text())
        gradients = functional.num_parameters(network.shapes) * 4
        table("sent between devices in a step", traffic_rows(sent, gradients))
    if not fits:
        held = sum(state.values())
        say("\nIt does not fit. What helps, the cheapest first; plan again with it:")
        options = planning.savings(
            config, mesh, state=held, temporary=temporary, limit=limit
        )
        for number, option in enumerate(options, start=1):
            say(f"  {number}. {option}")
    if missing:
        say(f"\nBefore training: {missing}")


def compile_step(jitted, *args, what) -> jax.stages.Compiled | str:
    """Return the compiled step, or the compiler's words on what it lacks memory for."""
    try:
        return compilation.compile_ahead(jitted, *args, what=what)
    except jax.errors.JaxRuntimeError as error:
        words = str(error).splitlines()[0]
        if planning.OUT_OF_MEMORY not in words:
            raise
        return re.sub(r"^(\w+: )+", "", words).partition(". ")[0]


def temporaries_of(words: str) -> int | None:
    """Return the bytes that the TPU compiler would have needed, if it says so."""
    match = re.search(r"temporaries \(([\d.]+)G\)", words)
    return int(float(match[1]) * 2**30) if match else None


# ---- what is printed -----------------------------------------------------------------


def table(title: str, rows) -> None:
    """Print (name, text) pairs under a title."""
    say(f"\n{title}")
    for name, text in rows:
        say(f"  {name:<22} {text}")


def data_rows(config, facts, missing):
    """Yield the images that the plan is for."""
    classes = f"{facts.num_classes or 'no'} classes"
    yield "name", config.data.name
    yield "images", f"{facts.size}, {classes}"
    if config.model.kind == "upsampler":
        factor = config.data.low_res_factor
        height, width = (side // factor for side in facts.shape[:2])
        yield "made from", f"{height}x{width}, enlarged by {factor}"
    if missing:
        yield "", "assumed, for the data is not here (see the end)"
    else:
        views = config.train.steps * config.train.batch_size / facts.num_examples
        yield "number", f"{facts.num_examples:,}, each seen {views:,.1f} times"


def network_rows(config, network, work):
    """Yield the size of the network and the work of an image."""
    model = config.model
    yield "parameters", f"{functional.num_parameters(network.shapes):,}"
    widths = ", ".join(f"{model.channels * factor:g}" for factor in model.channel_mult)
    yield "channels by level", f"{widths} (blocks at each: {model.num_res_blocks})"
    yield "computes in", f"{model.dtype}, remat {model.remat}"
    forward = work / cost.TRAINING_PASSES
    yield "one image", f"{flop(work)} in training, {flop(forward)} in sampling, a step"


def device_rows(config, mesh):
    """Yield the devices, how they are arranged and what each gets of a batch."""
    train = config.train
    first = mesh.devices.flat[0]
    peak = hardware.peak_flops(first.device_kind, config.model.dtype)
    limit = hardware.memory_bytes(first)
    processes = len({device.process_index for device in mesh.devices.flat})
    yield "devices", f"{devices_in_words(mesh)}, {counted(processes, 'process')}"
    yield "mesh", f"data {mesh.shape['data']} x fsdp {mesh.shape['fsdp']}"
    yield "memory of each", size(limit) if limit else "not known"
    yield (
        "peak speed of each",
        f"{peak / 1e12:,.1f} TFLOP/s in {config.model.dtype}, by its data sheet"
        if peak
        else "not known",
    )
    rows = train.batch_size // mesh.size
    parts = train.microbatches
    at_a_time = f", {rows // parts:,} at a time" if parts > 1 else ""
    yield "batch", f"{train.batch_size:,} images: {rows:,} on each device{at_a_time}"


def sum_rows(parts):
    """Yield sizes and their sum."""
    for name, number in parts.items():
        yield name, f"{size(number):>11}"
    yield "together", f"{size(sum(parts.values())):>11}"


def checkpoint_rows(config, one):
    """Yield the size of a checkpoint and of all that lie on the disk at a time."""
    keep = config.train.keep_checkpoints
    at_most = keep + 1 + (config.train.evaluate_every > 0)
    best = ", the best" if config.train.evaluate_every else ""
    yield "one", f"{size(one):>11}"
    yield (
        "on the disk, at most",
        f"{size(at_most * one):>11}: the last {keep}{best} and the one being written",
    )


def time_rows(config, mesh, work):
    """Yield the hours of the run at the assumed utilisation."""
    train = config.train
    kind, dtype = mesh.devices.flat[0].device_kind, config.model.dtype
    peak = hardware.peak_flops(kind, dtype)
    yield "steps", f"{train.steps:,} of {train.batch_size:,} images"
    if peak is None:
        yield (
            "training takes",
            f"unknown, like the peak speed of {kind} in {dtype}: the ETA of the first "
            "steps will tell",
        )
        return
    rate = ASSUMED_MFU * peak * mesh.size / work
    share = f"{100 * ASSUMED_MFU:.0f} %"
    yield "speed", f"{rate:,.0f} images/s, if {share} of the peak are reached"
    seconds = train.steps * train.batch_size / rate
    yield (
        "training takes",
        f"{progress.duration(seconds)}, without evaluation and samples",
    )
    yield "", f"({share} is an assumption: small networks and batches reach less)"


def memory_rows(needed, limit):
    """Yield what the compiler has planned, and whether a device has it."""
    if needed is None:
        yield "needed", "the compiler does not tell"
        return
    yield "state and batch", f"{size(needed.arguments):>11}"
    yield "activations, buffers", f"{size(needed.temporary):>11}"
    rest = needed.peak - needed.arguments - needed.temporary
    yield "results and program", f"{size(rest):>11}"
    verdict = "; what this device has is not known"
    if limit:
        word = "fits" if needed.peak <= limit else "DOES NOT FIT"
        verdict = f" of {size(limit)} ({100 * needed.peak / limit:.1f} %): {word}"
    yield "peak", f"{size(needed.peak):>11}{verdict}"


def traffic_rows(sent, gradients):
    """Yield the bytes of each kind of collective, and those of the gradients."""
    if not sent:
        yield "nothing", "there is one device"
        return
    for kind, number in sorted(sent.items(), key=lambda item: -item[1]):
        yield kind, f"{size(number):>11}"
    yield "(the gradients have", f"{size(gradients):>11})"


def devices_in_words(mesh) -> str:
    """Return e.g. "16 x TPU v5 lite"."""
    return f"{mesh.size} x {mesh.devices.flat[0].device_kind}"


def counted(number: int, noun: str) -> str:
    """Return e.g. "1 process" or "4 processes"."""
    return f"{number} {noun}{'es' * (number > 1)}"


def size(number: int) -> str:
    """Return bytes as e.g. "3.21 GiB" or "40.0 MiB"."""
    if number >= 2**30:
        return f"{number / 2**30:,.2f} GiB"
    if number >= 2**20:
        return f"{number / 2**20:.1f} MiB"
    return f"{number / 2**10:.1f} KiB"


def flop(number: float) -> str:
    """Return work as e.g. "50.3 GFLOP"."""
    unit, name = (1e9, "GFLOP") if number >= 1e9 else (1e6, "MFLOP")
    return f"{number / unit:,.1f} {name}"
