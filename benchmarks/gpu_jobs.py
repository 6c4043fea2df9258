"""What `python -m benchmarks.gpu` measures, the most important first.

Each job is a function that runs in a process of its own. It returns parts of the
section: a title, the columns of its table, and rows of cells.
"""

import importlib.util
import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from benchmarks import device_time
from benchmarks.registry import imported

TRAINING, SAMPLING = "Train step", "Sampling"
TIME = "Where the time of a train step goes"
TINY = ("--preset=tiny", "--batch=4", "--rounds=2", "--no-compiled")
REPEATED = ("what", "preset", "dtype", "largest difference")
ATTENTION = (
    *("B × N × heads × d", "route", "forward: einsum's time over its"),
    *("with gradients", "error of out, dq, dk, dv", "error of the einsum"),
)
HEADS, WIDTH = 4, 64  # of ADM
CHECKED = 1024  # the longest that is compared with float64
GREYS = 127.5  # grey levels of a difference of 1


class Part(NamedTuple):
    """Rows of a table of the section."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


class Job(NamedTuple):
    """A measurement.

    Attributes:
        what: in words.
        measure: `(folder, tiny, *flags) → list[Part]`.
        flags: of it.
        seconds: that it takes, about, on an H100; a guess until one was there.
    """

    what: str
    measure: Callable[..., list[Part]]
    flags: tuple[str, ...]
    seconds: int
    needs_torch: bool = False


def train(folder: pathlib.Path, tiny: bool, *flags: str) -> list[Part]:
    """Race a train step, and tell where ours spends its time."""
    script, presets = imported("train_step"), imported("presets")
    profile = folder / "profile" / "_".join(flag.strip("-") for flag in flags[:3])
    given = [*flags, *_alone(), *(TINY if tiny else ()), f"--profile={profile}"]
    setting, results, flops = script.race(script.parser().parse_args(given))
    model = setting.config.model
    parts = [Part(TRAINING, presets.COLUMNS, presets.rows(setting, results, flops))]
    if shares := device_time.shares(profile):
        told = map("{:.1%}".format, shares.values())
        row = (f"{setting.name}, {model.dtype}", *told)
        parts.append(Part(TIME, ("program", *shares), [row]))
    return parts


def sample(folder: pathlib.Path, tiny: bool, *flags: str) -> list[Part]:
    """Race DDIM steps."""
    script, presets = imported("sample"), imported("presets")
    given = [*flags, *_alone(), *((*TINY, "--sampling-steps=2") if tiny else ())]
    setting, results, flops = script.race(script.parser().parse_args(given))
    return [Part(SAMPLING, presets.COLUMNS, presets.rows(setting, results, flops))]


def repeatability(folder: pathlib.Path, tiny: bool, *flags: str) -> list[Part]:
    """Do the same twice, and make the same images in batches of two sizes."""
    import jax

    presets, training = imported("presets"), imported("train_step")
    parser = imported("sample").parser()
    args = parser.parse_args([*flags, *((*TINY, "--sampling-steps=2") if tiny else ())])
    setting = presets.setting(args, remat="none")
    config = setting.config
    ours = training.Ours(setting, presets.images(setting))
    ends = []
    for _ in range(2):
        ours.state = ours.fresh()
        ours.run(5)
        ends.append(jax.tree.map(np.asarray, ours.state.params))
    steps = {"method": "ddim", "steps": args.sampling_steps, "eta": 0.0}
    config.sampling.update(steps)
    batches = [images(setting, args.batch * times) for times in (1, 1, 4)]
    noise, made = zip(*batches, strict=True)
    few = slice(args.batch)
    found = {
        "5 train steps twice, parameters": f"{largest(*ends):.1e}",
        "images twice": f"{largest(made[0], made[1]):.1e}",
        f"image i in batches of {args.batch} and {4 * args.batch}": (
            f"{GREYS * largest(made[0], made[2][few]):.2f} grey levels"
        ),
        "its first noise": f"{largest(noise[0], noise[2][few]):.1e}",
    }
    rows = [(what, setting.name, args.dtype, told) for what, told in found.items()]
    return [Part("Repeatability", REPEATED, rows)]


def images(setting, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return x_T and the images 0 … size−1 of a setting, made in one batch."""
    setting.config.train.batch_size = size
    conditional = setting.config.model.class_conditional
    labels = np.arange(size, dtype=np.int32) % (setting.facts.num_classes or 1)
    ours = imported("sample").Ours(setting, labels if conditional else None)
    return np.asarray(ours.x_T), np.asarray(ours.sample())


def largest(one, other) -> float:
    """Return the largest absolute difference of two trees of arrays."""
    import jax

    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    return max(float(np.max(np.abs(np.subtract(*pair)))) for pair in pairs)


def attention(folder: pathlib.Path, tiny: bool, *lengths: str) -> list[Part]:
    """Race the route that attention takes against the einsum, and check both."""
    rows = []
    for length in ("16",) if tiny else lengths:
        size = (2 if tiny else 16, int(length), HEADS, WIDTH)
        rows.append(attention_row(size, calls=1 if tiny else 20))
    return [Part("Attention, bfloat16", ATTENTION, rows)]


def attention_row(size: tuple[int, int, int, int], calls: int) -> tuple[str, ...]:
    """Return the cells of `ATTENTION` for arrays [B, N, heads, d]."""
    import jax
    import jax.numpy as jnp

    from ddpm_jax.models import attention as models_attention
    from ddpm_jax.models import attention_routes

    presets = imported("presets")
    rng = np.random.default_rng(0)
    *qkv, seen = (jnp.asarray(rng.normal(size=size), jnp.bfloat16) for _ in range(4))
    lengths, dtype = (size[1], size[1]), qkv[0].dtype
    backend = attention_routes.backend()
    route = attention_routes.route(backend, dtype, lengths, size[-1], masked=False)

    def routed(q, k, v):
        return models_attention.attend(q, k, v, scale="product").reshape(q.shape)

    def products(q, k, v):
        return models_attention.einsum(q, k, v, factor=size[-1] ** -0.5)

    def with_gradients(function):
        def both(q, k, v):
            out, pull = jax.vjp(function, q, k, v)
            return out, *pull(seen)

        return both

    def run(program):
        def times():
            for _ in range(calls):
                out = program(*qkv)
            jax.block_until_ready(out)
            return calls

        return times

    programs = [
        jax.jit(form(function))
        for form in (lambda function: function, with_gradients)
        for function in (routed, products)
    ]
    contenders = {i: run(program) for i, program in enumerate(programs)}
    presets.race(contenders, 1)  # compiles
    clocked = presets.race(contenders, 5)
    gains = [
        presets.spread([b / a for a, b in zip(clocked[i], clocked[i + 1], strict=True)])
        for i in (0, 2)
    ]
    errors = ["–", "–"]
    if size[1] <= CHECKED:
        right = exact_attention(*(np.float64(array[0]) for array in (*qkv, seen)))
        errors = [
            ", ".join(
                f"{relative_error(got[0], true):.1e}"
                for got, true in zip(program(*qkv), right, strict=True)
            )
            for program in programs[2:]
        ]
    return (" × ".join(map(str, size)), route, *gains, *errors)


def relative_error(got, true: np.ndarray) -> float:
    """Return the largest error, as a share of the largest entry."""
    return float(np.max(np.abs(np.float64(got) - true)) / np.max(np.abs(true)))


def exact_attention(q, k, v, seen):
    """Return softmax(q·k/√d) v and its gradients to q, k, v: [N, heads, d], float64.

    Args:
        q, k, v: queries, keys, values.
        seen: the cotangent of the result.
    """
    scale = q.shape[-1] ** -0.5
    logits = scale * np.einsum("qhd,khd->hqk", q, k)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    out = np.einsum("hqk,khd->qhd", weights, v)
    slope = np.einsum("qhd,khd->hqk", seen, v)
    slope = weights * (slope - np.sum(weights * slope, axis=-1, keepdims=True))
    dq = scale * np.einsum("hqk,khd->qhd", slope, k)
    dk = scale * np.einsum("hqk,qhd->khd", slope, q)
    return out, dq, dk, np.einsum("hqk,qhd->khd", weights, seen)


def _alone():
    """Return the flag for a machine without PyTorch."""
    return () if importlib.util.find_spec("torch") else ("--alone",)


def _of(preset, batch, dtype):
    return (f"--preset={preset}", f"--batch={batch}", f"--dtype={dtype}")


JOBS = {
    # As many of the first as fit into the time; the next call goes on.
    "attention": Job("cuDNN's attention", attention, ("64", "256", "1024", "4096"), 45),
    "train_adm64": Job(
        "train step of adm64 in bfloat16, batch 64",
        train,
        (*_of("adm64", 64, "bfloat16"), "--half", "--steps=5", "--rounds=9"),
        165,
    ),
    "train_iddpm": Job(
        "train step of iddpm_cifar10 in bfloat16, batch 128",
        train,
        (*_of("iddpm_cifar10", 128, "bfloat16"), "--half", "--steps=10", "--rounds=9"),
        100,
    ),
    "repeat_iddpm": Job(
        "repeatability of iddpm_cifar10 in bfloat16",
        repeatability,
        (*_of("iddpm_cifar10", 8, "bfloat16"), "--sampling-steps=10"),
        50,
    ),
    "sample_adm64": Job(
        "25 DDIM steps of adm64 in bfloat16, batch 64",
        sample,
        (*_of("adm64", 64, "bfloat16"), "--half", "--sampling-steps=25"),
        110,
    ),
    "sample_iddpm": Job(
        "50 DDIM steps of iddpm_cifar10 in bfloat16, batch 128",
        sample,
        (*_of("iddpm_cifar10", 128, "bfloat16"), "--half", "--sampling-steps=50"),
        80,
    ),
    "train_adm256": Job(
        "train step of adm256 in bfloat16, batch 8",
        train,
        (*_of("adm256", 8, "bfloat16"), "--half", "--steps=3", "--rounds=9"),
        170,
    ),
    "repeat_iddpm_float32": Job(
        "repeatability of iddpm_cifar10 in float32",
        repeatability,
        (*_of("iddpm_cifar10", 8, "float32"), "--sampling-steps=10"),
        50,
    ),
    "train_iddpm_float32": Job(
        "train step of iddpm_cifar10 in float32, batch 128",
        train,
        (*_of("iddpm_cifar10", 128, "float32"), "--steps=10", "--rounds=9"),
        90,
    ),
    "sample_adm256": Job(
        "10 DDIM steps of adm256 in bfloat16, batch 16",
        sample,
        (*_of("adm256", 16, "bfloat16"), "--half", "--sampling-steps=10"),
        120,
    ),
    "train_adm64_float32": Job(
        "train step of adm64 in float32, batch 32",
        train,
        (*_of("adm64", 32, "float32"), "--steps=5", "--rounds=9"),
        120,
    ),
    "train_iddpm_autotune": Job(
        "train step of iddpm_cifar10 against torch.compile at its best",
        train,
        (
            *_of("iddpm_cifar10", 128, "bfloat16"),
            *("--steps=10", "--rounds=9", "--torch-mode=max-autotune"),
        ),
        180,
    ),
}
