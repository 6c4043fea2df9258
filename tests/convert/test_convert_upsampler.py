"""An upsampler of OpenAI from its file to images, by the commands of a user.

The files are stand-ins: their keys and shapes, random values.
"""

import json
import pathlib
import sys

import from_fields
import numpy as np
import pytest
import small_networks

from ddpm_jax import main

sys.path.append(str(pathlib.Path(__file__).parents[1] / "modes"))
import small_runs

FIELDS = {
    "data.image_size": (8, 8),
    "model.kind": "upsampler",
    "model.channels": 32,
    "model.channel_mult": (1, 1),
    "model.num_res_blocks": 1,
    "model.attention_resolutions": (),
    "model.norm_groups": 32,
    "model.resblock_updown": True,
    "model.class_conditional": True,
    "facts.num_classes": 3,
    "diffusion.variance": "learned_range",
}
TOLD = (
    "--config.data.image_size=8",
    "--config.model.num_heads=2",
    "--config.model.qkv_order=legacy",
    "--config.diffusion.schedule=linear",
    "--config.diffusion.num_steps=100",
    "--config.diffusion.rescale_timesteps=false",
    "--config.diffusion.prediction=noise",
)


@pytest.fixture
def tell(capsys, tmp_path):
    def run(*arguments):
        capsys.readouterr()
        with small_runs.quick_compilation(tmp_path / "cache"):
            status = main.main(["ddpm-jax", *map(str, arguments)])
        said = capsys.readouterr()
        return small_runs.Told(status, said.out, said.err)

    return run


def test_an_upsampler_of_openai_samples_from_the_command_line(tell, tmp_path):
    torch = pytest.importorskip("torch")
    fields = small_networks.tiny(FIELDS)
    shapes = from_fields.their_shapes(
        "openai", from_fields.shapes_of(from_fields.network_of(fields)), fields
    )
    assert shapes["input_blocks.0.0.weight"] == (32, 6, 3, 3)  # x_t and the stretched
    tensors = from_fields.random_tensors(shapes)
    source, run = tmp_path / "64_256_upsampler.pt", tmp_path / "run"
    torch.save({key: torch.tensor(value) for key, value in tensors.items()}, source)
    told = tell("--mode=convert", f"--source={source}", f"--workdir={run}", *TOLD)
    assert told.status == 0, told.err
    assert "agrees with PyTorch" in told.out
    assert f"--mode=sample --workdir={run} --config.sampling.low_res=RUN" in told.out

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 2, 2, 3)).astype(np.uint8)
    np.savez(tmp_path / "base.npz", small, np.array([2, 0, 1, 1, 2]))
    given = ["--config.sampling.steps=2", "--config.sampling.num_samples=5"]
    told = tell(
        "--mode=sample",
        f"--workdir={run}",
        f"--config.sampling.low_res={tmp_path / 'base.npz'}",
        *given,
    )
    assert told.status == 0, told.err
    assert "enlarging images of 2x2 from base.npz" in told.out
    (archive,) = run.glob("samples/*/samples.npz")
    made = np.load(archive)
    assert made["arr_0"].shape == (5, 8, 8, 3)
    assert made["arr_1"].tolist() == [2, 0, 1, 1, 2]
    request = json.loads((archive.parent / "request.json").read_text())
    assert request["weights"] == "imported"
