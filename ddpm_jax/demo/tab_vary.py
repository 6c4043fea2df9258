"""The tab that makes variations of a picture."""

from ddpm_jax.core import errors
from ddpm_jax.demo import jobs, tab_inpaint, uploads, view
from ddpm_jax.demo.player import BATCH, Job, Player
from ddpm_jax.editing import variation

TITLE = "Vary"
reason = tab_inpaint.reason


def job_of(
    player: Player,
    kept: uploads.Kept,
    *,
    strength: float = 0.6,
    label: str = "",
    steps: float = 0,
    **settings,
) -> Job:
    """Return the job of four variations.

    Args:
        player: the run.
        kept: the picture.
        strength: share of T up to which noise is added, 0 … 1.
        label, steps, **settings: see `jobs.settings`; there are at most as many
            steps as the strength leaves.

    Raises:
        Refusal: settings that the run cannot meet.
    """
    whole = player.config.diffusion.num_steps
    strength = jobs.real("the strength", strength, 0, 1)
    steps = jobs.whole("steps", steps, 0, whole)
    steps = min(steps or player.config.sampling.steps or whole, whole * strength)
    line, config = player.understood(
        "vary",
        f"--image={uploads.PICTURE_FILE}",
        f"--strength={strength:g}",
        f"--variants={BATCH}",
        f"--config.sampling.batch_size={BATCH}",
        *jobs.settings(
            player,
            labels=(label,) if label else (),
            steps=max(1, round(steps)),
            **settings,
        ),
    )
    return Job.of(line, variation.plan(config, player.facts, uploads.given(kept)))


def add(tab) -> None:
    """Add a picture, settings and results."""
    gr, player = tab.gr, tab.player
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            picture = gr.HTML(view.note("First upload a picture, or take a sample."))
            kept = tab.given(picture, uploads.shown, "vary")
            strength = gr.Slider(
                0,
                1,
                value=0.6,
                step=0.05,
                label="Strength",
                info="noise that is added, as a share of T; 1 makes a new image",
            )
            found = tab.settings(needs_class=True)
            button, stop = tab.buttons("Vary", "vary")
        with gr.Column(scale=2, min_width=280):
            outputs = tab.results("vary")

    def make(one, strength, *values):
        if one is None:
            raise errors.Refusal("there is no picture: upload one, or take a sample")
        given = dict(zip(found, values, strict=True))
        job = job_of(player, one, strength=strength, **given)

        def show(images):
            names = [f"variation {i}" for i in range(len(images))]
            return view.pictures(images, names, "varied") + uploads.links(one)

        return job, show

    tab.runs(button, stop, make, [kept, strength, *found.values()], outputs)
