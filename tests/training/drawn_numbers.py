"""Prints hashes of what the package draws, on its public paths: a JSON object.

A program of its own, since flags of JAX are read once: `test_training_generator` runs
it under several.
"""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import small_training
import test_sampling_sampler as sampling

import ddpm_jax
from ddpm_jax.core import keys
from ddpm_jax.diffusion import timesteps
from ddpm_jax.models import initialisation, layers

SPEC = {"label": sampling.conditions.Spec((), "int32", small_training.NULL)}


def hashed(tree):
    """A hash of the bits and types of every leaf."""
    whole = hashlib.sha256()
    for leaf in map(np.asarray, jax.tree.leaves(tree)):
        whole.update(f"{leaf.dtype}{leaf.shape}".encode() + leaf.tobytes())
    return whole.hexdigest()[:16]


def training():
    """What a network is given in a training step: x_t, t, labels, dropout keys."""

    def revealing(params, x, t, condition, *, dropout_keys=None):
        return small_training.revealing_apply(
            params, x, t, condition, dropout_keys=dropout_keys
        )

    sgd = optax.sgd(1.0)
    state = small_training.make_state(
        small_training.revealing_params(), optimizer=sgd, ema_decays=()
    )
    step = small_training.make_step(
        optimizer=sgd,
        network=revealing,
        condition_spec=SPEC,
        label_dropout=0.3,
        dropout=True,
    )
    # Another step than the first: a key of the step is folded in.
    state = state.replace(step=jnp.asarray(5, jnp.int32))
    state, metrics = small_training.compiled(step)(state, small_training.make_batch())
    return state.params["slots"], metrics["t"]


def second_moment():
    """The t of the other timestep sampler, warm."""
    sampler = timesteps.loss_second_moment(20)
    losses = jnp.arange(1, 201, dtype=jnp.float32).reshape(20, 10)
    state = timesteps.LossHistory(losses, jnp.full(20, 10, jnp.int32))
    sample = small_training.compiled(lambda key: sampler.sample(state, key, 64))
    return sample(keys.key_for(0, "train/t"))


def own(init_key):
    """Parameters and output of a network of the user's own, which draws itself."""

    def init(key):
        first, second = jax.random.split(key)
        return {
            "w": jax.random.normal(first, (4, 4), jnp.float32),
            "b": jax.random.uniform(second, (4,), jnp.float32),
        }

    def apply(params, x, t, labels, dropout_keys):
        draw = jax.vmap(lambda key: jax.random.normal(key, x.shape[1:], x.dtype))
        return x @ params["w"] + params["b"] + draw(dropout_keys)

    network = ddpm_jax.network(init, apply)
    params = network.init(init_key)
    dropout_keys = keys.key_for(0, "train/dropout", index=np.arange(2))
    x = np.zeros((2, 4, 4, 4), np.float32)
    run = small_training.compiled(network.apply)
    return params, run(params, x, x[:, 0, 0, 0], dropout_keys=dropout_keys)


def main():
    """Print them all."""
    init_key = keys.key_for(3, "init")
    images = sampling.make_recipe(
        solver=sampling.recipe_lib.part("ancestral"), labels=sampling.LABELS
    )
    each = keys.key_for(2**32 - 1, "train/dropout", index=np.arange(3))
    drawn = {
        "training": training(),
        "second moment": second_moment(),
        "samples": sampling.make_images(images, sampling.MIXING, count=5),
        "samples one by one": sampling.make_images(
            images, sampling.MIXING, count=5, batch_size=1
        ),
        "own network": own(init_key),
        "initialisation": [
            draw(init_key, (30,)) for draw in initialisation.DISTRIBUTIONS.values()
        ],
        "dropout": layers.dropout(jnp.ones((3, 50), jnp.float32), 0.5, each, index=1),
    }
    print(json.dumps({name: hashed(tree) for name, tree in drawn.items()}))


if __name__ == "__main__":
    main()
