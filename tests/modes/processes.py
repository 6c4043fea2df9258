"""Commands in processes of their own: started, watched, stopped, and what they drew."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import subprocess
import sys
import time

import jax
import numpy as np
from several_processes import free_port
from small_runs import ROOT, Told

from ddpm_jax import main
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import trained_run
from ddpm_jax.builders import training as build_training
from ddpm_jax.core import keys
from ddpm_jax.data import pipeline
from ddpm_jax.diffusion import losses
from ddpm_jax.runs import checkpoints
from ddpm_jax.runtime import distributed, sharding
from ddpm_jax.runtime.cluster import launch as launch_lib
from ddpm_jax.training import progress, step

SECONDS = 300  # until a process that hangs is a failure, on a machine that is busy
HERE = pathlib.Path(__file__).parent
NOISES, IMAGE_SHAPE = 16, (8, 8, 1)
OF_A_JOB = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
COMMAND = ("-m", "ddpm_jax.main")
# These run what stands at the end of this file.
SEVERAL = ("-c", "import processes as p, sys; sys.exit(p.several(*sys.argv[1:]))")
SPOILED = ("-c", "import processes as p, sys; sys.exit(p.spoiled(*sys.argv[1:]))")


# ---- processes -----------------------------------------------------------------------


@dataclasses.dataclass
class Process:
    """A process whose two streams go to files."""

    running: subprocess.Popen
    out: pathlib.Path
    err: pathlib.Path

    def has_said(self, text) -> bool:
        return text in self.out.read_text()

    @property
    def step(self) -> int:
        """The last step that it has told of."""
        steps = re.findall(r"^step +(\d+)/", self.out.read_text(), re.MULTILINE)
        return int(steps[-1]) if steps else 0

    def wait_for(self, condition) -> bool:
        """Wait until a condition holds; return whether the process still runs then."""
        deadline = time.monotonic() + SECONDS
        while not condition() and self.running.poll() is None:
            assert time.monotonic() < deadline, self.out.read_text()
            time.sleep(0.002)
        return self.running.poll() is None

    def wait_for_line(self, text) -> None:
        """Wait until it has said something; to end before is a failure."""
        self.wait_for(lambda: self.has_said(text))
        assert self.has_said(text), self.out.read_text() + self.err.read_text()

    def finish(self) -> Told:
        status = self.running.wait(timeout=SECONDS)
        return Told(status, self.out.read_text(), self.err.read_text())


@contextlib.contextmanager
def started(folder, *arguments, program=COMMAND, count=1, devices=1, own=()):
    """Start the processes of one job, which are killed at the end of the block.

    Args:
        folder: for what they say.
        *arguments: of each.
        program: how Python runs what takes them.
        count: number of processes.
        devices: fake devices of each.
        own: (process, argument) pairs: what one of them is given besides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, HERE.parent, HERE))),
    }
    job = {}
    if count > 1:
        job = dict(zip(OF_A_JOB, (f"127.0.0.1:{free_port()}", count), strict=False))
    group = []
    with contextlib.ExitStack() as stack:
        for index in range(count):
            given = [*arguments, *(value for process, value in own if process == index)]
            place = {**job, OF_A_JOB[2]: index} if job else {}
            streams = [folder / f"{name}-{index}" for name in ("out", "err")]
            running = subprocess.Popen(
                [sys.executable, *program, *map(str, given)],
                cwd=ROOT,
                env={**environment, **{name: str(v) for name, v in place.items()}},
                stdin=subprocess.DEVNULL,
                stdout=stack.enter_context(streams[0].open("w")),
                stderr=stack.enter_context(streams[1].open("w")),
                start_new_session=True,
                # So that the mode of a file tells which process wrote it.
                umask=0o077 if index else 0o022,
            )
            stack.callback(running.wait)
            stack.callback(running.kill)
            group.append(Process(running, *streams))
        yield group


def told(folder, *arguments, **options) -> list[Told]:
    """Run the processes of one job to their end; return what each said."""
    with started(folder, *arguments, **options) as group:
        return [process.finish() for process in group]


# ---- what a run holds ----------------------------------------------------------------


def published(workdir) -> list[int]:
    """Return the steps with a checkpoint that counts: a folder and its digests."""
    names = {path.name for path in workdir.glob("checkpoints/*")}
    steps = [int(name) for name in names if name.isdecimal()]
    return sorted(step for step in steps if f"{step}.sha256.json" in names)


def whole_state(workdir) -> dict[str, np.ndarray]:
    """Return every leaf of the newest state by its path: moments and history too."""
    saved = trained_run.read(workdir)
    config, facts = saved.config, saved.facts
    mesh = build_training.mesh(config)
    abstract = build_training.abstract_state(
        config, build_network.network(config, facts), mesh
    )
    with checkpoints.Checkpoints(workdir / "checkpoints") as saved:
        state = saved.restore(abstract).state
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def assert_close(one, other, bound=1e-4):
    """Two states are equal up to a share of the largest entry of each leaf."""
    assert one.keys() == other.keys()
    for path, array in one.items():
        largest = np.abs(array).max(initial=0)
        np.testing.assert_allclose(
            other[path], array, rtol=0, atol=bound * largest, err_msg=path
        )


def records_of(folder, process=0) -> list[dict[str, np.ndarray]]:
    """Return what `several` recorded of every step, as one process saw it."""
    paths = sorted(folder.glob(f"{process}-*.npz"), key=lambda p: int(p.stem[2:]))
    return [dict(np.load(path)) for path in paths]


# ---- what the processes run ----------------------------------------------------------


def several(folder, commands) -> int:
    """Run several commands in the processes of one job, and record what they draw."""
    launch = launch_lib.find(os.environ)
    for name in OF_A_JOB:
        os.environ.pop(name, None)
    if launch:
        distributed.start(launch, {})
    folder = pathlib.Path(folder)
    record_steps(folder)
    statuses = [main.main(["ddpm-jax", *command]) for command in json.loads(commands)]
    if not any(statuses):
        record_noise(folder)
    distributed.finish()
    return max(statuses)


def record_steps(folder) -> None:
    """Write images, t, noise, labels and drop-out keys of every step of training."""
    take_step, training_losses = step.train_step, losses.training_losses
    add, drawn, count = progress.Progress.add, {}, []

    def losses_and_note(tables, network, x_0, t, noise, **objective):
        drawn.update(x_0=x_0, t=t, noise=noise)
        return training_losses(tables, network, x_0, t, noise, **objective)

    def step_and_note(state, batch, *, apply, **options):
        def apply_and_note(params, x_t, t_seen, condition, *, dropout_keys):
            drawn.update(condition, dropout=jax.random.key_data(dropout_keys))
            return apply(params, x_t, t_seen, condition, dropout_keys=dropout_keys)

        state, metrics = take_step(state, batch, apply=apply_and_note, **options)
        return state, {**metrics, "drawn": dict(drawn)}

    def add_and_write(self, metrics):
        add(self, metrics)
        count.append(metrics)
        kept = {name: metrics[name] for name in ("loss", "block_norms")}
        write(folder / f"{distributed.index()}-{len(count)}", kept | metrics["drawn"])

    losses.training_losses = losses_and_note
    step.train_step = step_and_note
    progress.Progress.add = add_and_write


def record_noise(folder) -> None:
    """Write the noise that sampling starts from, drawn on all devices."""
    mesh = sharding.make_mesh()
    index = sharding.put_whole(mesh, {"index": np.arange(NOISES, dtype=np.int32)})

    def draw(index):
        each = keys.key_for(0, "sample/x_T", index=index)
        return keys.normal_each(each, IMAGE_SHAPE)

    noise = sharding.to_host(jax.jit(draw)(index["index"]))
    np.save(folder / f"noise-{distributed.index()}.npy", noise)


def write(path, arrays) -> None:
    whole = {name: np.asarray(array) for name, array in arrays.items()}
    np.savez(path.with_suffix(".npz"), **whole)


def spoil(images, passes, patch=setattr) -> None:
    """Let images be NaN in training.

    Args:
        images: their indices.
        passes: how often they are: 1 for the first time that training sets out, and
            not after it has gone back.
        patch: `(owner, name, value)`.
    """
    batches, starts = pipeline.batches, []

    def spoiled_batches(dataset, order, **options):
        starts.append(options)
        if len(starts) > passes:
            return batches(dataset, order, **options)

        def read(indices):
            image, label = dataset.read(indices)
            image[np.isin(indices, images)] = np.nan
            return image, label

        return batches(dataclasses.replace(dataset, read=read), order, **options)

    patch(pipeline, "batches", spoiled_batches)


def spoiled(images, passes, *arguments) -> int:
    """Run one command with images that are NaN."""
    spoil(json.loads(images), int(passes))
    return main.main(["ddpm-jax", *arguments])
