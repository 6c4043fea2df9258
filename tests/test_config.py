"""From command line and file to a config: types, tuples, variants, the round trip."""

import json
import pathlib

import pytest

from ddpm_jax import main
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import process as build_process
from ddpm_jax.config import reading
from ddpm_jax.core import errors
from ddpm_jax.models import functional

ROOT = pathlib.Path(__file__).parent.parent
NEED_A_VARIANT = ("folder", "published", "digits_classifier")
CONFIGS = [
    path
    for path in sorted((ROOT / "configs").glob("*.py"))
    if path.stem not in NEED_A_VARIANT
]
DIGITS = f"--config={ROOT / 'configs' / 'digits.py'}"

# What the two data sets are, by hand: no test reads CIFAR-10.
FACTS = {
    "digits": build_data.DataInfo((8, 8, 1), 17, 1438, 10, tuple("0123456789"), "…"),
    "cifar10": build_data.DataInfo(
        (32, 32, 3), 256, 50_000, 10, tuple("abcdefghij"), "…"
    ),
}


def parse(*arguments):
    return main.parse(["ddpm-jax", *arguments]).config


def value_of(override, *, field):
    """Return a field of configs/digits.py after one override."""
    section, name = field.split(".")
    return parse(DIGITS, override)[section][name]


def leaves(config):
    """Return {"section.field": value}."""
    flat = {}
    for name, value in config.to_dict().items():
        if isinstance(value, dict):
            flat.update({f"{name}.{field}": inner for field, inner in value.items()})
        else:
            flat[name] = value
    return flat


# ---- overrides -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("train.steps", "7", 7),
        ("train.learning_rate", "3e-4", 3e-4),
        ("train.learning_rate", "1", 1.0),  # an integer where a real number is meant
        ("data.flip", "true", True),
        ("data.flip", "false", False),
        ("diffusion.schedule", "cosine", "cosine"),
        ("sampling.respacing", "90,60,20", "90,60,20"),
        ("sampling.steps", "9", 9),
        ("model.channel_mult", "1,2,4", (1, 2, 4)),
        ("model.channel_mult", "(1,2,4)", (1, 2, 4)),
        ("model.channel_mult", "3", (3,)),
        ("model.channel_mult", "0.5,1", (0.5, 1)),
        ("model.attention_resolutions", "", ()),
        ("train.ema_decay", "0.9,0.99", (0.9, 0.99)),
        ("train.ema_decay", "0.9", (0.9,)),
        ("data.image_size", "8", (8,)),
        # Texts as they are: `builders` knows which classes there are.
        ("sampling.labels", "cat,dog", ("cat,dog",)),
        ("sampling.labels", "cat", ("cat",)),
        ("sampling.labels", "3,7", ("3,7",)),
        ("sampling.labels", "golden retriever", ("golden retriever",)),
        ("sampling.labels", '"cat, black",dog', ('"cat, black",dog',)),
        ("sampling.labels", "True", ("True",)),
        ("sampling.labels", "None", ("None",)),
        ("sampling.labels", "1e3", ("1e3",)),
        ("sampling.labels", "007", ("007",)),
        ("sampling.labels", "a=b", ("a=b",)),
        ("sampling.labels", "", ()),
    ],
)
def test_an_override_has_the_type_of_its_field(field, text, expected):
    value = value_of(f"--config.{field}={text}", field=field)
    assert value == expected
    assert type(value) is type(expected)
    if isinstance(value, tuple):
        assert [type(part) for part in value] == [type(part) for part in expected]


def test_a_flag_alone_switches_on_and_no_switches_off():
    assert value_of("--config.data.flip", field="data.flip") is True
    assert value_of("--noconfig.train.ema_ramp", field="train.ema_ramp") is False


def test_the_last_override_of_a_field_counts():
    config = parse(DIGITS, "--config.train.steps=1", "--config.train.steps=2")
    assert config.train.steps == 2


def test_overrides_may_come_before_the_config():
    assert parse("--config.train.steps=3", DIGITS).train.steps == 3


def test_an_override_changes_nothing_else():
    before, after = leaves(parse(DIGITS)), leaves(parse(DIGITS, "--config.seed=5"))
    assert after == {**before, "seed": 5}


def test_a_respacing_replaces_a_spacing_given_before(tmp_path):
    spaced = tmp_path / "spaced.py"
    spaced.write_text(
        "from ddpm_jax import config as schema\n"
        "def get_config():\n"
        "    config = schema.base()\n"
        "    config.sampling.spacing = 'trailing'\n"
        "    return config\n"
    )
    config = parse(f"--config={spaced}", "--config.sampling.respacing=ddim5")
    assert build_process.respaced(config, "sampling").num_steps == 5
    config = parse(f"--config={spaced}", "--config.sampling.steps=4")
    kept = build_process.respaced(config, "sampling").timesteps
    assert kept == (249, 499, 749, 999)


def test_a_spacing_beside_a_respacing_is_refused():
    config = parse(
        DIGITS, "--config.sampling.respacing=ddim5", "--config.sampling.spacing=even"
    )
    with pytest.raises(errors.Refusal, match="names the timesteps itself"):
        build_process.respaced(config, "sampling")


def test_respacing_given_on_the_command_line_replaces_the_steps_of_the_file():
    assert parse(DIGITS).sampling.steps is not None
    config = parse(DIGITS, "--config.sampling.respacing=ddim5")
    assert build_process.respaced(config, "sampling").num_steps == 5
    config = parse(DIGITS, "--config.sampling.steps=7")
    assert build_process.respaced(config, "sampling").num_steps == 7


def test_steps_that_nobody_gave_are_all_of_them():
    config = parse(DIGITS)
    assert config.evaluation.steps is None
    scored = build_process.respaced(config, "evaluation")
    assert scored.num_steps == config.diffusion.num_steps


# ---- files and runs ------------------------------------------------------------------


def write(path, body):
    path.write_text(f"from ddpm_jax import config\n\n{body}")
    return path


def test_a_variant_is_an_argument_of_the_file(tmp_path):
    path = write(
        tmp_path / "sizes.py",
        "def get_config(variant='small'):\n"
        "    made = config.base()\n"
        "    made.model.channels = {'small': 8, 'big': 64}[variant]\n"
        "    return made\n",
    )
    big = main.parse(["ddpm-jax", f"--config={path}:big"])
    assert (big.mode, big.workdir) == ("train", "runs/sizes-big")
    assert big.config.model.channels == 64
    small = main.parse(["ddpm-jax", f"--config={path}"])
    assert small.workdir == "runs/sizes"
    assert small.config.model.channels == 8


def test_a_file_can_import_its_neighbours(tmp_path):
    write(tmp_path / "neighbour_of_a_test.py", "WIDTH = 24\n")
    path = write(
        tmp_path / "own.py",
        "import neighbour_of_a_test\n"
        "def get_config():\n"
        "    made = config.base()\n"
        "    made.model.channels = neighbour_of_a_test.WIDTH\n"
        "    return made\n",
    )
    assert parse(f"--config={path}").model.channels == 24


def test_neighbours_of_another_folder_are_its_own(tmp_path):
    for folder, width in (("one", 24), ("two", 40)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "width_of_a_test.py", f"WIDTH = {width}\n")
        path = write(
            tmp_path / folder / "own.py",
            "import width_of_a_test\n"
            "def get_config():\n"
            "    made = config.base()\n"
            "    made.model.channels = width_of_a_test.WIDTH\n"
            "    return made\n",
        )
        assert parse(f"--config={path}").model.channels == width


def test_a_list_in_a_file_is_a_tuple_and_an_integer_a_float(tmp_path):
    path = write(
        tmp_path / "own.py",
        "def get_config():\n"
        "    made = config.base()\n"
        "    made.train.ema_decay = [0.9, 0.99]\n"
        "    made.train.learning_rate = 1\n"
        "    return made\n",
    )
    train = parse(f"--config={path}").train
    assert train.ema_decay == (0.9, 0.99)
    assert type(train.learning_rate) is float


def save_run(workdir, config):
    """Write the config.json of a run on the digits, as the contract says it."""
    workdir.mkdir()
    facts = {**vars(FACTS["digits"])}
    text = json.dumps({"config": config.to_dict(), "data": facts, "versions": {}})
    (workdir / "config.json").write_text(text)


def test_a_run_is_its_own_default_config(tmp_path):
    given = parse(DIGITS, "--config.train.steps=11", "--config.sampling.labels=3,7")
    save_run(tmp_path / "run", given)
    workdir = f"--workdir={tmp_path / 'run'}"
    assert leaves(parse(workdir)) == leaves(given)
    changed = parse(workdir, "--config.sampling.steps=5", "--config.train.steps=12")
    assert leaves(changed) == {
        **leaves(given),
        "sampling.steps": 5,
        "train.steps": 12,
    }
    # --config beside it is not ignored: the file's values count again.
    assert parse(DIGITS, workdir).train.steps == parse(DIGITS).train.steps


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_json_keeps_every_config(path):
    config = parse(f"--config={path}")
    plain = json.loads(json.dumps(config.to_dict()))
    again = reading.from_dict(plain, where="here")
    assert leaves(again) == leaves(config)
    assert {name: type(value) for name, value in leaves(again).items()} == {
        name: type(value) for name, value in leaves(config).items()
    }
    assert reading.differences(config, again) == []


def test_differences_name_what_may_not_change():
    saved = parse(DIGITS)
    may = parse(
        DIGITS,
        "--config.train.steps=9",
        "--config.train.log_every=9",
        "--config.train.microbatches=2",
        "--config.sampling.steps=9",
        "--config.evaluation.steps=9",
        "--config.mesh.fsdp=2",
        "--config.data.path=/elsewhere",
    )
    assert reading.differences(saved, may) == []
    may_not = parse(DIGITS, "--config.train.learning_rate=0.5", "--config.seed=3")
    assert set(reading.differences(saved, may_not)) == {
        ("train.learning_rate", saved.train.learning_rate, 0.5),
        ("seed", 0, 3),
    }
    with pytest.raises(errors.Refusal, match=r"seed is 0 there and 3 here"):
        reading.check_same_run(saved, may_not, workdir="w")


def test_digits_has_a_null_class_and_digits_unconditional_no_class():
    def rows(name):
        config = parse(f"--config={ROOT / 'configs' / name}")
        shapes = build_network.network(config, FACTS["digits"]).shapes
        return [
            leaf.shape[0]
            for path, leaf in functional.by_path(shapes).items()
            if "label" in path
        ]

    assert rows("digits.py") == [11]
    assert rows("digits_unconditional.py") == []
