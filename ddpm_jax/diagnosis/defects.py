"""Known defects of XLA on CPUs, looked for by running them; and repeatability.

jaxlib 0.10.2 and 0.11.0 hand fused sums to a library that crashes or hangs for arrays
of 7 axes and more (jax-ml/jax issues 39257, 40412) and computes some products of rows
wrongly (39103). What crashes takes its process with it, so it is run in another one.
Nothing of ddpm_jax has these forms: its sums flatten arrays first, and a test holds it
to that at 7 and 8 axes. A network of the user's own may have them.
"""

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import keys

MOST_AXES = 8
SHAPE = (3, 1, 2, 2, 8, 8, 8, 2)  # one axis of length 1 that is not summed
ROWS = 32_769  # the fewest that are computed wrongly
SECONDS = 40
REPEATS = 5
REMEDY = "XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type= avoids it, at a slower step"
PROGRAM = f"""
import numpy as np, jax, jax.numpy as jnp
jax.devices()
print('ready', flush=True)
row = jnp.zeros(({ROWS}, 3)).at[:, 0].set(jnp.arange({ROWS}))
squared = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(row)
print('rows', bool(squared[-1] == float({ROWS} - 1) ** 2), flush=True)
for axes in range(2, {MOST_AXES} + 1):
    shape = {SHAPE}[:axes]
    for axis in range(axes):
        made = jax.jit(lambda a, b: jnp.sum(a * b, axis=axis))(
            np.ones(shape, 'f'), np.full(shape, 3, 'f'))
        assert np.array_equal(made, np.full(made.shape, 3 * shape[axis])), axes
    print('axes', axes, flush=True)
"""


def lines() -> Iterator[tuple[str, str]]:
    """Yield what was found, as (name, words)."""
    if jax.default_backend() != "cpu":
        yield "known defects", "those of CPUs alone are known; this is none"
        return
    yield from reports(*_run(PROGRAM))


def reports(output: str, status: int | None, said: str) -> Iterator[tuple[str, str]]:
    """Yield in words what the program of the probes printed before it ended.

    Args:
        output: its lines; "ready" first, once jax is imported and has its devices.
        status: as `subprocess` has it; None where it hung.
        said: what it wrote as errors.
    """
    if "ready" not in output.split():
        ends = f"did not start in {SECONDS} s" if status is None else "did not start"
        last = (said.strip().splitlines() or ["it says nothing"])[-1].strip()
        yield "sums, products", f"not looked for: another process {ends}: {last}"
        return
    facts = [line.split() for line in output.splitlines() if " " in line]
    axes = max((int(n) for name, n in facts if name == "axes"), default=0)
    if axes == MOST_AXES:
        yield "sums", f"right for 2 … {MOST_AXES} axes"
    else:
        how = "hang" if status is None else "crash or are wrong"
        yield "sums", f"{how} for {max(axes + 1, 2)} axes, a defect of this jaxlib"
        yield "", f"a network of your own with so many: {REMEDY}"
    rows = {value for name, value in facts if name == "rows"}
    if rows == {"True"}:
        yield "products of rows", f"right for {ROWS:,} rows"
    elif rows:
        yield "products of rows", f"WRONG for {ROWS:,} rows, a defect of this jaxlib"
        yield "", f"a network of your own with vmap and sums: {REMEDY}"


def _run(program):
    """Return what another process printed, its status, None if it hung, its errors."""
    root = str(pathlib.Path(__file__).parents[2])
    inherited = os.environ.get("PYTHONPATH", "")
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, [root, inherited])),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", program],
            env=environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        output, said = (
            kept.decode(errors="replace") if isinstance(kept, bytes) else kept or ""
            for kept in (error.stdout, error.stderr)
        )
        return output, None, said
    except OSError as error:  # no process, or no memory for one
        return "", 1, str(error)
    return done.stdout, done.returncode, done.stderr


# ---- repeatability -------------------------------------------------------------------


def repeatability() -> str:
    """Return whether the same program on the same numbers gives the same bits here.

    A convolution with its gradients, and a sum into few places, as embeddings have
    it: where devices add in changing order.
    """
    image, kernel, values = (
        keys.normal(keys.key_for(0, "doctor/repeat", index=n), shape)
        for n, shape in enumerate([(8, 16, 16, 32), (3, 3, 32, 32), (4096, 8)])
    )
    places = np.arange(4096) % 7

    def total(image, kernel, values):
        made = jax.lax.conv_general_dilated(
            image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        summed = jnp.zeros((7, 8)).at[places].add(values)
        return jnp.mean(jnp.tanh(made) ** 2) + jnp.sum(summed**2)

    program = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    runs = [
        [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(made)]
        for made in (program(image, kernel, values) for _ in range(REPEATS))
    ]
    return verdict(all(run == runs[0] for run in runs))


def verdict(same: bool) -> str:
    """Return in words whether the runs gave the same bits."""
    if same:
        return f"the same bits in {REPEATS} runs: a resumed run can be equal to the bit"
    return (
        "other bits from run to run: a resumed run is equal up to rounding; "
        "XLA_FLAGS=--xla_gpu_deterministic_ops=true makes a GPU repeat itself, slower"
    )
