"""A second kind of train step, as short as one should be: softmax regression.

It classifies noisy images, and shares with the U-Net's step all but draws and loss.
"""

import jax
import jax.numpy as jnp

from ddpm_jax.diffusion import process
from ddpm_jax.training import update


def train_step(
    state,
    batch,
    *,
    seed,
    tables,
    timestep_sampler,
    draw_noise=jax.random.normal,
    **tail,
):
    """Return the next state and the metrics of a step on the labels' cross-entropy.

    Args:
        state: its params are "kernel" [pixels, classes] and "bias" [classes].
        batch: "image" [B, ...] and "label" int32 [B].
        seed: the run's seed.
        tables: the process that makes the images noisy.
        timestep_sampler: a value of `diffusion.timesteps`.
        draw_noise: `(key, shape, dtype) → noise`.
        **tail: of `update.update_state`.
    """
    x_0 = batch["image"]
    draw = update.drawer(seed, state)
    t, weight = timestep_sampler.sample(state.timesteps, draw("t"), len(x_0))
    noise = draw_noise(draw("noise"), x_0.shape, x_0.dtype)
    x_t = process.q_sample(tables, x_0, t, noise)
    examples = {"x_t": x_t, "label": batch["label"], "t": t, "weight": weight}

    def loss_terms(params, part):
        pixels = part["x_t"].reshape(len(part["x_t"]), -1)
        logits = pixels @ params["kernel"] + params["bias"]
        label = part["label"][:, None]
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), label, axis=1)[:, 0]
        right = jnp.argmax(logits, axis=1) == part["label"]
        return {"loss": -log_p, "accuracy": right.astype(jnp.float32)}

    return update.update_state(
        state,
        examples,
        loss_terms,
        num_steps=tables.num_steps,
        timestep_sampler=timestep_sampler,
        **tail,
    )
