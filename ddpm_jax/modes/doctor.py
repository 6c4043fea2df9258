"""The state of this machine: versions, devices, speed, and a test of the arithmetic."""

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax import config as config_lib
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import trained_run
from ddpm_jax.builders import training as build_training
from ddpm_jax.core import errors, keys
from ddpm_jax.diagnosis import defects, leaves, measure
from ddpm_jax.diffusion import process, respacing, schedules
from ddpm_jax.metrics import oracle
from ddpm_jax.runs import checkpoints
from ddpm_jax.runtime import compilation, devices, versions
from ddpm_jax.runtime import sharding as sharding_lib
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import recipe as recipe_lib
from ddpm_jax.sampling import sampler as sampler_lib
from ddpm_jax.training import step

GIB = 2**30
MAX_DEVIATION = 5.0  # standard errors; one of 10⁵ correct machines would exceed it
NUM_SAMPLES = 8192
NUM_STEPS = 1000  # T of the self-test
SAMPLERS = (("ancestral", 0.0), ("ddim", 0.0), ("ddim", 1.0))
SAMPLER_STEPS = (1, 10, 100, NUM_STEPS)
TIMING_SECONDS = 0.5


class Verdict(NamedTuple):
    """Whether a check held, and the numbers that say so."""

    good: bool
    numbers: str


def run(workdir: str = "") -> None:
    """Print what this machine is and whether it computes what it should.

    Args:
        workdir: a run, of whose network every parameter is looked at too; "" for none.

    Raises:
        Refusal: a check failed; raised after everything has been printed.
    """
    saved = trained_run.read(workdir) if workdir else None
    compilation.enable_cache()
    say(f"ddpm_jax on {platform.platform()}")
    _print("versions", version_lines(versions.versions()))
    _print("devices", device_lines())
    _print("machine", machine_lines())
    _print("speed", speed_lines())
    _print("repeatability", [("", defects.repeatability())])
    _print("known defects of jaxlib", defects.lines())
    say("\nself-test, float32 (a minute at most)")
    started, failed, count = time.perf_counter(), [], 0
    for name, check in (*checks(), *checks_of(saved)):
        begun = time.perf_counter()
        verdict = _verdict(check)
        count += 1
        word = "ok" if verdict.good else "FAILED"
        seconds = time.perf_counter() - begun
        say(f"  {word:<7} {name:<26} {verdict.numbers:<46} {seconds:4.1f} s")
        if not verdict.good:
            failed.append(name)
    if failed:
        raise errors.Refusal(
            f"{len(failed)} of {count} checks failed ({', '.join(failed)}): do not "
            "trust what is computed here before the lines above are understood"
        )
    say(f"\nall {count} checks passed in {time.perf_counter() - started:.0f} s")


def _print(title, lines):
    say(f"\n{title}")
    for name, text in lines:
        say(f"  {name:<18} {text}")


def _verdict(check):
    try:
        return check()
    except (errors.Refusal, jax.errors.JaxRuntimeError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return Verdict(False, lines[0])


# ---- what is here --------------------------------------------------------------------


def version_lines(found: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield every package with its version, marked where it has not been tested."""
    for package, version in found.items():
        if package not in versions.TESTED:
            yield package, version
            continue
        first, last = versions.TESTED[package]
        span = f"tested: {first}" + (f" … {last}" if last != first else "")
        if (
            not versions.release(first)
            <= versions.release(version)
            <= versions.release(last)
        ):
            newer = versions.release(version) > versions.release(last)
            span = f"NOT TESTED, {'newer' if newer else 'older'} than {span}"
        yield package, f"{version:<12} {span}"


def device_lines() -> Iterator[tuple[str, str]]:
    """Yield the devices of this process and what lies idle."""
    found = jax.local_devices()
    first = found[0]
    yield "computes on", f"{len(found)} x {first.device_kind} ({first.platform})"
    memory = first.memory_stats() or {}
    if "bytes_limit" in memory:
        limit, used = memory["bytes_limit"], memory.get("bytes_in_use", 0)
        yield (
            "memory of each",
            f"{limit / GIB:.1f} GiB for JAX, {used / GIB:.1f} used "
            "(XLA_PYTHON_CLIENT_MEM_FRACTION sets how much it takes)",
        )
    if jax.process_count() > 1:
        yield "processes", f"{jax.process_index() + 1} of {jax.process_count()}"
    facts = devices.probe()
    yield "NVIDIA GPU", facts.nvidia or "none visible"
    yield "TPU", facts.tpu or "none visible"


def machine_lines() -> Iterator[tuple[str, str]]:
    """Yield processor, memory and free disk."""
    usable = len(os.sched_getaffinity(0))
    yield "CPU cores", f"{usable} usable of {os.cpu_count()}"
    page = os.sysconf("SC_PAGE_SIZE") / GIB
    total, free = (
        os.sysconf(name) * page for name in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES")
    )
    yield "memory", f"{free:.1f} GiB free of {total:.1f}"
    yield (
        "disk here",
        f"{shutil.disk_usage('.').free / GIB:.1f} GiB free in {os.getcwd()}",
    )
    cache = jax.config.jax_compilation_cache_dir
    if not cache:
        yield "compiled programs", "not cached: every start compiles again"
    elif not Path(cache).is_dir():
        yield "compiled programs", f"kept in {cache}"
    else:
        free = shutil.disk_usage(cache).free / GIB
        yield "compiled programs", f"kept in {cache} ({free:.1f} GiB free)"


def speed_lines() -> Iterator[tuple[str, str]]:
    """Yield the speed of a matrix product and of a convolution, float32."""
    on_cpu = jax.default_backend() == "cpu"
    size = 1024 if on_cpu else 8192
    square = jnp.ones((size, size))
    seconds = _seconds(lambda a: a @ a, square)
    yield f"matmul {size}", f"{2e-9 * size**3 / seconds:,.0f} GFLOP/s"
    batch, side, channels = (8 if on_cpu else 256), 32, 128
    images = jnp.ones((batch, side, side, channels))
    kernel = jnp.ones((3, 3, channels, channels))
    seconds = _seconds(
        lambda x, k: jax.lax.conv_general_dilated(
            x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        ),
        images,
        kernel,
    )
    work = 2e-9 * batch * side**2 * channels**2 * 9
    yield (
        "convolution",
        f"{work / seconds:,.0f} GFLOP/s, {batch / seconds:,.0f} images/s (3x3, "
        f"{channels} channels, {side}x{side})",
    )


def _seconds(function, *args):
    """Return the time of one call, the compilation not counted."""
    compiled = jax.jit(function)
    compiled(*args).block_until_ready()
    calls, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < TIMING_SECONDS:
        compiled(*args).block_until_ready()
        calls += 1
    return spent / calls


# ---- whether it computes what it should ----------------------------------------------


def checks() -> Iterator[tuple[str, Callable[[], Verdict]]]:
    """Yield the checks of the self-test by name."""
    yield "accelerator in use", accelerator
    yield "schedule, cosine", cosine_schedule
    yield "schedule, posterior", posterior_identities
    yield "noising, q(x_t | x_0)", noising
    for method, eta in SAMPLERS:
        for steps in SAMPLER_STEPS:
            name = f"ddim η={eta:g}" if method == "ddim" else method
            yield (
                f"{name}, {steps} step{'s' * (steps > 1)}",
                lambda m=method, e=eta, s=steps: sampler(m, e, s),
            )
    yield "checkpoint", checkpoint
    yield "train step", train_step


def checks_of(saved) -> Iterator[tuple[str, Callable[[], Verdict]]]:
    """Yield the checks of a run's network; none without a run."""
    if saved is not None:
        yield "parameters of the run", lambda: Verdict(*leaves.of_run(saved))


def accelerator() -> Verdict:
    """No accelerator lies idle by mistake."""
    sentence = devices.idle(devices.probe())
    return Verdict(sentence is None, sentence or jax.default_backend())


def _linear():
    return process.Schedule.from_betas(schedules.make_betas("linear", NUM_STEPS))


def cosine_schedule() -> Verdict:
    """The tables on the device hold the closed form, Improved DDPM eq. 17."""
    betas = schedules.make_betas("cosine", NUM_STEPS)
    tables = process.tables(process.Schedule.from_betas(betas))

    def f(t):
        return np.cos((t / NUM_STEPS + 0.008) / 1.008 * np.pi / 2) ** 2

    # The last β is clipped at 0.999.
    wanted = f(np.arange(1, NUM_STEPS)) / f(0)
    error = np.max(np.abs(np.asarray(tables.alpha_bar)[:-1] / wanted - 1))
    return Verdict(bool(error < 1e-6), f"relative error of ᾱ {error:.1e}")


def posterior_identities() -> Verdict:
    """q(x_{t−1} | x_t, x_0) keeps the mean √ᾱ_{t−1} x_0 and the variance 1−ᾱ_{t−1}."""
    tables = process.tables(_linear())
    of_x_0, of_x_t, added, signal, noise_var = (
        np.asarray(table, np.float64)
        for table in (
            tables.posterior_mean_x_0,
            tables.posterior_mean_x_t,
            tables.posterior_variance,
            tables.sqrt_alpha_bar,
            tables.one_minus_alpha_bar,
        )
    )
    signal_before = np.append(1.0, signal[:-1])
    noise_before = np.append(0.0, noise_var[:-1])
    mean_error = np.max(np.abs(of_x_0 + of_x_t * signal - signal_before))
    var_error = np.max(np.abs(of_x_t**2 * noise_var + added - noise_before))
    error = max(mean_error, var_error)
    return Verdict(bool(error < 1e-6), f"error of mean and variance {error:.1e}")


def noising() -> Verdict:
    """Draws of x_t have the moments of `DATA` noised."""
    schedule, data = _linear(), oracle.DATA
    tables = process.tables(schedule)
    worst = 0.0
    for t in (0, NUM_STEPS // 2, NUM_STEPS - 1):
        key_0, key = keys.split(keys.key_for(0, "doctor/noising", step=t))
        shape = (NUM_SAMPLES, len(data.mean))
        x_0 = data.mean + np.sqrt(data.var) * keys.normal(key_0, shape)
        noise = keys.normal(key, shape)
        x_t = process.q_sample(tables, x_0, jnp.full(NUM_SAMPLES, t), noise)
        alpha_bar = schedule.alpha_bar[t]
        law = oracle.Gaussian(
            np.sqrt(alpha_bar) * data.mean, alpha_bar * data.var + 1 - alpha_bar
        )
        worst = max(worst, *oracle.deviation(x_t, law))
    return Verdict(worst < MAX_DEVIATION, f"moments off by {worst:.1f} σ")


def sampler(method: str, eta: float, steps: int) -> Verdict:
    """Samples of the exact denoiser have the law that float64 derives for them."""
    whole = _linear()
    options = {"eta": eta} if method == "ddim" else {}
    recipe = recipe_lib.Recipe(
        schedule=respacing.respace(whole, steps),
        prediction="noise",
        variance="fixed_small",
        shape=(1, 1, len(oracle.DATA.mean)),
        solver=recipe_lib.part(method, **options),
    )
    mean, var = measure.exact_chain(recipe, whole, sharding_lib.make_mesh())
    good = max(mean, var) < MAX_DEVIATION
    return Verdict(good, f"mean off by {mean:.1f} σ, variance by {var:.1f} σ")


def checkpoint() -> Verdict:
    """What is saved comes back, to the last bit, onto the same devices."""
    sharding = sharding_lib.replicated(sharding_lib.make_mesh())
    drawn = keys.normal(keys.key_for(0, "doctor/checkpoint"), (1024, 256))
    state = {"weights": jax.device_put(drawn, sharding)}
    shape = jax.ShapeDtypeStruct(drawn.shape, drawn.dtype, sharding=sharding)
    with (
        tempfile.TemporaryDirectory(prefix="ddpm_jax-doctor-") as folder,
        checkpoints.Checkpoints(Path(folder) / "checkpoints") as saved,
    ):
        saved.save(1, state)
        restored = saved.restore({"weights": shape}).state["weights"]
    same = np.asarray(drawn).tobytes() == np.asarray(restored).tobytes()
    return Verdict(same, f"1 MiB back {'bit for bit' if same else 'with other bits'}")


def train_step() -> Verdict:
    """The first step of a small U-Net is finite; its loss is that of predicting 0.

    The last convolution starts at 0, so the loss is the mean of ε² over N numbers: 1
    with a standard error of √(2/N).
    """
    config = config_lib.base()
    config.model.update(channels=32, channel_mult=(1,), num_res_blocks=1)
    config.model.update(attention_resolutions=(8,), num_heads=2)
    mesh = build_training.mesh(config)
    size = sampler_lib.rounded_batch(32, mesh)
    facts = build_data.DataInfo(
        shape=(8, 8, 3),
        levels=256,
        num_examples=size,
        num_classes=None,
        class_names=(),
        fingerprint="",
    )
    network = build_network.network(config, facts)
    abstract = build_training.abstract_state(config, network, mesh)
    params = build_training.initial_params(config, network, mesh)
    state = build_training.initial_state(config, params, abstract)
    batch = {"image": np.zeros((size, *facts.shape), np.float32)}
    take = jax.jit(
        lambda state, batch: step.train_step(
            state,
            batch,
            seed=config.seed,
            apply=network.apply,
            tables=process.tables(build_process.schedule(config)),
            objective=build_process.objective(config, facts),
            optimizer=build_training.optimizer(config),
            learning_rate=build_training.learning_rate(config),
            timestep_sampler=build_process.timestep_sampler(config),
        )
    )
    _, metrics = take(state, sharding_lib.put_batch(mesh, batch))
    loss, gradient = float(metrics["loss"]), float(metrics["grad_norm"])
    error = abs(loss - 1) / np.sqrt(2 / batch["image"].size)
    good = bool(metrics["finite"]) and gradient > 0 and error < MAX_DEVIATION
    return Verdict(
        good, f"loss {loss:.4f}, {error:.1f} σ from 1; gradient {gradient:.3g}"
    )
