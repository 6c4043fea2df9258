"""The tiny run that the tests of the modes train, and what they look at in it."""

import contextlib
import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
from jax.experimental.compilation_cache import compilation_cache
from PIL import Image

from ddpm_jax.builders import trained_run

ROOT = pathlib.Path(__file__).parent.parent.parent
DIGITS = f"--config={ROOT / 'configs' / 'digits.py'}"
STEPS = 6
T = 24
# A constant learning rate, so that train.steps does not change the compiled program.
TINY = (
    DIGITS,
    "--config.model.channels=8",
    "--config.model.norm_groups=4",
    "--config.model.channel_mult=1",
    "--config.model.num_res_blocks=1",
    "--config.model.attention_resolutions=",
    f"--config.diffusion.num_steps={T}",
    "--config.train.batch_size=16",
    "--config.train.decay=none",
    "--config.train.warmup_steps=2",
    "--config.train.ema_decay=0.5",
    "--config.train.checkpoint_every=3",
    "--config.train.sample_every=0",
    "--config.train.log_every=2",
    "--config.sampling.steps=4",
    "--config.sampling.num_samples=16",
    "--config.sampling.batch_size=16",
    "--config.evaluation.steps=3",
    "--config.evaluation.num_images=32",
    "--config.evaluation.batch_size=16",
)
OPTIONS = {
    "jax_disable_most_optimizations": True,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@dataclasses.dataclass(frozen=True)
class Told:
    """What one command said, and its exit status."""

    status: int
    out: str
    err: str

    @property
    def lines(self):
        return self.out.splitlines()


@contextlib.contextmanager
def quick_compilation(cache):
    """Compile with few optimizations, and keep every program in `cache`.

    Processes started meanwhile do the same.
    """
    options = {**OPTIONS, "jax_compilation_cache_dir": str(cache)}
    before = {name: jax.config.values[name] for name in options}
    environment = {name.upper(): os.environ.get(name.upper()) for name in options}
    for option, value in options.items():
        jax.config.update(option, value)
        os.environ[option.upper()] = str(value)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for option, value in before.items():
            jax.config.update(option, value)
        for name, value in environment.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        compilation_cache.reset_cache()


def content(folder):
    """Return every file below a folder with its bytes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


def metrics(workdir):
    """Return the records of metrics.jsonl."""
    return [
        json.loads(line)
        for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]


def checkpoints(workdir):
    """Return the names in the folder of checkpoints."""
    return sorted(path.name for path in (workdir / "checkpoints").iterdir())


def grey_levels(path):
    """Return how many different values the pixels of a picture have."""
    with Image.open(path) as image:
        image.verify()
    with Image.open(path) as image:
        return len(np.unique(np.asarray(image)))


def edited(tell, mode, run, *arguments, images=()):
    """Edit with a run: what was said, the folder if it is new, the images in it."""
    before = set((run / "edits").glob("*"))
    given = (f"--image={path}" for path in images)
    told = tell(f"--mode={mode}", f"--workdir={run}", *given, *arguments)
    made = set((run / "edits").glob("*")) - before if told.status == 0 else set()
    folder = made.pop() if made else None
    return told, folder, folder and np.load(folder / "samples.npz")["arr_0"]


def state_of(workdir):
    """Return the newest state of a run as {path: array}."""
    state = trained_run.open_run(workdir).state
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def assert_same_bits(one, other):
    """Two states are equal to the last bit."""
    assert one.keys() == other.keys()
    assert [path for path in one if one[path].tobytes() != other[path].tobytes()] == []
