"""The tab that shows how it works: one image forward and back through t."""

import numpy as np

from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.demo import explain, jobs, tab_sample, tab_vary, uploads, view

TITLE = "How it works"
NO_CLASS = "no class"
LEAST = 3  # steps: the slider has two ends, and t = T − 1 is none of them
COLUMNS = 8  # of the way forward


def reason(player) -> str:
    """Return why a run does not explain itself, "" where it does."""
    specs = player.opened.trained.network.condition_spec
    needed = [
        key for key, spec in specs.items() if key != "label" and spec.none is None
    ]
    reason = f"its network is always told {needed[0]!r}" if needed else ""
    if player.config.diffusion.num_steps < LEAST:
        reason = f"its process has fewer than {LEAST} steps"
    return tab_sample.reason(player) or uploads.reason(player) or reason


def add(tab) -> None:
    """Add a picture, a slider of t, and what the network sees and says there."""
    gr, player = tab.gr, tab.player
    explainer = explain.Explainer(player)
    last = explain.last_of(explainer.schedule.num_steps)
    gr.HTML(explain.FORMULAS)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            picture = gr.HTML(view.note("First upload a picture, or take a sample."))
            kept = tab.given(picture, uploads.shown, "how")
            t = gr.Slider(0, last, value=last // 4, step=1, label="t", elem_id="how-t")
            choices = [*([NO_CLASS] if jobs.can_guide(player) else [])]
            choices += jobs.class_choices(player)
            label = gr.Dropdown(
                choices,
                value=choices[0] if choices else None,
                label="Class that the network is told",
                visible=takes_class(player),
            )
            seed = gr.Number(0, label="Seed of the noise", precision=0, minimum=0)
            prompts = [tab.prompt()] if jobs.reads_text(player) else []
            button, stop = tab.buttons("Go back", "how")
        with gr.Column(scale=2, min_width=280):
            seen = gr.HTML("", elem_id="how-results")
            chart = gr.HTML(explain.drawn(explainer.schedule, last // 4))
            outputs = tab.results("back")

    def look(one, t, label, seed):
        try:
            return shown(explainer, player, one, t, label, seed)
        except Exception as error:  # told in the page, and logged
            return view.failed(error), gr.skip()

    def back(one, t, label, seed, *prompt):
        job = way_back(player, one, t, label, seed, *prompt)
        return job, lambda images: view.pictures(
            images, [f"back, {i}" for i in range(len(images))], "back"
        )

    inputs = [kept, t, label, seed]
    tab.runs(button, stop, back, [*inputs, *prompts], outputs)
    for changed in (kept.change, t.release, t.change, label.change, seed.change):
        changed(
            look,
            inputs,
            [seen, chart],
            show_progress="hidden",
            trigger_mode="always_last",
            concurrency_id="look",
            concurrency_limit=1,
            api_name=False,
        )


def way_back(player, one, t, label, seed, prompt=None):
    """Return the job that goes back from t, of which image 0 begins at the x_t shown.

    Raises:
        Refusal: no picture, or values out of range.
    """
    if one is None:
        raise errors.Refusal("there is no picture: upload one, or take a sample")
    whole = player.config.diffusion.num_steps
    t = jobs.whole("t", t, 0, explain.last_of(whole))
    is_class = label in player.facts.class_names and takes_class(player)
    return tab_vary.job_of(
        player,
        one,
        strength=(t + 1) / whole,
        label=label if is_class else "",
        guidance=1.0 if is_class or not takes_class(player) else 0.0,
        seed=seed,
        prompt=prompt,
        method=player.config.sampling.method,
    )


def takes_class(player) -> bool:
    """Return whether the network can be told a class."""
    return bool(player.config.model.class_conditional)


def shown(explainer, player, one, t, label, seed) -> tuple[str, str]:
    """Return what the network sees and says at t, and the chart with t in it.

    Raises:
        Refusal: values out of range.
    """
    whole = explainer.schedule.num_steps
    t = jobs.whole("t", t, 0, explain.last_of(whole))
    chart = explain.drawn(explainer.schedule, t)
    if one is None:
        return "", chart
    names = list(player.facts.class_names)
    number = names.index(label) if label in names and takes_class(player) else None
    seed = jobs.whole("the seed", seed, 0, jobs.MOST_SEED)
    x_0 = one.picture.values
    found = explainer.at(x_0, t, seed=seed, label=number)
    levels = player.facts.levels
    images = [images_lib.to_stored(a, levels) for a in (x_0, *found[:3])]
    words = ["x_0", f"x_t at t = {t}", "x̂_0, its estimate of x_0", "ε̂, of the noise"]
    error = np.sqrt(np.mean((found.x_0 - x_0) ** 2)) * 127.5
    times = np.linspace(0, whole - 1, COLUMNS).round().astype(int)
    way = images_lib.to_stored(explainer.forward(x_0, times, seed=seed), levels)
    return (
        view.pictures(np.stack(images), words, "seen")
        + f"<p>ᾱ<sub>t</sub> = {found.alpha_bar:.4f}, and x̂<sub>0</sub> is "
        f"{error:.1f} of 255 grey values from x<sub>0</sub> (root mean square).</p>"
        + "<p>The way forward:</p>"
        + view.pictures(way, [f"t = {k}" for k in times], "forward", 72),
        chart,
    )
