"""The tab that samples."""

from ddpm_jax.builders import network as build_network
from ddpm_jax.core import errors
from ddpm_jax.demo import jobs, view
from ddpm_jax.demo.player import BATCH

TITLE = "Sample"


def reason(player) -> str:
    """Return why a run does not sample, "" where it does."""
    try:
        build_network.check_kind(player.config, "sampling from", player.workdir)
    except errors.Refusal as refusal:
        return str(refusal)
    return ""


def settings(tab, *, labels=True):
    """Add the settings of sampling; return the components that there are, by name."""
    gr, player = tab.gr, tab.player
    sampling, found = player.config.sampling, {}
    classes = jobs.class_choices(player)
    if classes and labels:
        # The place of a prompt too, for runs that read text.
        found["label"] = gr.Dropdown(
            [jobs.EVERY_CLASS, *classes], value=jobs.EVERY_CLASS, label="Class"
        )
    found["seed"] = gr.Number(sampling.seed, label="Seed", precision=0, minimum=0)
    whole = player.config.diffusion.num_steps
    found["steps"] = gr.Slider(
        1, whole, value=sampling.steps or whole, step=1, label="Steps"
    )
    found["method"] = gr.Dropdown(
        jobs.methods(player.config), value=sampling.method, label="Solver"
    )
    if classes and jobs.can_guide(player):
        found["guidance"] = gr.Slider(
            0,
            8,
            value=sampling.guidance_scale,
            step=0.1,
            label="Guidance scale",
            info="1 is the class alone, more is more typical of it, 0 leaves it out",
        )
    return found


def add(tab) -> None:
    """Add settings and results of sampling."""
    gr, player = tab.gr, tab.player
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            found = settings(tab)
            found["eta"] = gr.Slider(
                0, 1, value=0, step=0.05, label="η", info="share of noise of ddim"
            )
            found["number"] = gr.Slider(
                BATCH, jobs.MOST_IMAGES, value=BATCH, step=BATCH, label="Images"
            )
            with gr.Row():
                button = gr.Button("Sample", variant="primary", elem_id="sample-go")
                stop = gr.Button("Stop", elem_id="sample-stop")
        with gr.Column(scale=2, min_width=280):
            outputs = tab.results("sample")

    def make(*values):
        job = jobs.sample(player, **dict(zip(found, values, strict=True)))
        names = words(player, job)
        return job, lambda images: view.pictures(images, names[: len(images)])

    tab.runs(button, stop, make, list(found.values()), outputs)


def words(player, job) -> list[str]:
    """Return what each image of a job is called."""
    given = dict(job.recipe.condition).get("label")
    names = [f"image {i}" for i in range(job.wanted)]
    if given and job.recipe.is_conditional:
        classes = player.facts.class_names
        turns = [i // job.recipe.repeats % len(given) for i in range(job.wanted)]
        names = [f"{n}, {classes[given[t]]}" for n, t in zip(names, turns, strict=True)]
    return names
