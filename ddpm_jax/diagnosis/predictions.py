"""Checks of the network: is it better than no network, best at the true t, averaged?"""

import numpy as np

from ddpm_jax.diagnosis import findings
from ddpm_jax.diagnosis.findings import NOT_CHECKED, OK, PROBLEM, WATCH, Finding
from ddpm_jax.diagnosis.measure import NETWORK, STRAIGHT, TRIVIAL
from ddpm_jax.metrics import sensitivity as sensitivity_lib
from ddpm_jax.report import html
from ddpm_jax.training import ema

# With u = SNR·(variance of the data) the best guess from one pixel has the error
# u/(1+u) of ε, the trivial ones min(1, u): they differ by more than 5 % between these.
BAND = (0.05, 20.0)
NO_BETTER = 0.98  # of the trivial error: inside the band a straight line gets to 0.95
WEAK = 1.1  # times the error of a straight line
WORSE = 1.5  # times the trivial error, outside the band
VISIBLE = 0.01  # of the variance of noise, or of data where there is little noise
MISLED = 0.8  # of its error, with another t given or another meaning of the output
CREDIBLE = 1.05  # times the error of a straight line
WORSE_WEIGHTS = 1.1
BAD_WEIGHTS = 2.0
CLIPPED, OFTEN_CLIPPED = 0.05, 0.2
IGNORED = 1e-3  # change of the noise by a caption
NAMES = {"ema": "EMA", "raw": "raw"}
LITTLE = (
    "the network has learned little, or its weights are not used as they were trained: "
    "train longer; if the loss was low, the schedule, prediction or data range of this "
    "run is not that of its weights"
)
SOME = (
    "train longer, and look at these timesteps in report.html: a lower "
    "train.learning_rate or diffusion.weighting=min_snr shifts what is learned"
)
NOTHING_COMPARABLE = "there are too few t at which noise and image are comparable"


def in_band(u: np.ndarray) -> np.ndarray:
    """Return where noise and image are comparable, so that a network has work to do.

    Args:
        u: [K], SNR·variance of the data.
    """
    return (u > BAND[0]) & (u < BAND[1])


def denoising(t: np.ndarray, u: np.ndarray, errors: dict) -> Finding:
    """Judge the network against guesses that need none.

    Args:
        t: int [K]; u: [K], SNR·variance of the data.
        errors: name → [K, n], squared errors of ε̂ from `measure.by_t`.
    """
    network = errors[NETWORK].mean(axis=1)
    if not np.isfinite(network).all():
        return Finding(
            "denoising",
            PROBLEM,
            f"the network gives NaN or infinity at "
            f"{findings.timesteps(t, ~np.isfinite(network))}",
            "Its weights have diverged, or its computation overflows.",
            "go back to an earlier checkpoint, or train anew with a lower "
            "train.learning_rate and train.clip_norm=1",
        )
    trivial = np.min([errors[name].mean(axis=1) for name in TRIVIAL], axis=0)
    ratio, line = network / trivial, network / errors[STRAIGHT].mean(axis=1)
    counts = in_band(u)
    reason = (
        "Compared with predicting no noise, the mean image, or no change. They are "
        "counted where a straight line through each pixel alone is 5 % better than "
        f"they are (here {counts.sum()} of {len(t)} t): a network that is not has "
        "learned nothing there."
    )
    lost = counts & (ratio > NO_BETTER)
    if lost.any():
        said = (
            f"no better than a trivial guess at {findings.timesteps(t, lost)} (up to "
            f"{html.short(float(ratio[lost].max()), 2)} times its error)"
        )
        much = lost.sum() > counts.sum() / 2
        return Finding("denoising", PROBLEM, said, reason, LITTLE if much else SOME)
    weak = counts & (line > WEAK)
    if weak.any():
        return Finding(
            "denoising",
            WATCH,
            f"worse than a straight line through each pixel at "
            f"{findings.timesteps(t, weak)}",
            reason,
            "train longer: the network does not yet use what pixels say of each other",
        )
    error = np.where(u < 1, network, network / u)
    far = ~counts & (ratio > WORSE) & (error > VISIBLE)
    if far.any():
        noisy = u[far].min() < 1
        cure = "v" if noisy else "noise or v"
        return Finding(
            "denoising",
            WATCH,
            f"worse than a trivial guess at {findings.timesteps(t, far)}",
            reason,
            f"where x_t is nearly {'noise' if noisy else 'the image'} alone another "
            f"diffusion.prediction ({cure}) is easier to learn; train longer first",
        )
    share = float(np.exp(np.mean(np.log(ratio[counts])))) if counts.any() else 1.0
    return Finding(
        "denoising",
        OK,
        f"the error is {findings.percent(share)} of the best trivial guess's",
        reason,
    )


def text(sensitivity: dict) -> Finding:
    """Judge whether what is predicted depends on the text.

    Args:
        sensitivity: from `metrics.sensitivity`, by quarter of t too.
    """
    largest = sensitivity_lib.largest(sensitivity)
    said = (
        f"a caption changes the predicted noise by up to {findings.percent(largest)} "
        "(mean by quarter of t)"
    )
    reason = (
        "‖ε(caption) − ε(no caption)‖ / ‖ε(no caption)‖ of test images; 0 means that "
        "prompts have no effect, whatever the guidance scale."
    )
    if largest < IGNORED:
        return Finding(
            "text",
            PROBLEM,
            f"the network ignores the prompt: {said}",
            reason,
            "train longer; if the loss has long been flat, look at captions and images "
            "with --mode=data: they may not belong to each other",
        )
    if largest < sensitivity_lib.MATTERS:
        cure = "train longer: the text has only begun to matter"
        return Finding("text", WATCH, said, reason, cure)
    return Finding("text", OK, said, reason)


def prediction(
    u: np.ndarray, readings: dict, straight: np.ndarray, *, name: str
) -> Finding:
    """Judge whether the output means what the run says.

    Args:
        u: [K], SNR·variance of the data.
        readings: prediction → [K, n], squared errors of ε̂ if the output meant that.
        straight: [K, n], those of a straight line through each pixel.
        name: the run's prediction.
    """
    reason = (
        "The same output, read as noise, x_0, x_prev and v. Another reading counts "
        f"if it takes {100 * (1 - MISLED):.0f} % off the error and does as well as a "
        "straight line through each pixel, which an untrained output cannot by chance."
    )
    counts = in_band(u)
    if not counts.any():
        return Finding("prediction", NOT_CHECKED, NOTHING_COMPARABLE, reason)

    def size(errors):
        return float(np.exp(np.mean(np.log(errors[counts].mean(axis=1)))))

    sizes = {key: size(errors) for key, errors in readings.items()}
    others = {key: value for key, value in sizes.items() if key != name}
    best = min(others, key=others.get)
    own, line = sizes[name], size(straight)
    if others[best] < MISLED * own and others[best] < CREDIBLE * line:
        return Finding(
            "prediction",
            PROBLEM,
            f"read as {best} the output has {findings.percent(others[best] / own)} of "
            f"the error that it has as {name}",
            reason,
            f"diffusion.prediction={best} is what these weights were trained with: "
            "convert them with it",
        )
    return Finding("prediction", OK, f"the output is best read as {name}", reason)


def noise_level(
    levels: np.ndarray, t_given: np.ndarray, errors: np.ndarray, spacing: int
) -> Finding:
    """Judge whether the network does best when given the true t.

    Args:
        levels: int [L], the t whose noise was added.
        t_given: int [K], the t that the network was given, `levels` among them.
        errors: [L, K], squared errors of ε̂.
        spacing: between neighbouring t of `t_given`.
    """
    reason = (
        "A network that was trained with another schedule, or given t in another unit, "
        "meets other amounts of noise than it expects, and removes less when given the "
        "true t. One that was trained with this schedule is best at its own t, within "
        f"the spacing of {spacing:,}; it is misled where another t takes "
        f"{100 * (1 - MISLED):.0f} % off its error, and that is a problem if it does "
        "so on the average."
    )
    own = np.array(
        [row[t_given == level][0] for row, level in zip(errors, levels, strict=True)]
    )
    share = errors.min(axis=1) / np.maximum(own, np.finfo(np.float32).tiny)
    preferred = t_given[errors.argmin(axis=1)]
    misled = share < MISLED
    if not misled.any():
        return Finding(
            "timesteps", OK, "the network is best when given the true t", reason
        )
    place = int(np.argmin(share))
    said = (
        f"at the noise of t = {levels[place]:,} the network is best when given "
        f"t = {preferred[place]:,} ({findings.percent(share[place])} of "
        f"its error); so at {misled.sum()} of {len(levels)} levels"
    )
    remedy = (
        "diffusion.schedule, diffusion.num_steps or diffusion.rescale_timesteps is not "
        "what these weights were trained with: convert or train them with theirs"
    )
    if np.exp(np.mean(np.log(share))) < MISLED:
        return Finding("timesteps", PROBLEM, said, reason, remedy)
    return Finding(
        "timesteps", WATCH, said, reason, f"train longer; if it stays, {remedy}"
    )


def weights(
    kind: str, *, name: str, share: float, used: np.ndarray, other: np.ndarray
) -> Finding:
    """Judge which weights are used, and how they compare.

    Args:
        kind: "ema" or "raw", those that are used.
        name: of the average; share: of the initial weights in it.
        used, other: [K, n], squared errors of ε̂ of both.
    """
    holds = f"EMA {name} holds {findings.percent(share)} of the initial weights"
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(used.mean(axis=1)) - np.log(other.mean(axis=1))
    ratio = float(np.exp(np.mean(logs)))
    rest = {"ema": "raw", "raw": "ema"}[kind]
    said = (
        f"{holds}; the {NAMES[kind]} weights, which are used, have {ratio:.2f} times "
        f"the error of the {NAMES[rest]} ones"
    )
    reason = (
        "An average is worth using once it has forgotten where it started: below "
        f"{100 * ema.MAX_INITIAL_SHARE:g} % sampling takes it by itself. Then its "
        "error of one step should be no larger than that of the raw weights."
    )
    instead = f"sample with --config.sampling.weights={rest}"
    if kind == "ema" and share >= ema.MAX_INITIAL_SHARE:
        remedy = f"leave sampling.weights=auto, or {instead}, and train longer"
        return Finding("weights", PROBLEM, said, reason, remedy)
    if not ratio <= BAD_WEIGHTS:
        return Finding("weights", PROBLEM, said, reason, instead)
    if ratio > WORSE_WEIGHTS:
        remedy = f"{instead}; a lower train.ema_decay follows a short training better"
        return Finding("weights", WATCH, said, reason, remedy)
    if share >= ema.MAX_INITIAL_SHARE:
        remedy = "train longer: until then the raw weights are used"
        return Finding("weights", WATCH, said, reason, remedy)
    return Finding("weights", OK, said, reason)


def only_weights(sentence: str) -> Finding:
    """Return the finding about a run with one set of weights."""
    return Finding("weights", NOT_CHECKED, f"there is one set of weights: {sentence}")


def clipping(t: np.ndarray, u: np.ndarray, outside: np.ndarray, clip: bool) -> Finding:
    """Judge how often x̂_0 lies outside the range of the data.

    Args:
        t: int [K]; u: [K], SNR·variance of the data.
        outside: [K], share of the values beyond ±1.1.
        clip: whether sampling clips x̂_0.
    """
    reason = (
        "x̂_0 of noised test images, counted beyond ±1.1. Where noise prevails it is "
        "often far outside, which clipping mends; where the image prevails (noise "
        f"weaker than the data) more than {100 * CLIPPED:.0f} % mean that the network "
        "does not know the range of the data."
    )
    clear = u > 1
    late = float(outside[clear].max()) if clear.any() else 0.0
    early = float(outside[~clear].max()) if (~clear).any() else 0.0
    said = (
        f"x̂_0 leaves −1 … 1 in {findings.percent(early)} of the values where noise "
        f"prevails, {findings.percent(late)} where the image does"
    )
    if late > CLIPPED:
        verdict = PROBLEM if late > OFTEN_CLIPPED else WATCH
        remedy = (
            "look at the data range and at denoising above; if both are well, train "
            "longer"
        )
        return Finding("clipping", verdict, said, reason, remedy)
    if not clip and early > OFTEN_CLIPPED:
        remedy = "sample with --config.sampling.clip=True"
        return Finding("clipping", PROBLEM, said, reason, remedy)
    return Finding("clipping", OK, said, reason)
