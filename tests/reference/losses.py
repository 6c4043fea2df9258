"""Training losses, elementwise, in float64.

Elements do not interact, so a central difference of an elementwise loss is its
derivative with respect to that element of the output.
"""

import numpy as np

from reference import likelihood


def elements(
    process, mean_half, var_half, frozen_mean, *, x_0, noise, t, prediction, variance,
    loss, levels=256,
):  # fmt: skip
    """Elementwise loss; the hybrids' bound sees `frozen_mean` in place of the mean."""
    error = np.square(process.target(prediction, x_0, t, noise) - mean_half)
    if loss == "simple":
        return error
    seen = frozen_mean if "hybrid" in loss else mean_half
    output = seen if var_half is None else np.concatenate([seen, var_half], axis=-1)
    bound = likelihood.vlb_of_output(
        process,
        output,
        x_0,
        noise,
        t,
        prediction=prediction,
        variance=variance,
        levels=levels,
    )
    return {
        "kl": lambda: bound,
        "rescaled_kl": lambda: bound * process.num_steps,
        "hybrid": lambda: error + bound,
        "rescaled_hybrid": lambda: error + bound * process.num_steps / 1000,
    }[loss]()


def per_example(process, output, **kwargs):
    """Loss [B] of a whole output."""
    channels = kwargs["x_0"].shape[-1]
    mean_half = output[..., :channels]
    var_half = output[..., channels:] if output.shape[-1] > channels else None
    return likelihood.mean_flat(
        elements(process, mean_half, var_half, mean_half, **kwargs)
    )


def weight(process, t, *, prediction, weighting, gamma, k=None):
    """Weight [B] of the MSE: written once for the error of x_0, then converted.

    With the same x_t, an error d of x_0 is an error √SNR d of the noise, d / √(1 − ᾱ)
    of v and c1 d of x_{t−1}.
    """
    snr = process.alpha_bar[t] / process.noise_var[t]
    if weighting == "min_snr":
        for_x_0 = np.minimum(snr, gamma)
    else:
        for_x_0 = snr / (k + snr) ** gamma
    size = {
        "x_0": np.ones_like(snr),
        "noise": np.sqrt(snr),
        "v": 1 / np.sqrt(process.noise_var[t]),
        "x_prev": process.c1[t],
    }[prediction]
    return for_x_0 / np.square(size)


def gradient(process, output, step=1e-5, **kwargs):
    """d(sum of the batch's losses)/d(output), the bound's mean frozen in hybrids."""
    channels = kwargs["x_0"].shape[-1]
    mean, var = output[..., :channels], output[..., channels:]
    var = var if var.size else None
    size = kwargs["x_0"][0].size

    def difference(f):
        return (f(step) - f(-step)) / (2 * step) / size

    by_mean = difference(lambda h: elements(process, mean + h, var, mean, **kwargs))
    if var is None:
        return by_mean
    by_var = difference(lambda h: elements(process, mean, var + h, mean, **kwargs))
    return np.concatenate([by_mean, by_var], axis=-1)
