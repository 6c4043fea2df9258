"""--mode=compress on a tiny run: every bit and every error is accounted for."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image
from reference import likelihood as ref_likelihood
from reference import process as ref_process
from reference import reverse as ref_reverse
from reference import schedules as ref_schedules
from small_runs import T

from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import trained_run
from ddpm_jax.core import keys

COUNT = 16
OPTIONS = (
    f"--config.evaluation.steps={T}",
    f"--config.evaluation.num_images={COUNT}",
    "--config.evaluation.weights=ema",
)


@pytest.fixture
def compress(tell):
    """Return a function: run, arguments → what was said, folder, rows of the table."""

    def call(run, *arguments):
        told = tell("--mode=compress", f"--workdir={run}", *OPTIONS, *arguments)
        assert told.status == 0, told.err
        folder = next((run / "edits").glob("compress-*"))
        with (folder / "rate_distortion.csv").open() as file:
            rows = list(csv.DictReader(file))
        columns = {name: [float(row[name]) for row in rows] for name in rows[0]}
        return told, folder, {name: np.array(c) for name, c in columns.items()}

    return call


def test_the_bits_are_those_of_the_evaluation(first_run, trained, compress, tell):
    other = trained.with_name("evaluated")
    shutil.copytree(first_run[0], other)
    before = set((other / "evaluation").glob("*.json"))
    told = tell("--mode=evaluate", f"--workdir={other}", *OPTIONS)
    assert told.status == 0, told.err
    (path,) = set((other / "evaluation").glob("bits_per_dim*.json")) - before
    card = json.loads(path.read_text())

    told, folder, table = compress(trained)
    np.testing.assert_allclose(table["rate"][-1], card["value"], atol=1e-4)
    np.testing.assert_allclose(table["rate"][-2], card["rate"], atol=1e-4)
    np.testing.assert_allclose(table["rate"], np.cumsum(table["bits"]), rtol=1e-6)
    assert table["bits"].min() >= 0
    assert table["timestep"].tolist() == [*range(T - 1, -1, -1), -1]
    assert table["rmse"][-1] == 0
    assert f"lossless: {table['rate'][-1]:.4f} bits/dim" in told.out
    for name in ("rate_distortion.png", "coding.png", "generation.png"):
        with Image.open(folder / name) as image:
            assert min(image.size) > 200
    written = {file.name: file.read_bytes() for file in folder.glob("*.*")}
    again, same, _ = compress(trained)
    assert "already" in again.out
    assert same == folder
    assert {file.name: file.read_bytes() for file in folder.glob("*.*")} == written


def test_rates_and_errors_equal_those_of_float64(trained, compress):
    _, folder, table = compress(trained, "--variants=3")
    run = trained_run.open_run(trained)
    params = run.weights("ema", field="").params
    process = ref_process.Process(ref_schedules.linear(T))
    with np.load(folder / "coding.npz") as stored:
        coding = dict(stored)
    batch = build_data.dataset(run.config, "test").fetch(np.arange(COUNT))
    images, labels = batch["image"].astype(np.float64), batch["label"]
    np.testing.assert_array_equal(
        coding["image"][..., 0], np.round(255 * (images[:3, ..., 0] + 1) / 2)
    )

    def predict(x_t, t):
        output = run.network.apply(
            params,
            x_t.astype(np.float32),
            t.astype(np.int32),
            {"label": labels},
        )
        return ref_reverse.reverse(
            process,
            np.asarray(output, np.float64),
            x_t,
            t,
            prediction="noise",
            variance="learned_range",
            hook=ref_reverse.clip,
        )

    stream = keys.key_for(0, "evaluate/noise", index=np.arange(COUNT))
    draws = [
        np.asarray(keys.normal_each(keys.fold_in_each(stream, k), (8, 8, 1)))
        for k in range(T)
    ]
    expected = ref_likelihood.bits_per_dim(process, predict, images, draws, levels=17)
    bits = [expected["prior"].mean(), *expected["vb"].mean(axis=0)[::-1]]
    np.testing.assert_allclose(table["bits"], bits, rtol=1e-3, atol=1e-6)
    rmse = 255 / 2 * np.sqrt(expected["x_0_mse"].mean(axis=0)[::-1])
    np.testing.assert_allclose(table["rmse"][:-1], rmse, rtol=1e-3)
    # What the strip shows is what the table measures, here of three images.
    shown = coding["estimate"].astype(float) - coding["image"]
    found = np.sqrt((shown**2).mean(axis=(1, 2, 3, 4)))
    of_three = 255 / 2 * np.sqrt(expected["x_0_mse"][:3].mean(axis=0))
    np.testing.assert_allclose(found, of_three[coding["timestep"]], rtol=0.01)


def test_continuous_data_have_no_bits(trained, tell):
    path = trained / "config.json"
    saved = json.loads(path.read_text())
    saved["data"]["levels"] = None
    path.write_text(json.dumps(saved))
    told = tell("--mode=compress", f"--workdir={trained}")
    assert told.status == 1
    assert "continuous" in told.err
    assert "grey levels" in told.err
    assert len(told.err.splitlines()) == 1
