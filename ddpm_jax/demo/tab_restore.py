"""The tab that measures a picture badly, and draws what it can have been."""

from ddpm_jax.core import errors
from ddpm_jax.data import images as images_lib
from ddpm_jax.demo import jobs, tab_inpaint, uploads, view
from ddpm_jax.demo.player import BATCH, Job, Player
from ddpm_jax.editing import measurements, restoration

TITLE = "Restore"
MEASURED = {
    "superres:2": "made coarse, 2x2 pixels at a time",
    "blur:1": "blurred by a pixel",
    "missing:0.5": "half of the pixels lost",
    "denoise": "noise alone",
    "grey": "colours lost",
}
MOST_NOISE = 1.0
USUAL_NOISE = 0.1  # a twentieth of black to white
reason = tab_inpaint.reason


def operators(player) -> list[str]:
    """Return the measurements that a run's images permit."""
    height, width, channels = player.facts.shape
    left_out = set() if channels == 3 else {"grey"}
    left_out |= {"superres:2"} if height % 2 or width % 2 else set()
    return [name for name in MEASURED if name not in left_out]


def job_of(
    player: Player,
    kept: uploads.Kept,
    *,
    operator: str = "superres:2",
    noise: float = USUAL_NOISE,
    label: str = "",
    **settings,
) -> tuple[Job, measurements.Measurement]:
    """Return the job of four draws, and the measurement.

    Args:
        player: the run.
        kept: the picture, which is measured.
        operator: a key of `MEASURED`.
        noise: deviation, where white − black is 2.
        label, **settings: see `jobs.settings`.

    Raises:
        Refusal: settings that the run cannot meet.
    """
    errors.choose("measurement", MEASURED, operator)
    noise = jobs.real("the noise", noise, 0, MOST_NOISE)
    line, config = player.understood(
        "restore",
        f"--image={uploads.PICTURE_FILE}",
        "--degrade",
        f"--operator={operator}",
        f"--noise={noise:g}",
        f"--draws={BATCH}",
        f"--config.sampling.batch_size={BATCH}",
        *jobs.settings(player, labels=(label,) if label else (), **settings),
    )
    measurements.check_settings(config, player.facts)
    found = measurements.of_truth(config, player.facts, uploads.given(kept))
    found = measurements.checked(found, config, player.facts)
    return Job.of(line, restoration.plan(config, player.facts, found)), found


def add(tab) -> None:
    """Add a picture, settings and results."""
    gr, player = tab.gr, tab.player
    known = operators(player)
    info = "; ".join(f"{name}: {MEASURED[name]}" for name in known)
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            picture = gr.HTML(view.note("First upload a picture, or take a sample."))
            kept = tab.given(picture, uploads.shown, "restore")
            operator = gr.Radio(known, value=known[0], label="Measured how", info=info)
            noise = gr.Slider(
                0,
                MOST_NOISE,
                value=USUAL_NOISE,
                step=0.05,
                label="Noise",
                info="its deviation; from black to white it is 2",
            )
            found = tab.settings(needs_class=True)
            button, stop = tab.buttons("Restore", "restore")
        with gr.Column(scale=2, min_width=280):
            outputs = tab.results("restore")

    def make(one, operator, noise, *values):
        if one is None:
            raise errors.Refusal("there is no picture: upload one, or take a sample")
        given = dict(zip(found, values, strict=True))
        job, measured = job_of(player, one, operator=operator, noise=noise, **given)
        seen = images_lib.to_uint8(measured.values)
        first = view.pictures(seen, ["what was measured"], "measured")

        def show(images):
            names = [f"restored, {i}" for i in range(len(images))]
            drawn = view.pictures(images, names, "restored")
            return first + drawn + uploads.links(one)

        return job, show

    tab.runs(button, stop, make, [kept, operator, noise, *found.values()], outputs)
