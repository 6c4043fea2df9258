"""The tab that makes a part of a picture anew."""

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import inputs
from ddpm_jax.demo import brush, jobs, tab_sample, uploads, view
from ddpm_jax.demo.player import BATCH, Job, Player
from ddpm_jax.editing import inpainting
from ddpm_jax.report import edit_pictures

TITLE = "Inpaint"
CANVAS = "inpaint-canvas"
METHODS = {
    "repaint, fast": ("repaint", "fast"),
    "repaint, good": ("repaint", "good"),
    "repaint, best": ("repaint", "best"),
    "guided": ("guided", ""),
    "replace": ("replace", ""),
}


def reason(player) -> str:
    """Return why a run does not inpaint, "" where it does."""
    return tab_sample.reason(player) or uploads.reason(player)


def job_of(
    player: Player,
    kept: uploads.Kept,
    hole: inputs.Hole,
    *,
    box: str = "",
    way: str = "repaint, good",
    label: str = "",
    **given,
) -> Job:
    """Return the job of four ways to fill a hole.

    Args:
        player: the run.
        kept: the picture.
        hole: that is filled.
        box: that the hole is, instead of a mask.
        way: a key of `METHODS`.
        label: name of a class, of runs that have some.
        **given: see `jobs.settings`.

    Raises:
        Refusal: settings that the run cannot meet.
    """
    editing, quality = errors.choose("way to inpaint", METHODS, way)
    line, config = player.understood(
        "inpaint",
        f"--image={uploads.PICTURE_FILE}",
        f"--box={box}" if box else f"--mask={uploads.MASK_FILE}",
        f"--method={editing}",
        *([f"--quality={quality}"] if quality else []),
        f"--variants={BATCH}",
        f"--config.sampling.batch_size={BATCH}",
        *jobs.settings(player, labels=(label,) if label else (), **given),
    )
    pictures = inpainting.with_holes(uploads.given(kept), hole.fitted)
    return Job.of(line, inpainting.plan(config, player.facts, pictures))


def add(tab) -> None:
    """Add a picture to brush on, settings and results."""
    gr, player = tab.gr, tab.player
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            picture = gr.HTML(
                view.note("First upload a picture, or take a sample."),
                js_on_load=brush.ON_LOAD,
                elem_id="inpaint-picture",
            )
            kept = tab.given(
                picture, lambda one: brush.canvas(one.fitted, CANVAS), "inpaint"
            )
            box = gr.Textbox(
                label="Box",
                info="x,y,width,height in pixels of the picture, instead of the brush",
                max_length=uploads.MOST_BOX,
            )
            way = gr.Dropdown(list(METHODS), value="repaint, good", label="How to fill")
            found = tab.settings(needs_class=True)
            mask = gr.Textbox(visible=False)
            button, stop = tab.buttons("Fill", "inpaint")
        with gr.Column(scale=2, min_width=280):
            outputs = tab.results("inpaint")

    def make(one, text, way, *values):
        if one is None:
            raise errors.Refusal("there is no picture: upload one, or take a sample")
        *values, address = values
        text = (text or "").replace(" ", "")
        hole = uploads.box_of(text, one) if text else uploads.hole_of(address, one)
        given = dict(zip(found, values, strict=True))
        job = job_of(player, one, hole, box=text, way=way, **given)
        with_hole = edit_pictures.hatched(one.fitted, hole.fitted)
        saved = uploads.links(one, hole=None if text else hole)
        share = f"{100 * np.mean(hole.fitted):.3g} % is made"

        def show(images):
            shown = view.picture(
                view.png(with_hole), "the picture and its hole", "hole.png", (8, 8)
            )
            first = f"<figure>{shown}<figcaption>{share}</figcaption></figure>"
            names = [f"filled, {i}" for i in range(len(images))]
            made = view.pictures(images, names, "filled")
            return f'<div class="dj-pictures">{first}</div>{made}{saved}'

        return job, show

    tab.runs(
        button,
        stop,
        make,
        [kept, box, way, *found.values(), mask],
        outputs,
        js=brush.reading(CANVAS),
    )
