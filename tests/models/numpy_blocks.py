"""The blocks of the U-Nets in float64 NumPy, by loops, for single images.

Images are [H, W, C]; `p` maps "conv_1/kernel" and so on to arrays in our layout.
"""

import numpy as np


def silu(x):
    return x / (1.0 + np.exp(-x))


def group_norm(x, groups, scale, bias, epsilon=1e-5):
    out = np.empty_like(x)
    size = x.shape[-1] // groups
    for start in range(0, x.shape[-1], size):
        part = x[..., start : start + size]
        out[..., start : start + size] = (part - part.mean()) / np.sqrt(
            part.var() + epsilon
        )
    return out * scale + bias


def conv3x3(x, kernel, bias, stride=1, padding=(1, 1)):
    H, W, _ = x.shape
    padded = np.pad(x, (padding, padding, (0, 0)))
    out = np.empty((H // stride, W // stride, kernel.shape[-1]))
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            window = padded[i * stride : i * stride + 3, j * stride : j * stride + 3]
            out[i, j] = np.tensordot(window, kernel, axes=3) + bias
    return out


def halve(x):
    return (x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]) / 4


def double(x):
    return np.kron(x, np.ones((2, 2, 1)))


def res_block(p, x, embedding, *, groups, scale_shift, resample=lambda x: x):
    h = silu(group_norm(x, groups, p["norm_1/scale"], p["norm_1/bias"]))
    h = conv3x3(resample(h), p["conv_1/kernel"], p["conv_1/bias"])
    e = silu(embedding) @ p["embed/kernel"] + p["embed/bias"]
    norm_2 = p["norm_2/scale"], p["norm_2/bias"]
    if scale_shift:
        C = h.shape[-1]
        h = group_norm(h, groups, *norm_2) * (1 + e[:C]) + e[C:]
    else:
        h = group_norm(h + e, groups, *norm_2)
    h = conv3x3(silu(h), p["conv_2/kernel"], p["conv_2/bias"])
    shortcut = resample(x)
    if "shortcut/kernel" in p:
        shortcut = shortcut @ p["shortcut/kernel"][0, 0] + p["shortcut/bias"]
    return h + shortcut


def attention(p, x, *, groups, heads, order):
    H, W, C = x.shape
    d = C // heads
    h = x
    if "norm/scale" in p:
        h = group_norm(x, groups, p["norm/scale"], p["norm/bias"])
    qkv = h.reshape(H * W, C) @ p["qkv/kernel"] + p["qkv/bias"]
    out = np.empty((H * W, C))
    for head in range(heads):
        if order == "legacy":  # channels [head][q|k|v][d]
            first, step = head * 3 * d, d
        else:  # channels [q|k|v][head][d]
            first, step = head * d, C
        q, k, v = (qkv[:, first + i * step : first + i * step + d] for i in range(3))
        weights = np.exp(q @ k.T / np.sqrt(d))
        weights /= weights.sum(axis=1, keepdims=True)
        out[:, head * d : (head + 1) * d] = weights @ v
    return x + (out @ p["proj_out/kernel"] + p["proj_out/bias"]).reshape(x.shape)
