"""Records of modes: flags, arguments, fields written short, what each starts from."""

import pathlib

import pytest

from ddpm_jax import config as config_lib
from ddpm_jax import main
from ddpm_jax.config import command_line, modes, reading
from ddpm_jax.config.modes import Flag, Mode
from ddpm_jax.core import errors

DIGITS = f"--config={pathlib.Path(__file__).parent.parent / 'configs' / 'digits.py'}"
PASSES = ("config", "workdir", "image")

# Records of no mode that there is: what the table has to permit.
TABLE = (
    Mode("train", "train", modes.CONFIG, modes.JOINT),
    Mode(
        "inpaint",
        "fill what a mask hides",
        modes.RUN,
        modes.JOINT,
        passes=(*PASSES, "mask"),
        flags=(
            Flag("image", "to fill", modes.PATH, least=1, most=None),
            Flag("mask", "white where to fill", modes.PATH, least=1),
        ),
        short=("sampling.eta", "sampling.clip"),
    ),
    Mode(
        "interpolate",
        "walk from one image to another",
        modes.RUN,
        modes.JOINT,
        passes=PASSES,
        flags=(Flag("image", "an end", modes.PATH, least=2, most=2),),
        short=("evaluation.clip",),
    ),
    Mode(
        "write",
        "text to images",
        modes.RUN,
        modes.SINGLE,
        passes=("prompt",),
        flags=(Flag("prompt", "what to show", most=None),),
    ),
    Mode("look", "look", modes.NOTHING, modes.ALONE, ("names",), arguments="names"),
    Mode("take", "take", modes.NEW_RUN, modes.SINGLE),
    Mode(
        "score",
        "score",
        modes.RUN,
        modes.JOINT,
        instead_of_run=("evaluation.samples",),
    ),
)
MODES = {mode.name: mode for mode in TABLE}


def parse(*arguments):
    return command_line.parse(["ddpm-jax", *arguments], MODES, "about")


def refusal(*arguments):
    with pytest.raises(errors.Refusal) as caught:
        parse(*arguments)
    return str(caught.value)


INPAINT = ("--mode=inpaint", DIGITS, "--image=a.png", "--mask=m.png")


# ---- flags ---------------------------------------------------------------------------


def test_a_flag_that_takes_several_values_is_a_tuple_and_one_a_string():
    command = parse(*INPAINT, "--image=b.png")
    assert command.flags == {"image": ("a.png", "b.png"), "mask": "m.png"}
    assert command.value("image") == ("a.png", "b.png")
    assert command.value("workdir") == command.workdir == "runs/digits"
    assert parse("--mode=write", DIGITS).flags == {"prompt": ()}


def test_texts_are_taken_as_they_are_and_home_folders_found(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    command = parse("--mode=write", DIGITS, "--prompt=~/a, b", "--prompt=c=d")
    assert command.flags == {"prompt": ("~/a, b", "c=d")}
    assert parse(*INPAINT[:-1], "--mask=~/m.png").flags["mask"] == "/home/ada/m.png"


def test_flags_given_too_often_are_refused():
    sentence = refusal(*INPAINT, "--mask=n.png")
    for part in ("--mode=inpaint", "1 --mask", "keep 1 of m.png, n.png"):
        assert part in sentence
    images = [f"--image={name}" for name in "abc"]
    assert "takes 2 --image, and 3 were" in refusal("--mode=interpolate", *images)


def test_missing_flags_are_refused():
    assert refusal(*INPAINT[:-1]) == "--mode=inpaint needs --mask: see --help"
    # As in --mask=$MASK, where the variable is empty.
    assert refusal(*INPAINT[:-1], "--mask=") == refusal(*INPAINT[:-1])
    once = refusal("--mode=interpolate", "--image=a")
    for part in ("--mode=interpolate", "--image 2 times", "--help"):
        assert part in once


def test_flags_of_other_modes_are_refused_by_the_names_of_these():
    sentence = refusal(DIGITS, "--mask=m.png")
    for part in ("--mask=m.png", "not to --mode=train", "give --mode=inpaint"):
        assert part in sentence
    sentence = refusal(DIGITS, "--image=a.png")
    for part in ("--image=a.png", "--mode=inpaint and --mode=interpolate", "leave it"):
        assert part in sentence


def test_arguments_without_a_name_go_where_the_record_says():
    assert parse("--mode=look", "a", "b").flags == {"names": ("a", "b")}
    assert "unexpected argument 'a'" in refusal("--mode=write", DIGITS, "a")


# ---- what a mode starts from ---------------------------------------------------------


def test_what_is_needed_is_asked_for():
    asked = refusal("--mode=write")
    assert asked.startswith("--mode=write needs a run: name one with --workdir=")
    assert refusal().startswith("no --config and no --workdir: train with")
    assert "--mode=take needs --workdir" in refusal("--mode=take")
    assert "--mode=take needs --workdir" in refusal("--mode=take", DIGITS)


def test_a_new_run_and_a_mode_without_a_run_take_the_usual_config():
    usual = config_lib.base().to_dict()
    assert parse("--mode=take", "--workdir=new").config.to_dict() == usual
    command = parse("--mode=score", "--config.evaluation.samples=s.npz")
    assert command.workdir == ""
    assert command.config.evaluation.samples == "s.npz"
    assert command.given == {"evaluation.samples"}
    assert "needs a run" in refusal("--mode=score", "--config.evaluation.seed=1")


# ---- fields written short ------------------------------------------------------------


@pytest.mark.parametrize("dashes", ["-", "--"])
def test_a_field_may_be_written_short(dashes):
    command = parse(*INPAINT, f"{dashes}eta=0.5")
    assert command.config.sampling.eta == 0.5
    assert "sampling.eta" in command.given
    assert parse(*INPAINT, "--eta=1").config.sampling.eta == 1.0


def test_short_fields_are_those_of_the_mode():
    sampling = parse(*INPAINT, "--noclip").config
    assert (sampling.sampling.clip, sampling.evaluation.clip) == (False, True)
    both = ("--mode=interpolate", DIGITS, "--image=a", "--image=b")
    scored = parse(*both, "--clip=false").config
    assert (scored.sampling.clip, scored.evaluation.clip) == (True, False)
    sentence = refusal(DIGITS, "--eta=0.5")
    for part in ("--eta=0.5", "not to --mode=train", "give --mode=inpaint"):
        assert part in sentence
    assert "--mode=inpaint and --mode=interpolate" in refusal(DIGITS, "--noclip")


def test_of_a_field_written_short_and_long_the_last_one_counts():
    short, long = "--eta=0.5", "--config.sampling.eta=0.25"
    assert parse(*INPAINT, short, long).config.sampling.eta == 0.25
    assert parse(*INPAINT, long, short).config.sampling.eta == 0.5


def test_values_of_short_fields_are_checked():
    assert "--config.sampling.eta=much" in refusal(*INPAINT, "--eta=much")
    assert "unexpected argument '0.5'" in refusal(*INPAINT, "--eta", "0.5")


def test_a_flag_of_one_mode_and_a_field_of_another_may_have_one_name():
    table = {
        "film": Mode("film", "", modes.RUN, modes.JOINT, short=("editing.format",)),
        "write": Mode(
            "write", "", modes.RUN, modes.JOINT, flags=(Flag("format", "", least=1),)
        ),
        "look": Mode("look", "", modes.RUN, modes.JOINT),
    }

    def understood(*arguments):
        return command_line.parse(["ddpm-jax", DIGITS, *arguments], table, "about")

    for mode in (("--mode=write",), ("--mode", "write")):
        command = understood(*mode, "--format=openai")
        assert command.flags == {"format": "openai"}
        assert command.config.editing.format == "gif"
    command = understood("--format=webp", "--mode=film")
    assert command.config.editing.format == "webp"
    with pytest.raises(errors.Refusal, match="belongs to --mode=film and --mode=write"):
        understood("--mode=look", "--format=webp")


# ---- the table -----------------------------------------------------------------------


def test_help_is_made_from_the_records(capsys):
    assert parse("--help") is None
    shown = capsys.readouterr().out
    assert shown.startswith("about\n")
    for mode in TABLE:
        assert f"{mode.name:<12} {mode.help}\n" in shown
        for flag in mode.flags:
            assert f"--{flag.name}={flag.kind} " in shown
            assert flag.help in shown
    assert "--config.evaluation.clip" in shown


def test_the_help_of_the_program_tells_what_the_table_tells(capsys):
    assert main.main(["ddpm-jax", "--help"]) == 0
    shown = capsys.readouterr().out
    for mode in modes.TABLE:
        assert f"  {mode.name} " in shown
        assert all(f"--{flag.name}=" in shown for flag in mode.flags)


def test_records_contradict_neither_each_other_nor_the_schema():
    fields = dict(reading.leaves(config_lib.base().to_dict()))
    common = {name for name, _, _ in command_line.COMMON}
    flags = {flag.name for mode in modes.TABLE for flag in mode.flags}
    short = {name for mode in modes.TABLE for name in mode.short_fields}
    assert not common & flags
    assert not common & (short | {f"no{name}" for name in short})
    assert len(modes.MODES) == len(modes.TABLE)
    for mode in modes.TABLE:
        assert mode.needs in (modes.CONFIG, modes.RUN, modes.NEW_RUN, modes.NOTHING)
        assert mode.processes in (modes.JOINT, modes.SINGLE, modes.ALONE)
        assert {*mode.short, *mode.instead_of_run} <= fields.keys()
        assert len(mode.short_fields) == len(mode.short)
        own = {flag.name for flag in mode.flags}
        assert not own & {
            f"{no}{name}" for name in mode.short_fields for no in ("", "no")
        }
        assert {flag.kind for flag in mode.flags} <= {modes.TEXT, modes.PATH, modes.RAW}


def test_the_environment_of_a_flag_is_set_where_it_is_given():
    plan = modes.MODES["plan"]
    assert plan.environment({"topology": ""}) == {}
    given = plan.environment({"topology": "v5e:4x4"})
    assert given["JAX_PLATFORMS"] == "cpu"
