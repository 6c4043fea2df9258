"""The table of modes: what each is called with, and how it is run.

A mode is its file in `ddpm_jax/modes/` and its record here. Records name the module and
do not import it: a refused command line should not wait for JAX.
"""

import dataclasses

TEXT, PATH, RAW = "TEXT", "PATH", "TEXT, which may be empty"

# What a mode starts from.
CONFIG = "a config"  # of --config, else of the run in --workdir
RUN = "a run"  # in --workdir; --config may say its config anew
NEW_RUN = "a new run"  # to be made in --workdir; --config is optional
NOTHING = "nothing"  # neither is read

# In how many processes a mode runs.
JOINT = "joint"  # of as many as there are
SINGLE = "single"  # it writes files, in one; several are refused
ALONE = "alone"  # it does not look for others


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag that belongs to some modes.

    Attributes:
        name: without dashes.
        help: a few words.
        kind: TEXT, taken as it is; RAW, of which "" is a value too; or PATH, in which
            "~" stands for the home folder.
        least: values that are needed; 0 for an optional flag.
        most: values that are taken; None for any number. Several come as a tuple, one
            as a string, "" where it is not given.
        environment: (variable, value) pairs, set before JAX starts where the flag is
            given.
    """

    name: str
    help: str
    kind: str = TEXT
    least: int = 0
    most: int | None = 1
    environment: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Mode:
    """A mode of the command line.

    Attributes:
        name: of --mode, and of the module in `ddpm_jax.modes` whose `run` it is.
        help: what it does, in a line.
        needs: CONFIG, RUN, NEW_RUN or NOTHING.
        processes: JOINT, SINGLE or ALONE.
        passes: what `run` is called with, in order: attributes of `Command` and names
            of own flags.
        flags: its own.
        arguments: name under which `passes` hands on the arguments that are no flags,
            as a tuple; "" refuses them.
        short: config fields that may be written by their last name alone:
            --strength=0.6 for --config.editing.strength=0.6.
        instead_of_run: config fields; where the command line gives one, the mode takes
            the usual config and needs no run.
    """

    name: str
    help: str
    needs: str
    processes: str
    passes: tuple[str, ...] = ("config", "workdir")
    flags: tuple[Flag, ...] = ()
    arguments: str = ""
    short: tuple[str, ...] = ()
    instead_of_run: tuple[str, ...] = ()

    @property
    def short_fields(self) -> dict[str, str]:
        """The fields of `short` by their last names."""
        return {path.rpartition(".")[2]: path for path in self.short}

    def environment(self, flags) -> dict[str, str]:
        """Return the variables that the given flags set before JAX starts."""
        given = [flag for flag in self.flags if flags[flag.name]]
        return dict(pair for flag in given for pair in flag.environment)


PROMPTS = (  # both set sampling.prompts, see `config.prompts`
    Flag("prompt", "text to make an image of", RAW, most=None),
    Flag("prompts", "file of such texts, one a line", PATH),
)
WITH_MASK = (
    Flag("image", "picture to edit", PATH, least=1, most=None),
    Flag("mask", "white where something is to be made", PATH, most=None),
    *PROMPTS,
)
MEASURED = (
    Flag("image", "measurement, or with --degrade the truth", PATH, least=1, most=None),
    Flag("mask", "of --operator=mask: white where nothing is known", PATH, most=None),
    *PROMPTS,
)
TABLE = (
    Mode("train", "train, or go on training, a run", CONFIG, JOINT),
    Mode("data", "show what a network would see", CONFIG, SINGLE),
    Mode(
        "sample",
        "make images, of texts where --prompt is given",
        RUN,
        JOINT,
        flags=PROMPTS,
    ),
    Mode(
        "inpaint",
        "make a part of a picture anew",
        RUN,
        JOINT,
        passes=("config", "workdir", "image", "mask"),
        flags=WITH_MASK,
        short=(
            "sampling.labels",
            "editing.method",
            "editing.quality",
            "editing.resamplings",
            "editing.jump",
            "editing.likelihood",
            "editing.box",
            "editing.invert",
            "editing.variants",
            "editing.keep_size",
            "editing.paste",
        ),
    ),
    Mode(
        "restore",
        "draw the pictures that a measurement can be of",
        RUN,
        JOINT,
        passes=("config", "workdir", "image", "mask"),
        flags=MEASURED,
        short=(
            "sampling.labels",
            "editing.operator",
            "editing.noise",
            "editing.degrade",
            "editing.likelihood",
            "editing.iterations",
            "editing.draws",
        ),
    ),
    Mode(
        "animate",
        "make an animation of sampling, latents, classes, guidance or training",
        RUN,
        JOINT,
        flags=PROMPTS,
        short=(
            "editing.kind",
            "editing.frames",
            "editing.variants",
            "editing.seeds",
            "editing.scales",
            "editing.format",
            "editing.fps",
        ),
    ),
    Mode(
        "compress",
        "show how good an image is after how many bits",
        RUN,
        SINGLE,
        short=("editing.variants",),
    ),
    Mode(
        "vary",
        "make variations of a picture",
        RUN,
        JOINT,
        passes=("config", "workdir", "image"),
        flags=(Flag("image", "picture to edit", PATH, most=None), *PROMPTS),
        short=(
            "sampling.labels",
            "editing.method",
            "editing.strength",
            "editing.from_sample",
            "editing.image_labels",
            "editing.variants",
            "editing.keep_size",
            "editing.min_psnr",
            "editing.force",
        ),
    ),
    Mode(
        "interpolate",
        "go from one picture, or sample, to another",
        RUN,
        JOINT,
        passes=("config", "workdir", "image"),
        flags=(Flag("image", "picture to edit", PATH, most=None), *PROMPTS),
        short=(
            "sampling.labels",
            "editing.method",
            "editing.samples",
            "editing.frames",
            "editing.levels",
            "editing.mix",
            "editing.keep_size",
            "editing.min_psnr",
            "editing.force",
        ),
    ),
    Mode(
        "demo",
        "serve a page to play with a run",
        RUN,
        SINGLE,
        passes=("config", "workdir", "port", "host"),
        flags=(
            Flag("port", "to listen at, 7860 where none is given"),
            Flag("host", "address to listen at, this machine alone by default"),
        ),
    ),
    Mode(
        "evaluate",
        "score a run, or images",
        RUN,
        JOINT,
        instead_of_run=("evaluation.samples",),
    ),
    Mode(
        "compare",
        "put evaluation cards side by side: CARD CARD …",
        NOTHING,
        ALONE,
        passes=("cards",),
        arguments="cards",
    ),
    Mode("diagnose", "say why samples are noise, or tinted", RUN, SINGLE),
    Mode(
        "convert",
        "import published weights as a run",
        NEW_RUN,
        SINGLE,
        passes=("source", "workdir", "config", "given"),
        flags=(
            Flag(
                "source", "file, folder, FILE#ENTRY; CLIP's two", PATH, least=1, most=2
            ),
        ),
    ),
    Mode(
        "reproduce",
        "repeat a row of the papers' tables with its published weights",
        NOTHING,
        ALONE,
        passes=(
            *("workdir", "row", "source", "classifier"),
            *("reference", "inception", "num_samples"),
        ),
        flags=(
            Flag("row", "name of the row; without it all are listed"),
            Flag("source", "file or folder of its weights", PATH),
            Flag("classifier", "file of the classifier that guides", PATH),
            Flag("reference", "statistics or images to compare with", PATH),
            Flag("inception", "weights of FID's network", PATH),
            Flag("num_samples", "for a trial: fewer than the paper's 50,000"),
        ),
    ),
    Mode(
        "export",
        "write weights for other programs",
        RUN,
        SINGLE,
        passes=("config", "workdir", "format", "output"),
        flags=(
            Flag("format", "safetensors, diffusers or openai", least=1),
            Flag("output", "where to export to", PATH, least=1),
        ),
    ),
    Mode(
        "plan",
        "tell memory, FLOPs and hours of a run",
        CONFIG,
        ALONE,
        passes=("config", "topology"),
        flags=(
            Flag(
                "topology",
                "TPUs to plan for, such as v5e:4x4",
                # Compile for TPUs without looking for one.
                environment=(
                    ("JAX_PLATFORMS", "cpu"),
                    ("TPU_SKIP_MDS_QUERY", "1"),
                    ("TPU_WORKER_HOSTNAMES", "localhost"),
                ),
            ),
        ),
    ),
    Mode(
        "doctor",
        "check this machine, and with --workdir the parameters of a run",
        NOTHING,
        ALONE,
        passes=("workdir",),
    ),
)
MODES = {mode.name: mode for mode in TABLE}
