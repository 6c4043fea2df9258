"""Progressive coding: how good an image is after how many bits (DDPM, section 4.3).

RUN/edits/<tag>/rate_distortion.csv   bits and error of every t, in the order of sending
RUN/edits/<tag>/rate_distortion.png   the same, drawn
RUN/edits/<tag>/coding.png            test images as a receiver sees them
RUN/edits/<tag>/coding.npz            the same as arrays
RUN/edits/<tag>/generation.png        samples as they come into being
"""

import io
import json

import numpy as np

from ddpm_jax.builders import editing as build_editing
from ddpm_jax.data import images as images_lib
from ddpm_jax.editing import animation, edit
from ddpm_jax.evaluation import (
    cards,
    decoding,
    likelihood,
    progressive,
    rate_distortion,
)
from ddpm_jax.report import grids, plots, sheets
from ddpm_jax.runtime import files, image_grid
from ddpm_jax.runtime.console import say
from ddpm_jax.sampling import generation

FILES = (
    "rate_distortion.csv",
    "rate_distortion.png",
    "coding.npz",
    "coding.png",
    "generation.png",
)


def run(config, workdir) -> None:
    """Score the test images as --mode=evaluate does, and show what the bits buy.

    Args:
        config: of the run; evaluation.* says what is coded, sampling.* what is
            generated, editing.variants how many images are shown.
        workdir: the run.

    Raises:
        Refusal: no run, or one whose images have no bits.
    """
    saved = edit.read_run(config, workdir, "compress")
    prepared = likelihood.prepare(config, saved.facts)
    dataset, num_images, schedule = prepared
    build_editing.recipe(config, saved.facts, "compress")  # refuses what cannot be
    opened = edit.open_run(saved, config)
    trained = opened.trained
    scored = trained.weights(config.evaluation.weights, field="evaluation.weights")
    if not likelihood.score(trained, prepared):
        return
    card_path = likelihood.path_of(trained, dataset, scored.kind)
    card = json.loads(card_path.read_text())
    recipe = build_editing.recipe(
        config,
        saved.facts,
        "compress",
        given={"coded": card_path.stem.removeprefix("bits_per_dim_")},
    )
    store = generation.open_store(trained.run_dir.edits, recipe, opened.weights)
    folder = store.folder
    table = rate_distortion.steps(card["prior"], card["by_t"])
    if all((folder / name).exists() for name in FILES):
        say("the table and its pictures are there already")
    else:
        count = min(config.editing.variants, num_images)
        write_table(table, card, config, folder)
        write_coding(trained, scored, dataset, schedule, table, count, folder)
        write_generation(opened, recipe, count, folder)
    last = table[-2]
    say(
        f"lossy: {last.rate:.4f} bits/dim at RMSE {last.rmse:.2f} of 255; lossless: "
        f"{table[-1].rate:.4f} bits/dim"
    )
    for name in FILES:
        say(f"{name + ':':<20} {folder / name}")


def write_table(table, card, config, folder) -> None:
    """Write the table, and the picture of it."""
    text = rate_distortion.as_csv(table)
    files.write_bytes(folder / "rate_distortion.csv", text.encode())
    value = cards.measured(card["value"], card["standard_error"])
    number = card["protocol"]["num_images"]
    picture = plots.progressive(
        *([row[k] for row in table[:-1]] for k in (0, 2, 3)),
        title=f"Progressive coding: {value} bits/dim, {config.data.name}, "
        f"{number} test images",
    )
    files.write_bytes(folder / "rate_distortion.png", picture)


def write_coding(trained, scored, dataset, schedule, table, count, folder) -> None:
    """Write test images as they are after some of the bits."""
    coded = progressive.coded(trained, scored, dataset, count, schedule)
    buffer = io.BytesIO()
    np.savez(buffer, **coded._asdict())
    files.write_bytes(folder / "coding.npz", buffer.getvalue())
    captions = []
    rows = {row.timestep: row for row in table}
    for timestep in coded.timestep:
        row = rows[timestep]
        captions.append(
            f"t = {row.timestep}\n{row.rate:.3f} bits/dim\nRMSE {row.rmse:.1f}"
        )
    captions.append(f"test image\n{table[-1].rate:.3f} bits/dim\nRMSE 0")
    write_strip(folder / "coding.png", [*coded.estimate, coded.image], captions)


def write_generation(opened, recipe, count, folder) -> None:
    """Write samples as they are estimated on the way."""
    states = animation.states_on(recipe.whole_path)
    shown = grids.evenly(states[:-1], progressive.COLUMNS)
    positions = [position for position, _ in shown]
    found = decoding.generated(opened.trained, opened.weights, recipe, count, positions)
    stages = images_lib.to_stored([*found.estimates, found.images], opened.facts.levels)
    captions = [f"t = {recipe.schedule.timesteps[t]}" for _, t in shown]
    write_strip(folder / "generation.png", stages, [*captions, "sample"])


def write_strip(path, stages, captions) -> None:
    """Write a picture with a column for each stage, and a row for each image.

    Args:
        path: of the PNG file.
        stages: of stored images [n, H, W, C].
        captions: of the stages.
    """
    shown = images_lib.shown(np.stack(list(stages)))
    rows = np.swapaxes(shown, 0, 1)
    image_grid.write_png(path, sheets.sheet(rows, captions))
