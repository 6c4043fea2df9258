"""What the golden arrays were computed with: the stand-in network and their layout."""

import json
import pathlib

import numpy as np

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"

PREDICTIONS = {"EPSILON": "noise", "START_X": "x_0", "PREVIOUS_X": "x_prev"}
LEARNED = ("LEARNED", "LEARNED_RANGE")


def arrays():
    """The golden arrays by key, float64, images as [B, H, W, C]."""
    with np.load(GOLDEN / "math.npz") as archive:
        return {
            key: channels_last(value) if "disc" not in key else value
            for key, value in archive.items()
        }


def channels_last(value):
    if value.ndim in (4, 5):
        value = np.moveaxis(value, -3, -1)
    return value if value.dtype == np.int64 else value.astype(np.float64)


def respacings():
    """Kept timesteps by (T, spec)."""
    table = json.loads((GOLDEN / "respacing.json").read_text())
    return {tuple(key.split("/")): tuple(kept) for key, kept in table.items()}


def loss_name(published, variance):
    """Our name of a published loss; MSE with a learned variance is the hybrid."""
    learned = variance in LEARNED
    return {
        "MSE": "hybrid" if learned else "simple",
        "RESCALED_MSE": "rescaled_hybrid" if learned else "simple",
        "KL": "kl",
        "RESCALED_KL": "rescaled_kl",
    }[published]


def network(golden, variance, xp):
    """out = tanh(W x + b + 0.3 sin(t / 100)) over channels; `xp` is numpy or jax's."""
    size = "6" if variance in LEARNED else "3"
    weight, bias = golden[f"net/W{size}"], golden[f"net/b{size}"]

    def apply(x, t_seen):
        time = xp.sin(t_seen / 100).reshape(-1, *[1] * (x.ndim - 1))
        return xp.tanh(x @ weight.T.astype(x.dtype) + bias.astype(x.dtype) + 0.3 * time)

    return apply
