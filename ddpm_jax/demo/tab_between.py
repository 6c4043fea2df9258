"""The tab that goes from one picture, or sample, to another."""

from ddpm_jax.core import errors
from ddpm_jax.demo import jobs, tab_inpaint, uploads, view
from ddpm_jax.demo.player import BATCH, Job, Player
from ddpm_jax.editing import between, plans

TITLE = "Interpolate"
FRAMES = 8
SAMPLES, PICTURES = "two samples", "two pictures"
reason = tab_inpaint.reason


def job_of(
    player: Player,
    *,
    kept: tuple[uploads.Kept, ...] = (),
    numbers: tuple = (),
    labels: tuple[str, ...] = (),
    **settings,
) -> Job:
    """Return the job of eight pictures on the way.

    Args:
        player: the run.
        kept: two pictures, or none.
        numbers: of two samples of the seed, instead.
        labels: of the two pictures.
        **settings: see `jobs.settings`.

    Raises:
        Refusal: settings that the run cannot meet.
    """
    if kept:
        given = [f"--image={name}" for name in uploads.names_of(len(kept))]
    else:
        chosen = [jobs.whole("a sample's number", n, 0, 10**6) for n in numbers]
        given = [f"--samples={','.join(map(str, chosen))}"]
    line, config = player.understood(
        "interpolate",
        *given,
        f"--frames={FRAMES}",
        f"--config.sampling.batch_size={BATCH}",
        *jobs.settings(player, labels=labels, eta=0.0, **settings),
    )
    pictures = uploads.given(*kept) if kept else plans.NOTHING
    return Job.of(line, between.plan(config, player.facts, pictures))


def add(tab) -> None:
    """Add two ends, settings and results."""
    gr, player = tab.gr, tab.player
    classes = jobs.class_choices(player)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            ends = gr.Radio([SAMPLES, PICTURES], value=SAMPLES, label="Between")
            with gr.Group() as of_samples, gr.Row():
                first = gr.Number(0, label="First sample", precision=0, minimum=0)
                second = gr.Number(1, label="Second sample", precision=0, minimum=0)
            with gr.Column(visible=False) as of_pictures:
                kept, labels = [], []
                for number, name in enumerate(("First", "Second")):
                    shown = gr.HTML(view.note(f"{name} picture: none yet."))
                    kept.append(tab.given(shown, uploads.shown, f"between{number}"))
                    if classes:
                        one = gr.Dropdown(
                            classes, value=classes[0], label=f"{name} picture's class"
                        )
                        labels.append(one)
            found = tab.settings(deterministic=True, classes=False)
            button, stop = tab.buttons("Interpolate", "way")
        with gr.Column(scale=2, min_width=280):
            outputs = tab.results("way")
    ends.change(
        lambda which: [gr.update(visible=which == w) for w in (SAMPLES, PICTURES)],
        ends,
        [of_samples, of_pictures],
        queue=False,
        show_progress="hidden",
        api_name=False,
    )

    def make(which, first, second, one, other, *values):
        names, values = values[: len(labels)], values[len(labels) :]
        given = dict(zip(found, values, strict=True))
        if which == SAMPLES:
            job = job_of(player, numbers=(first, second), **given)
            return job, lambda images: view.way(images, FRAMES)
        if one is None or other is None:
            raise errors.Refusal("two pictures are needed: upload or take them")
        job = job_of(player, kept=(one, other), labels=names, **given)
        return job, lambda images: view.way(images, FRAMES) + uploads.links(one, other)

    inputs = [ends, first, second, *kept, *labels, *found.values()]
    tab.runs(button, stop, make, inputs, outputs)
