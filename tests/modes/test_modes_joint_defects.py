"""What would part several processes, or would let a request to stop get lost."""

import json

import several_processes

from ddpm_jax.runtime import files
from ddpm_jax.sampling import archive

# Process 1 rounds otherwise, has other data, and does not see what process 0 writes.
APART = """
import dataclasses, json, pathlib, sys
import numpy as np
from ddpm_jax.builders import data as build_data
from ddpm_jax import config as config_lib
from ddpm_jax.core import errors
from ddpm_jax.metrics import proxy
from ddpm_jax.builders import sample_pictures
from ddpm_jax.runtime import distributed
from ddpm_jax.runtime.cluster import launch as launches, shared_disk
from ddpm_jax.evaluation import feature_pass as passes
port, process, count = map(int, sys.argv[1:4])
folder = pathlib.Path(sys.argv[4])
launch = launches.Launch(f"127.0.0.1:{port}", count, process, "the test")
distributed.start(launch, {}, timeout=30)
told = {}

def refused(name, call):
    try:
        call()
    except errors.Refusal as refusal:
        told[name] = str(refusal)

images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), np.uint8)
labels = np.arange(64) % 2
rows = proxy._rows
proxy._rows = lambda count, steps, seed: rows(count, steps, seed + process)
made = proxy.train_feature_network(images, labels, steps=3)
told["network"] = made.network.fingerprint

config = config_lib.base()
data = build_data.dataset(config, "test")
build_data.check_alike(data)
other = dataclasses.replace(data, content=f"of process {process}")
refused("data", lambda: build_data.check_alike(other))

names = ["proxy_fd_random"]
path = folder / f"{process}.npz"
np.savez(path, arr_0=images + np.uint8(process))
config.evaluation.reference = str(path)
refused(
    "reference",
    lambda: passes.grouped(config, names, shape=(8, 8, 1), dataset=None),
)

distributed.barrier("the end")
if process:
    sample_pictures.write_grid(None, 4, None)  # process 0 does
    path = folder / "archive"
    refused("archive", lambda: shared_disk.wait_until(path.exists, path, 0.1))
print(json.dumps(told), flush=True)
distributed.finish()
"""


def test_what_differs_between_processes_does_not_part_them(tmp_path):
    with several_processes.running(APART, 2, tmp_path) as group:
        results = several_processes.results(group)
    assert [status for status, _, _ in results] == [0, 0], results
    first, second = (json.loads(out.splitlines()[-1]) for _, out, _ in results)
    seen = second.pop("archive")
    assert "is not what process 1 sees there: give a --workdir" in seen
    assert first == second
    assert "process 1 (" in first["data"]
    assert first["data"].endswith("give every host the same data")
    assert "the network and reference of proxy_fd_random" in first["reference"]


def evaluate(tell, run, metrics):
    return tell(
        "--mode=evaluate",
        f"--workdir={run}",
        f"--config.evaluation.metric={metrics}",
        "--config.evaluation.num_images=16",
        "--config.evaluation.num_samples=16",
    )


def cards(run):
    return [path.name for path in (run / "evaluation").glob("*.json")]


def test_a_stop_in_the_last_batch_of_bits_ends_the_evaluation(
    trained, tell, interrupted
):
    metrics = "bits_per_dim,proxy_fd_random"
    told = interrupted(files, "write_bytes", lambda: evaluate(tell, trained, metrics))
    assert told.status == 0
    assert "stopped by SIGINT after 16 of 16 images" in told.out
    (card,) = cards(trained)  # what is computed is kept
    assert card.startswith("bits_per_dim")
    assert not list(trained.glob("samples/*/request.json"))


def test_a_stop_in_the_last_batch_of_samples_ends_the_evaluation(
    trained, tell, interrupted
):
    def score():
        return evaluate(tell, trained, "proxy_fd_random")

    told = interrupted(archive.SampleStore, "add", score)
    assert told.status == 0
    assert "stopped by SIGINT after 16 of 16 images" in told.out
    assert cards(trained) == []
    told = score()
    assert "after 16 of 16" in told.out
    assert len(cards(trained)) == 1
