"""How well logits name the classes of images."""

import jax
import jax.numpy as jnp

TOP = 5  # of the second accuracy, where there are more classes than that


def accuracies(num_classes: int) -> tuple[str, ...]:
    """Return the names of the terms besides the loss."""
    return ("accuracy", "top5_accuracy") if num_classes > TOP else ("accuracy",)


def terms(logits: jax.Array, label: jax.Array) -> dict[str, jax.Array]:
    """Return the loss of each example and whether it was named right.

    Args:
        logits: [B, classes].
        label: int32 [B], 0 … classes − 1.

    Returns:
        "loss" [B], the cross-entropy −log p(label) in nats; "accuracy" [B], 1 where the
        label has the largest logit, else 0; with more than five classes
        "top5_accuracy" [B], 1 where it is among the five largest.
    """
    rows = label[:, None]
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), rows, axis=1)[:, 0]
    top = jax.lax.top_k(logits, min(TOP, logits.shape[1]))[1]
    hits = (top == rows).astype(jnp.float32)
    named = (hits[:, 0], jnp.max(hits, axis=1))
    names = accuracies(logits.shape[1])
    return {"loss": -log_p, **dict(zip(names, named, strict=False))}
