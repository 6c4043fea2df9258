"""The first steps of a config with many seeds: the band in which its loss lies.

    python tests/report/make_loss_bands.py --config=digits --seeds=1,2,3,4,5,6

Each seed trains in a process of its own, that is stopped once it has logged step 200.
The band is the 99.9 % prediction interval of one more seed, of the logarithm of the
loss; it goes into ddpm_jax/report/loss_bands.py, with the release of jax that made it.
Runs in --folder that are long enough are not trained again.
"""

import argparse
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from scipy import stats

from ddpm_jax import config as config_lib
from ddpm_jax.config import reading
from ddpm_jax.report import loss_bands

STEPS = 200
EVERY = 25
LEVEL = 0.999


def curve(config, seed, folder):
    """Return {step: loss} of the first steps of a run."""
    run = pathlib.Path(folder, f"{config}-{seed}")
    if max(losses(run), default=0) >= STEPS:
        return losses(run)
    off = ("sample_every", "evaluate_every", "validate_every")
    command = [
        *(sys.executable, "-m", "ddpm_jax.main", f"--config={config}"),
        *(f"--workdir={run}", f"--config.seed={seed}"),
        f"--config.train.log_every={EVERY}",
        *(f"--config.train.{name}=0" for name in off),
    ]
    with open(f"{run}.log", "w") as log:
        training = subprocess.Popen(command, stdout=log, stderr=log)
        while training.poll() is None and max(losses(run), default=0) < STEPS:
            time.sleep(1)
        if training.poll() is None:
            training.send_signal(signal.SIGINT)
        training.wait()
    return losses(run)


def losses(run):
    """Return {step: loss} of the records of a run so far."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines if line.endswith("}")]
    return {r["step"]: r["loss"] for r in records if r.get("loss")}


def band(curves):
    """Return (steps, low, high): where one more seed lies."""
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    steps = [step for step in steps if step <= STEPS and step % EVERY == 0]
    values = np.log([[curve[step] for step in steps] for curve in curves])
    n = len(values)
    factor = stats.t.ppf((1 + LEVEL) / 2, n - 1) * math.sqrt(1 + 1 / n)
    half = factor * values.std(axis=0, ddof=1)
    return steps, np.exp(values.mean(0) - half), np.exp(values.mean(0) + half)


def main():
    """Print the band of one config, as a line of `loss_bands.BANDS`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default="digits")
    parser.add_argument("--seeds", default="1,2,3,4,5,6")
    parser.add_argument("--folder", default="")
    args = parser.parse_args()
    folder = args.folder or tempfile.mkdtemp()
    os.makedirs(folder, exist_ok=True)
    curves = []
    for seed in map(int, args.seeds.split(",")):
        curves.append(curve(args.config, seed, folder))
        print(seed, json.dumps(curves[-1]), flush=True)
    steps, low, high = band(curves)
    config, base = (
        dict(reading.leaves(found.to_dict()))
        for found in (reading.from_file(args.config), config_lib.base())
    )
    rows = ", ".join(
        f"({step}, {one:.4f}, {other:.4f})"
        for step, one, other in zip(steps, low, high, strict=True)
    )
    release = ".".join(jax.__version__.split(".")[:2])
    print(f"Band({args.config!r}, {release!r}, {loss_bands.digest(config, base)!r},")
    print(f"     {len(curves)}, ({rows})),")


if __name__ == "__main__":
    main()
