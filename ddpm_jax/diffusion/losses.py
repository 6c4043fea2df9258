"""Training losses: one network evaluation, one value per example.

simple          mean squared error of the predicted quantity        DDPM eq. 14
kl              the bound's term at t, in bits per dimension        DDPM eq. 5
rescaled_kl     kl · T′: an unbiased estimate of the bound less L_T
hybrid          simple + kl, the mean stopped in the kl
rescaled_hybrid the same with kl · T′/1000                Improved DDPM eq. 16
"""

import jax
import jax.numpy as jnp

from ddpm_jax.core import arrays, errors, flags
from ddpm_jax.core.types import Network
from ddpm_jax.diffusion import likelihood, process, reverse

LOSSES = {
    "simple": lambda mse, vb, num_steps: mse,
    "kl": lambda mse, vb, num_steps: vb,
    "rescaled_kl": lambda mse, vb, num_steps: vb * num_steps,
    "hybrid": lambda mse, vb, num_steps: mse + vb,
    "rescaled_hybrid": lambda mse, vb, num_steps: mse + vb * (num_steps / 1000),
}
HYBRID_LOSSES = ("hybrid", "rescaled_hybrid")
KL_LOSSES = ("kl", "rescaled_kl")
QUARTERS = 4

# The quantity that the network should output: (tables, x_0, x_t, t, noise) → target.
TARGETS = {
    "noise": lambda tables, x_0, x_t, t, noise: noise,
    "x_0": lambda tables, x_0, x_t, t, noise: x_0,
    "x_prev": lambda tables, x_0, x_t, t, noise: process.q_posterior_mean(
        tables, x_0, x_t, t
    ),
    "v": lambda tables, x_0, x_t, t, noise: process.v_from_x_0_and_noise(
        tables, x_0, t, noise
    ),
}

# Weights of the squared error of x̂_0, as functions of the signal-to-noise ratio.
WEIGHTINGS = {
    "none": None,
    "min_snr": lambda snr, gamma, k: jnp.minimum(snr, gamma),  # Hang et al. 2023
    "p2": lambda snr, gamma, k: snr / (k + snr) ** gamma,  # Choi et al. 2022
}
DEFAULT_GAMMA = {"none": None, "min_snr": 5.0, "p2": 1.0}


@flags.as_written()
def training_losses(
    tables: process.Tables,
    network: Network,
    x_0,
    t,
    noise,
    *,
    prediction: str,
    variance: str,
    loss: str,
    levels: int | None = 256,
    weighting: str = "none",
    gamma: float | None = None,
    k: float = 1.0,
) -> dict[str, jax.Array]:
    """Return the loss of each example and its parts.

    Args:
        x_0, noise: [B, ..., C]; t: [B] int32, steps of `tables`.
        network: `(x_t, t_seen) → output`.
        prediction, variance: see `reverse.denoiser`.
        loss: a key of `LOSSES`.
        levels: grey values of the data, for the decoder term at t = 0; None if it is
            continuous.
        weighting: "none", "min_snr" or "p2", on the squared error only.
        gamma, k: constants of the weighting (γ is 5 for min-SNR, 1 for P2).

    Returns:
        "loss"; "mse", unweighted, in units of the predicted quantity; "vb", the
        bound's term at t in bits per dimension, x̂_0 not clipped. Each [B], whether or
        not it enters the loss.

    Raises:
        Refusal: unknown names or a contradiction among them (`check_objective`).
    """
    check_objective(
        tables.schedule,
        prediction=prediction,
        variance=variance,
        loss=loss,
        weighting=weighting,
    )
    x_t = process.q_sample(tables, x_0, t, noise)
    output = network(x_t, process.seen(tables, t, x_t))
    parameter, _ = reverse.split_output(output, x_t, variance)
    target = TARGETS[prediction](tables, x_0, x_t, t, noise)
    mse = arrays.mean_flat((target - parameter) ** 2)

    if loss in HYBRID_LOSSES:
        # The bound trains the variance alone: the mean half is stopped (Improved DDPM
        # section 3.1).
        channels = x_t.shape[-1]
        frozen = jax.lax.stop_gradient(parameter)
        output = jnp.concatenate([frozen, output[..., channels:]], axis=-1)
    model = reverse.predict(
        tables, output, x_t, t, prediction=prediction, variance=variance
    )
    vb = likelihood.vlb_term(tables, x_0, x_t, t, model, levels=levels)

    weight = mse_weight(tables, t, prediction, weighting, gamma=gamma, k=k)
    value = LOSSES[loss](mse * weight, vb, tables.num_steps)
    return {"loss": value, "mse": mse, "vb": vb}


def mse_weight(tables, t, prediction, weighting, *, gamma=None, k=1.0):
    """Return the weight of the squared error of the predicted quantity, [B].

    A weight on the error of x̂_0 becomes one on another quantity through the exact
    conversion of their errors: |Δε|² = SNR·|Δx_0|², |Δv|² = (SNR+1)·|Δx_0|² and
    |Δx_{t−1}|² = c1²·|Δx_0|².
    """
    if weighting == "none":
        return jnp.ones(t.shape, jnp.float32)
    snr = tables.snr[t]
    gamma = DEFAULT_GAMMA[weighting] if gamma is None else gamma
    error_ratio = {
        "noise": snr,
        "x_0": 1.0,
        "x_prev": tables.posterior_mean_x_0[t] ** 2,
        "v": snr + 1,
    }[prediction]
    return WEIGHTINGS[weighting](snr, gamma, k) / error_ratio


def check_objective(schedule, *, prediction, variance, loss, weighting="none"):
    """Refuse unknown names and combinations that cannot train.

    Raises:
        Refusal: "simple" with a learned variance (nothing would train it), a hybrid
            with a fixed one, a weighting with a pure bound, noise prediction with
            ᾱ = 0.
    """
    errors.choose("loss", LOSSES, loss)
    errors.choose("weighting", WEIGHTINGS, weighting)
    reverse.check_parameterisation(schedule, prediction=prediction, variance=variance)
    learned = variance in reverse.LEARNED_VARIANCES
    if loss == "simple" and learned:
        raise errors.Refusal(
            f"loss 'simple' with variance {variance!r}: nothing would train the "
            "variance; use loss 'hybrid', 'rescaled_hybrid' or 'kl', or variance "
            "'fixed_small' or 'fixed_large'"
        )
    if loss in HYBRID_LOSSES and not learned:
        raise errors.Refusal(
            f"loss {loss!r} with variance {variance!r}: its second half trains a "
            "variance; use loss 'simple' or 'kl', or variance 'learned_range'"
        )
    if weighting != "none" and loss in KL_LOSSES:
        raise errors.Refusal(
            f"weighting {weighting!r} with loss {loss!r}: it weights the squared "
            "error; use weighting 'none', or loss 'simple' or a hybrid"
        )


def quarter_sums(values, t, num_steps):
    """Return sums and counts of `values` [B] by quarter of t, each [4].

    Quarter q holds the t with ⌊4t/T′⌋ = q. Sums and counts add up over batches and
    devices; their ratio is the mean, undefined for a quarter that was never drawn.
    """
    quarter = (QUARTERS * t) // num_steps
    member = quarter[None] == jnp.arange(QUARTERS)[:, None]
    sums = jnp.sum(jnp.where(member, values, 0), axis=1)
    return sums, jnp.sum(member, axis=1, dtype=values.dtype)
