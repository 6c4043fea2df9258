"""Drawing the pictures that a measurement can be of: blurred, coarse, grey, with gaps.

RUN/edits/<tag>/measured.npy        y, float32 [n, ...] in the values of the networks
RUN/edits/<tag>/missing/            what is not known, white, of "missing" and "mask"
RUN/edits/<tag>/mean/, deviation/   of the draws, as PNG
RUN/edits/<tag>/statistics.npz      both as numbers, and the truth where it is known
RUN/edits/<tag>/card.json           operator, noise, seed, and how good the draws are
"""

import functools
import io

import numpy as np

from ddpm_jax.data import images as images_lib
from ddpm_jax.diffusion import operators
from ddpm_jax.editing import edit, measurements, plans, restoration
from ddpm_jax.metrics import enlarging
from ddpm_jax.metrics import restoration as metrics
from ddpm_jax.report import restorations
from ddpm_jax.runtime import files, image_grid
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import archive

BLACK = 1e-6  # a deviation below is none


def run(config, workdir, image, mask) -> None:
    """Draw editing.draws pictures of each measurement.

    Args:
        config: of the run; editing.* says how.
        workdir: the run.
        image: files of the measurements, with editing.degrade of the truth.
        mask: files of masks, of the operator "mask".

    Raises:
        Refusal: measurements or settings that do not fit.
    """
    saved = edit.read_run(config, workdir, "restore")
    given = measurements.from_files(config, saved, image, mask)
    opened, plan = plans.planned_of_run(restoration.plan, config, saved, given)
    store = plans.keep(opened, plan, given.names)
    if store is None:
        return
    edit.write_pictures(
        store,
        plan.wanted,
        functools.partial(written, store, opened.config, saved.facts, given),
    )


def written(
    store: archive.SampleStore, config, facts, given, results: np.ndarray
) -> np.ndarray:
    """Write what the draws say together; return the preview.

    Args:
        store: of the results.
        config: of the run.
        facts: of its data.
        given: the measurements.
        results: as stored, [n·draws, H, W, C].
    """
    draws = results.reshape(given.count, -1, *results.shape[1:])
    values = images_lib.from_stored(draws)
    mean, deviation = metrics.summary(values)
    has_spread = draws.shape[1] >= metrics.FEWEST
    largest = max(float(deviation.max()), BLACK) if has_spread else 1.0
    arrays = {"mean": mean.astype(np.float32)}
    pictures = {"mean": images_lib.to_uint8(mean)}
    if has_spread:
        arrays["deviation"] = deviation.astype(np.float32)
        pictures["deviation"] = restorations.deviation_pictures(deviation, largest)
    if given.truth is not None:
        arrays["truth"] = images_lib.from_stored(given.truth)
    if isinstance(given.operator, operators.Mask):
        hole = np.asarray(given.operator.hole)
        if hole.any():
            pictures["missing"] = np.where(hole, 255, 0).astype(np.uint8)
    kept = measurements.with_nan(given.operator, given.values)
    _write(store.folder / "measured.npy", np.save, kept)
    _write(store.folder / "statistics.npz", np.savez, **arrays)
    for name, several in pictures.items():
        for number, picture in enumerate(several):
            path = store.folder / name / f"{number:04d}.png"
            image_grid.write_png(path, picture)
    card = scored(config, facts, given, values)
    files.write_json(store.folder / "card.json", card)
    for line in summary(card):
        say(line)
    return restorations.preview(
        given.values,
        draws,
        mean,
        deviation if has_spread else None,
        given.truth,
        largest=largest,
    )


def _write(path, save, *arrays, **by_name):
    """Write arrays as NumPy does."""
    buffer = io.BytesIO()
    save(buffer, *arrays, **by_name)
    files.write_bytes(path, buffer.getvalue())


# ---- how good they are ---------------------------------------------------------------


def scored(config, facts, given, draws: np.ndarray) -> dict:
    """Return what decides the draws, and how good they are, for card.json.

    Args:
        config: of the run.
        facts: of its data.
        given: the measurements.
        draws: float32 [n, k, H, W, C].
    """
    editing = config.editing
    flat = draws.reshape(-1, *draws.shape[2:])
    kept = measurements.with_nan(given.operator, given.values)  # no hole is counted
    left = given.again(flat) - kept.repeat(draws.shape[1], axis=0)
    card = {
        "operator": editing.operator,
        "noise": editing.noise,
        "likelihood": editing.likelihood,
        "iterations": editing.iterations,
        "draws": draws.shape[1],
        "seed": config.sampling.seed,
        "measurements": list(given.names),
        "root_mean_square_of_what_is_left": float(np.sqrt(np.nanmean(left**2))),
    }
    if given.truth is None:
        return card
    truth = images_lib.from_stored(given.truth)
    error = enlarging.squared_error(draws.mean(axis=1, dtype=np.float64), truth)
    own = enlarging.squared_error(flat, truth.repeat(draws.shape[1], axis=0))
    card["psnr_of_mean"] = enlarging.psnr(error)
    card["psnr_of_a_draw"] = enlarging.psnr(own)
    if draws.shape[1] >= metrics.FEWEST and facts.levels:
        card |= _coverage(config, facts, given, draws, truth)
    return card


def _coverage(config, facts, given, draws, truth) -> dict:
    """Return how often intervals of the draws cover the true values."""
    levels = [metrics.on_levels(v, facts.levels) for v in (draws, truth)]
    found = metrics.ranks(*levels, seed=config.sampling.seed).astype(np.float64)
    is_known = isinstance(given.operator, operators.Mask) and not config.editing.noise
    if is_known:  # what is known says nothing of the draws
        hole = np.broadcast_to(given.operator.hole, found.shape)
        found = np.where(hole, found, np.nan)
    is_tied = metrics.tied(*levels)
    untied = np.where(is_tied, np.nan, found)
    several = []
    for share in metrics.SHARES:
        whole = metrics.coverage(found, draws.shape[1], share)
        other = metrics.coverage(untied, draws.shape[1], share)
        own = {"share_untied": other.share, "error_untied": other.error}
        several.append({**whole._asdict(), **own})
    counted = np.isfinite(found)
    tied = float(is_tied[counted].mean()) if counted.any() else None
    return {"coverage": several, "tied": tied}


def summary(card: dict) -> list[str]:
    """Return what a card says, in a line each."""
    lines = [
        "measured again, the draws are "
        f"{card['root_mean_square_of_what_is_left']:.3g} from what was given (root "
        f"mean square), and the noise is {card['noise']:g}"
    ]
    if "psnr_of_mean" in card:
        lines.append(
            f"PSNR of the mean {card['psnr_of_mean']:.2f} dB, of a draw "
            f"{card['psnr_of_a_draw']:.2f} dB"
        )
    for one in card.get("coverage", ()):
        if one["share"] is None:
            continue
        line = (
            f"{100 * one['nominal']:.0f} % intervals of the draws cover "
            f"{_percent(one['share'], one['error'])} of the true values"
        )
        if card["tied"] and one["share_untied"] is not None:
            others = _percent(one["share_untied"], one["error_untied"])
            line += f", {others} of those that are not tied"
        lines.append(line)
    if card.get("tied"):
        lines.append(
            f"{100 * card['tied']:.1f} % of the true values are tied, on the grey "
            "level of every draw: their rank is by chance, so that they count as "
            "covered as often as they should"
        )
    return lines


def _percent(share, error):
    """Return a share and its standard error, if it has one, in words."""
    return f"{100 * share:.1f}{'' if error is None else f' ± {100 * error:.1f}'} %"
