"""The tab that samples."""

from ddpm_jax.builders import network as build_network
from ddpm_jax.core import errors
from ddpm_jax.demo import jobs, view
from ddpm_jax.demo.player import BATCH
from ddpm_jax.text import encoding

TITLE = "Sample"


def reason(player) -> str:
    """Return why a run does not sample, "" where it does."""
    if player.config.model.kind == "upsampler":
        return (
            "it enlarges images and makes none from noise alone; in a terminal "
            "--config.sampling.low_res=… says which"
        )
    try:
        build_network.check_kind(player.config, "sampling from", player.workdir)
    except errors.Refusal as refusal:
        return str(refusal)
    return ""


def add(tab) -> None:
    """Add settings and results of sampling."""
    gr, player = tab.gr, tab.player
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            found = tab.settings()
            found["number"] = gr.Slider(
                BATCH, jobs.MOST_IMAGES, value=BATCH, step=BATCH, label="Images"
            )
            button, stop = tab.buttons("Sample", "sample")
        with gr.Column(scale=2, min_width=280):
            outputs = tab.results("sample")

    def make(*values):
        job = jobs.sample(player, **dict(zip(found, values, strict=True)))
        names = words(player, job)
        return job, lambda images: view.pictures(images, names[: len(images)])

    tab.runs(button, stop, make, list(found.values()), outputs)


def words(player, job) -> list[str]:
    """Return what each image of a job is called: its class and prompt, if any."""
    given = dict(job.recipe.condition).get("label")
    names = [f"image {i}" for i in range(job.wanted)]
    if given and job.recipe.is_conditional:
        classes = player.facts.class_names
        turns = [i // job.recipe.repeats % len(given) for i in range(job.wanted)]
        names = [
            f"{n}, class {classes[given[t]]}" for n, t in zip(names, turns, strict=True)
        ]
    if jobs.reads_text(player):
        texts = job.config.sampling.prompts or jobs.captions(player)
        texts = [encoding.shortened(text) if text else "no text" for text in texts]
        names = [f"{name}, {texts[i % len(texts)]}" for i, name in enumerate(names)]
    return names
