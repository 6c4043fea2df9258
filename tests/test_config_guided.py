"""What a classifier's config takes over from the run that it will guide."""

import dataclasses
import json
import pathlib

import pytest

from ddpm_jax import config as schema
from ddpm_jax import main
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import kinds
from ddpm_jax.config import guided, reading
from ddpm_jax.core import errors

ROOT = pathlib.Path(__file__).parent.parent
NAMES = ("cat", "dog")


def facts(shape=(64, 64, 3), names=NAMES):
    return build_data.DataInfo(shape, 256, 100, len(names) or None, names, "…")


def written(folder, *, names=NAMES, imported=False, **fields):
    """Write config.json of a run with these fields, such as data__crop="none"."""
    config = schema.base()
    config.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in fields.items()}
    )
    stored = {
        "config": config.to_dict(),
        "data": dataclasses.asdict(facts(names=names)),
    }
    stored |= {"imported": {"weights": "…"}} if imported else {}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(stored))
    return folder


def classifier_of(run, name="imagenet64_classifier"):
    return reading.from_file(f"{ROOT / 'configs' / name}.py:{run}")


def test_process_and_data_come_from_the_run(tmp_path):
    betas = (0.1, 0.2, 0.3)
    run = written(
        tmp_path / "run",
        diffusion__schedule="custom",
        diffusion__betas=betas,
        diffusion__num_steps=3,
        diffusion__rescale_timesteps=True,
        diffusion__prediction="v",
        data__name="zip",
        data__path="/pets.zip",
        data__labels="prefix",
        data__image_size=(64,),
        data__flip=False,
        data__crop="none",
        train__learning_rate=0.5,
    )
    config = classifier_of(run)
    diffusion, data = config.diffusion, config.data
    assert (diffusion.schedule, tuple(diffusion.betas)) == ("custom", betas)
    assert (diffusion.num_steps, diffusion.rescale_timesteps) == (3, True)
    assert (data.name, data.path, data.labels) == ("zip", "/pets.zip", "prefix")
    assert (tuple(data.image_size), data.flip) == ((64,), False)
    assert data.crop == "random"  # the classifier's own
    assert (diffusion.prediction, config.train.learning_rate) == ("noise", 6e-4)
    assert config.model.guides == str(run)
    assert classifier_of(run, "digits_classifier").data.crop == "none"
    # A slash at the end makes no other run of it.
    assert classifier_of(f"{run}/").model.guides == str(run)


def test_a_run_without_labels_leaves_the_classifier_its_own(tmp_path):
    run = written(tmp_path / "run", data__labels="none", data__name="folder", names=())
    assert classifier_of(run).data.labels == "folders"


def test_an_imported_run_tells_the_size_of_images_and_no_data(tmp_path):
    size = {"data__image_size": (64, 64), "data__channels": 1}
    run = written(tmp_path / "run", imported=True, data__name="digits", **size)
    data = classifier_of(run).data
    assert (data.name, data.flip) == ("folder", True)
    assert (tuple(data.image_size), data.channels) == ((64, 64), 1)


@pytest.mark.parametrize(
    ("ours", "imported", "message"),
    [
        (facts(), False, None),
        (facts(names=("0", "1")), True, None),
        (
            facts(names=("dog", "cat")),
            False,
            r"\('dog', 'cat'\) and those",
        ),
        (facts(names=("a", "b", "c")), True, r"\('a', 'b', 'c'\) and those of"),
        (
            facts(shape=(32, 32, 3)),
            False,
            r"\[32, 32, 3\] and .*\[64, 64, 3\]",
        ),
    ],
)
def test_images_and_classes_must_be_those_of_the_run(tmp_path, ours, imported, message):
    run = written(tmp_path / "run", imported=imported)
    config = classifier_of(run)
    _, theirs = guided.read(run)
    if message is None:
        guided.check(config, ours, theirs, facts(), imported=imported)
        return
    with pytest.raises(errors.Refusal, match=message):
        guided.check(config, ours, theirs, facts(), imported=imported)


def test_long_lists_of_betas_are_told_by_their_ends(tmp_path):
    betas = tuple(k / 100 for k in range(1, 21))
    run = written(
        tmp_path / "run",
        diffusion__schedule="custom",
        diffusion__betas=betas,
        diffusion__num_steps=20,
    )
    config = classifier_of(run)
    config.diffusion.betas = betas[::-1]
    _, theirs = guided.read(run)
    message = (
        r"\(0.2, 0.19, … 0.01\), 20 in all contradicts .*\(0.01, 0.02, … 0.2\), 20"
    )
    with pytest.raises(errors.Refusal, match=message):
        guided.check(config, facts(), theirs, facts(), imported=False)


def test_an_upsampler_is_not_guided(tmp_path):
    run = written(tmp_path / "run", model__kind="upsampler")
    with pytest.raises(errors.Refusal, match="'upsampler': name the diffusion model"):
        classifier_of(run)


def test_the_run_behind_the_colon_names_no_directory(tmp_path):
    """Its classifier goes to runs/<config>, as the other commands expect."""
    run = written(tmp_path / "run")
    spec = ROOT / "configs" / "imagenet64_classifier.py"
    command = main.parse(["ddpm-jax", f"--config={spec}:{run}"])
    assert command.workdir == "runs/imagenet64_classifier"


# ---- the table of kinds --------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("unet", ("bits_per_dim", "fid", "proxy_fd"), "accuracy"),
        ("classifier", ("accuracy",), "fid"),
        ("upsampler", ("psnr", "consistency", "fid"), "accuracy"),
    ],
)
def test_a_kind_of_run_has_its_own_metrics(kind, good, bad):
    config = schema.base()
    config.model.kind = kind
    kinds.check_metrics(config, good)
    with pytest.raises(
        errors.Refusal, match=f"evaluation.metric={bad} with .*'{kind}'"
    ):
        kinds.check_metrics(config, (bad,))


def test_an_upsampler_says_by_how_much_it_enlarges():
    config = schema.base()
    config.model.kind = "upsampler"
    with pytest.raises(errors.Refusal, match=r"low_res_factor=0 .*say how much"):
        kinds.of(config).train_step(config, None, None)
