"""An accelerator that is too small is told what to change, in one sentence."""

import jax
import pytest

from ddpm_jax import config as schema
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import planning as build_planning
from ddpm_jax.builders import training as build_training
from ddpm_jax.core import errors

FACTS = build_data.DataInfo(
    shape=(8, 8, 1),
    levels=17,
    num_examples=100,
    num_classes=None,
    class_names=(),
    fingerprint="",
)


@pytest.fixture
def parts():
    config = schema.base()
    config.model.update(
        channels=8, channel_mult=(1,), num_res_blocks=1, norm_groups=4, num_heads=1
    )
    config.model.attention_resolutions = ()
    mesh = build_training.mesh(config)
    network = build_network.network(config, FACTS)
    return config, mesh, build_training.abstract_state(config, network, mesh)


def test_too_little_memory_is_one_sentence_with_remedies(parts):
    with (
        pytest.raises(errors.Refusal, match="too small for this run") as refusal,
        build_planning.explaining_memory(*parts),
    ):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory, 9 GiB")
    told = str(refusal.value)
    order = [
        told.index(name) for name in ("microbatches=2", "bfloat16", "remat=blocks")
    ]
    assert order == sorted(order)
    assert "fsdp=8" in told
    assert "\n" not in told


def test_other_errors_of_the_device_are_not_called_memory(parts):
    with (
        pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"),
        build_planning.explaining_memory(*parts),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: the link is down")


def test_a_classifier_is_planned_with_classes_before_its_data_is_there():
    config = schema.base()
    config.data.update(name="folder", path="/not/there", image_size=(64,), channels=3)
    config.model.kind = "classifier"
    facts, missing = build_planning.facts(config)
    assert (facts.shape, facts.num_classes) == ((64, 64, 3), 1000)
    assert "/not/there" in missing
