"""Checks of what goes in: the data, the noise schedule, the sampler itself."""

import numpy as np

from ddpm_jax.diagnosis import findings
from ddpm_jax.diagnosis.findings import NOT_CHECKED, OK, PROBLEM, WATCH, Finding
from ddpm_jax.diagnosis.measure import DataStatistics
from ddpm_jax.metrics import oracle
from ddpm_jax.report import html

ROUNDING = 1e-5  # of a value in float32, beyond ±1
MAX_OFF_GRID = 0.01  # share of the values
CONSTANT = 0.02  # deviation of a channel: 2.5 of 256 grey values
NARROW = 1.05  # of the 2 between −1 and 1: images that were scaled to 0 … 1
WATCHED_SNR = 1e-3  # 3 % of the image are left in x_T
HIGH_SNR = 0.05  # 22 %
MAX_DEVIATION = 5.0  # standard errors; one of 10⁵ correct samplers would exceed it


def data(seen: DataStatistics, *, levels: int, same: bool) -> Finding:
    """Judge the images as the network sees them.

    Args:
        levels: grey values that the run expects.
        same: whether fingerprint of data and run agree.
    """
    if not seen.finite:
        return Finding(
            "data",
            PROBLEM,
            "images hold NaN or infinity",
            remedy="find the files with --mode=data and take them out",
        )
    span = f"{html.short(seen.minimum, 3)} … {html.short(seen.maximum, 3)}"
    channels = ", ".join(
        f"{html.short(float(mean), 2)} ± {html.short(float(std), 2)}"
        for mean, std in zip(seen.channel_mean, seen.channel_std, strict=True)
    )
    flat = np.flatnonzero(seen.channel_std < CONSTANT)
    faults = [
        (
            max(-seen.minimum, seen.maximum) > 1 + ROUNDING,
            PROBLEM,
            f"values span {span}, outside −1 … 1",
            "scale the images to 0 … 255 before the run reads them, and train anew",
        ),
        (
            seen.off_grid > MAX_OFF_GRID,
            PROBLEM,
            f"{findings.percent(seen.off_grid)} of the values are none of the {levels} "
            f"grey values (they span {span})",
            "look at the images with --mode=data: they were shifted or scaled on the "
            "way; give the data that the run was trained on",
        ),
        (
            flat.size > 0,
            PROBLEM,
            f"channel {', '.join(map(str, flat))} is constant",
            "leave it out with data.channels, or look for damaged files with "
            "--mode=data, and train anew",
        ),
        (
            seen.maximum - seen.minimum <= NARROW,
            WATCH,
            f"values span only {span} of −1 … 1",
            "if the files are not that dim they were stored in another range: store "
            "them with values 0 … 255 and train anew",
        ),
        (
            not same,
            WATCH,
            "the data is not what the run was trained on (its fingerprint differs)",
            "give the data of the training with --config.data.path, or judge what "
            "follows as of new data",
        ),
    ]
    reason = (
        f"{len(seen.index):,} images, mean ± deviation by channel {channels}. The "
        "process adds noise of deviation 1 and clips to −1 … 1, so that data must fill "
        "that range."
    )
    for found, verdict, said, remedy in faults:
        if found:
            return Finding("data", verdict, said, reason, remedy)
    return Finding("data", OK, f"values {span}; by channel {channels}", reason)


def schedule(
    whole: np.ndarray, kept: np.ndarray, timesteps: np.ndarray, *, name: str
) -> Finding:
    """Judge how much of the image is left where sampling starts from pure noise.

    Args:
        whole: ᾱ [T] of training.
        kept: ᾱ [T′] of sampling; timesteps: int [T′], the original ones.
        name: of the schedule.
    """
    last, start = float(whole[-1]), float(kept[-1])
    snr = start / (1 - start)
    left = findings.percent(np.sqrt(start))
    dropped = timesteps[-1] < len(whole) - 1 and start > 2 * last
    said = (
        f"{name}, T = {len(whole):,}, sampling takes {len(kept):,} steps from "
        f"t = {timesteps[-1]:,}, where SNR = {html.short(snr, 2)}"
    )
    reason = (
        f"There x_t still holds {left} of the image (√ᾱ), but sampling starts from "
        "noise alone. What is missing is first of all mean colour and brightness: "
        "0.0047 keeps Stable Diffusion from very dark and very bright pictures (Lin et "
        f"al. 2023). Watched from {WATCHED_SNR:g}, too much from {HIGH_SNR:g}."
    )
    if dropped and snr >= WATCHED_SNR:
        remedy = (
            f"sampling leaves out the noisiest steps, up to t = {len(whole) - 1:,}: "
            f"give --config.sampling.steps={len(kept)} instead of this respacing"
        )
    else:
        remedy = (
            "train anew with a schedule that ends in noise: "
            "diffusion.zero_terminal_snr=True with diffusion.prediction=v, or "
            "diffusion.schedule=cosine"
        )
    if snr >= HIGH_SNR:
        return Finding("schedule", PROBLEM, said, reason, remedy)
    if snr >= WATCHED_SNR:
        return Finding("schedule", WATCH, said, reason, remedy)
    return Finding("schedule", OK, said, reason)


def sampler(deviation: oracle.Deviation | None, *, method: str, steps: int) -> Finding:
    """Judge the sampler of the run with a network that is exact.

    Args:
        deviation: from `measure.exact_chain`.
    """
    if deviation is None:
        known = ", ".join(oracle.METHODS)
        said = f"what {method} makes of Gaussian data is known for {known} only"
        return Finding("sampler", NOT_CHECKED, said)
    worst = np.max(deviation)
    said = (
        f"{method} with {steps:,} steps and an exact network: mean off by "
        f"{deviation.mean:.1f} σ, variance by {deviation.var:.1f} σ"
    )
    reason = (
        "For Gaussian data the best network is known, and so is what this sampler with "
        "these steps must make of it. σ are standard errors of the worst of 8 numbers; "
        f"one of 10⁵ correct samplers is off by more than {MAX_DEVIATION:g}. The chain "
        "is float32, whatever model.dtype is."
    )
    if worst <= MAX_DEVIATION:  # NaN is no such number
        return Finding("sampler", OK, said, reason)
    remedy = (
        "this machine does not compute what it should: run --mode=doctor, which finds "
        "out where, before looking for faults in the run"
    )
    return Finding("sampler", PROBLEM, said, reason, remedy)
