"""From a config to plain objects: the last place that reads one."""

from ddpm_jax.builders.data import (
    DataFacts,
    check_alike,
    check_images,
    dataset,
    num_test_images,
)
from ddpm_jax.builders.networks import check_kind, label_rows, network, null_label
from ddpm_jax.builders.planning import check_batch, explaining_memory
from ddpm_jax.builders.process import (
    objective,
    respaced,
    schedule,
    timestep_sampler,
)
from ddpm_jax.builders.sampling import recipe, sampling_labels, scorer, validator
from ddpm_jax.builders.speed import speed
from ddpm_jax.builders.step import abstract_batch, jitted_step, train_step
from ddpm_jax.builders.training import (
    abstract_state,
    abstract_weights,
    ema_name,
    initial_params,
    initial_state,
    learning_rate,
    mesh,
    optimizer,
)

__all__ = [
    "DataFacts",
    "abstract_batch",
    "abstract_state",
    "abstract_weights",
    "check_alike",
    "check_batch",
    "check_images",
    "check_kind",
    "dataset",
    "ema_name",
    "explaining_memory",
    "initial_params",
    "initial_state",
    "jitted_step",
    "label_rows",
    "learning_rate",
    "mesh",
    "network",
    "null_label",
    "num_test_images",
    "objective",
    "optimizer",
    "recipe",
    "respaced",
    "sampling_labels",
    "schedule",
    "scorer",
    "speed",
    "timestep_sampler",
    "train_step",
    "validator",
]
