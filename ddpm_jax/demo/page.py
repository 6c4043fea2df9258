"""The page: its tabs, and what they share."""

import functools
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from ddpm_jax.demo import door, jobs, uploads, view
from ddpm_jax.demo.player import Job, Player

QUEUE = 24  # requests that wait; more are refused
SECONDS_KEPT = 3600  # that a window's picture is remembered without use


class Tab:
    """What a tab is made with.

    Attributes:
        gr: the module gradio.
        player: the run.
    """

    def __init__(self, gr, player: Player):
        self.gr, self.player = gr, player

    def buttons(self, title: str, kind: str):
        """Add a button that begins, and one that stops; return the two.

        Args:
            title: of the first one.
            kind: of the tab, for names.
        """
        gr = self.gr
        with gr.Row():
            begin = gr.Button(
                title, variant="primary", min_width=120, elem_id=f"{kind}-go"
            )
            stop = gr.Button("Stop", min_width=80, elem_id=f"{kind}-stop")
        return begin, stop

    def results(self, kind: str):
        """Add status, pictures and command line; return the three components."""
        gr = self.gr
        status = gr.HTML(view.note("Nothing is made yet."), elem_id=f"{kind}-status")
        pictures = gr.HTML("", elem_id=f"{kind}-results")
        command = gr.Textbox(
            label="The command line that makes the same",
            info="to the bit, in a terminal",
            buttons=["copy"],
            interactive=False,
            lines=3,
            elem_id=f"{kind}-command",
            elem_classes="dj-command",
        )
        return status, pictures, command

    def given(self, view_of, show, kind: str):
        """Add ways to give a picture; return the state that holds it.

        Args:
            view_of: HTML component that shows it.
            show: `uploads.Kept → HTML`.
            kind: of the tab, for names.
        """
        gr, player = self.gr, self.player
        kept = gr.State(None, time_to_live=SECONDS_KEPT)
        with gr.Row():
            upload = gr.UploadButton(
                "Upload",
                type="filepath",
                size="md",
                min_width=120,
                elem_id=f"{kind}-upload",
            )
            sample = gr.Button(
                "Take a sample", size="md", min_width=120, elem_id=f"{kind}-take"
            )
        number = gr.Number(0, label="Seed of the sample", precision=0, minimum=0)

        def read(path):
            try:
                one = uploads.read(path, player)
            except Exception as error:  # told in the page, and logged
                return None, view.failed(error)
            return one, show(one) + "".join(map(view.note, one.remarks))

        def take(seed):
            try:
                for now in player.play(jobs.sample(player, seed=seed)):
                    if now is None or not now.is_finished:
                        yield gr.skip(), view.note("The sample is made …")
            except Exception as error:  # told in the page, and logged
                yield None, view.failed(error)
                return
            one = uploads.of_array(now.images[0])
            yield one, show(one)

        hidden = {"show_progress": "hidden", "api_name": False}
        upload.upload(read, upload, [kept, view_of], **hidden)
        chain = {"concurrency_id": "chain", "concurrency_limit": 1}
        sample.click(take, number, [kept, view_of], **chain, **hidden)
        return kept

    def settings(
        self, *, needs_class=False, deterministic=False, classes=True, eta=True
    ):
        """Add the settings of sampling; return the components by name.

        Args:
            needs_class: the tab makes images of one class, which is chosen.
            deterministic: only solvers without noise are offered.
            classes: whether a class is chosen at all, where the run has some.
            eta: whether the noise of ddim is chosen, where it may have some.
        """
        gr, player = self.gr, self.player
        sampling, found = player.config.sampling, {}
        known = jobs.class_choices(player)
        if jobs.reads_text(player):
            found["prompt"] = self.prompt()
        if known and classes:
            every = [] if needs_class else [jobs.EVERY_CLASS]
            choices = [*every, *known]
            found["label"] = gr.Dropdown(choices, value=choices[0], label="Class")
        found["seed"] = gr.Number(
            sampling.seed, label="Seed", precision=0, minimum=0, maximum=jobs.MOST_SEED
        )
        with gr.Accordion("More settings", open=False):
            found |= self._more_settings(deterministic, eta and not deterministic)
        return found

    def prompt(self):
        """Add the box of the prompt, of runs that read text; return it."""
        kept = jobs.captions(self.player)
        return self.gr.Textbox(
            kept[0] if kept else "",
            label="Prompt",
            info="what the image shows; empty for no text",
            max_length=jobs.MOST_PROMPT,
        )

    def _more_settings(self, deterministic, eta):
        gr, player = self.gr, self.player
        sampling, found = player.config.sampling, {}
        whole = player.config.diffusion.num_steps
        if not sampling.respacing:  # which says the timesteps
            found["steps"] = gr.Slider(
                1, whole, value=sampling.steps or whole, step=1, label="Steps"
            )
        solvers = jobs.methods(player.config, deterministic=deterministic)
        found["method"] = gr.Dropdown(solvers, value=solvers[0], label="Solver")
        if jobs.can_guide(player):
            found["guidance"] = gr.Slider(
                0,
                max(8, sampling.guidance_scale),
                value=sampling.guidance_scale,
                step=0.1,
                label="Guidance scale",
                info="1 is class or prompt alone, 0 leaves it out",
            )
        if eta:
            found["eta"] = gr.Slider(
                0,
                1,
                value=sampling.eta,
                step=0.05,
                label="η",
                info="share of noise of ddim",
            )
        return found

    def runs(self, button, stop, make, inputs, outputs, js=None) -> None:
        """Let a button make a job, and another one stop it.

        Args:
            button, stop: components.
            make: `(*values of inputs) → Job, show`; show tells what images are, HTML.
            inputs: components.
            outputs: from `results`.
            js: changes the inputs in the browser.
        """
        event = button.click(
            functools.partial(follow, self.player, make),
            inputs,
            list(outputs),
            js=js,
            concurrency_id="chain",
            concurrency_limit=1,
            show_progress="hidden",
            api_name=False,
        )
        stop.click(
            lambda: view.note("Stopped on request."),
            None,
            outputs[0],
            cancels=[event],
            queue=False,
            show_progress="hidden",
            api_name=False,
        )


Show = Callable[[np.ndarray], str]


def follow(player: Player, make: Callable[..., tuple[Job, Show]], *values) -> Iterator:
    """Yield (status, pictures, command) while a job is made; what fails is told."""
    command = ""
    try:
        job, show = make(*values)
        command = job.command
        yield view.status(None), "", command
        for now in player.play(job):
            has_images = now is not None and now.images is not None
            shown = show(now.images) if has_images else ""
            yield view.status(now), shown, command
    except Exception as error:  # told in the page, and logged
        yield view.failed(error), "", command


def build(gr, player: Player, tabs):
    """Return the page as gradio's blocks.

    Args:
        gr: the module gradio.
        player: the run.
        tabs: (title, `reason` why the run cannot or "", `add(tab)`) of each.
    """
    name = pathlib.Path(player.workdir).resolve().name
    with gr.Blocks(
        title=f"{name} – ddpm_jax",
        analytics_enabled=False,
        # What was sent and never read.
        delete_cache=(door.SECONDS_WAITING // 5, door.SECONDS_WAITING),
    ) as page:
        gr.Markdown(f"# {name}\n{about(player)}")
        for title, reason, add in tabs:
            with gr.Tab(title):
                if reason:
                    gr.HTML(view.note(f"Not with this run: {reason}"))
                else:
                    add(Tab(gr, player))
    page.queue(max_size=QUEUE, api_open=False, default_concurrency_limit=4)
    return page


def about(player: Player) -> str:
    """Return what the run is, in a line."""
    facts, weights = player.facts, player.opened.weights
    classes = player.config.model.class_conditional
    made_of = f", {len(facts.class_names)} classes" if classes else ""
    return (
        f"Step {weights.step}, images of {facts.size}{made_of}, "
        f"T = {player.config.diffusion.num_steps}. A click on a picture saves it."
    )
