"""configs/glide_*.py: the published networks, processes and samplers of GLIDE."""

import math

import pytest
from test_configs import arrays, read

from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import reading
from ddpm_jax.convert import published

# Config → (published file, parameters as counted in the original code).
# … and channels that it reads: a smaller image, known pixels and their mask beside x_t.
FILES = {
    "glide_base": ("glide_base", 385_030_726, 3),
    "glide_upsampler": ("glide_upsample", 398_361_286, 3 + 3),
    "glide_inpaint": ("glide_base_inpaint", 385_037_638, 3 + 3 + 1),
}


@pytest.mark.parametrize("spec", FILES)
def test_it_is_the_published_network_process_and_sampler(spec):
    config = read(spec)
    name, parameters, channels = FILES[spec]
    leaves = arrays(spec)
    assert sum(math.prod(leaf.shape) for leaf in leaves.values()) == parameters
    assert leaves["conv_in/kernel"].shape[2] == channels
    values = dict(reading.leaves(config.to_dict()))
    fields = dict(published.PUBLISHED[name].fields)
    assert fields.pop("data.image_size") == config.data.image_size * 2
    del fields["model.num_heads"]  # heads are 64 channels wide
    assert {field: values[field] for field in fields} == fields
    build_training.optimizer(config)
    build_process.timestep_sampler(config)
    taken = build_process.respaced(config, "sampling").num_steps
    assert taken == (27 if spec == "glide_upsampler" else 100)


def test_guidance_is_of_the_base_and_the_inpainting_model():
    """The paper: 20 % of captions left out; upsamplers always read theirs."""
    trained = {spec: read(spec).train.label_dropout for spec in FILES}
    assert trained == {
        "glide_base": 0.2,
        "glide_upsampler": 0.0,
        "glide_inpaint": 0.2,
    }
    scales = {spec: read(spec).sampling.guidance_scale for spec in FILES}
    assert scales == {
        "glide_base": 3.0,
        "glide_upsampler": 1.0,
        "glide_inpaint": 5.0,
    }
    upsampler = read("glide_upsampler").sampling
    assert (upsampler.method, upsampler.respacing) == ("ddim", "fast27")
    assert upsampler.temperature == 0.997
