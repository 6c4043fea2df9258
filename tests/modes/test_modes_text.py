"""A run that reads captions through every mode, on a tiny network."""

import json
import shutil

import numpy as np
import pytest
import small_runs

from ddpm_jax import main
from ddpm_jax.builders import captions, trained_run
from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import prompts as build_prompts
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import conditions, errors
from ddpm_jax.evaluation import prompts as evaluation
from ddpm_jax.evaluation import sample_sets
from ddpm_jax.metrics import table
from ddpm_jax.report import prompt_sheets

TINY = (
    f"--config={small_runs.ROOT / 'configs' / 'shapes_text.py'}",
    "--config.model.channels=8",
    "--config.model.norm_groups=4",
    "--config.data.image_size=16",
    "--config.model.channel_mult=1,1",
    "--config.model.num_heads=2",
    "--config.model.attention_resolutions=8",
    "--config.model.text_layers=1",
    "--config.model.text_width=8",
    "--config.model.text_heads=2",
    "--config.train.batch_size=8",
    "--config.train.decay=none",
    "--config.train.warmup_steps=0",
    "--config.train.ema_decay=0.5",
    "--config.train.checkpoint_every=2",
    "--config.train.log_every=2",
    "--config.train.validate_every=2",
    "--config.train.sample_every=0",
    "--config.sampling.steps=3",
    "--config.sampling.num_samples=8",
    "--config.sampling.batch_size=8",
    "--config.evaluation.num_samples=8",
)
PROMPTS = ("a red circle", "a blue square", "a big cross")


@pytest.fixture(scope="module")
def run(cache, tmp_path_factory):
    """The directory of a finished run; only to be read."""
    workdir = tmp_path_factory.mktemp("texts") / "first"
    command = ["ddpm-jax", *TINY, f"--workdir={workdir}", "--config.train.steps=2"]
    with small_runs.quick_compilation(cache):
        assert main.main(command) == 0
    return workdir


@pytest.fixture(scope="module")
def opened(run):
    return trained_run.open_run(run)


def noisy(params):
    """Return weights with noise in their place: those of a new network say nothing."""
    import jax

    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(0)
    drawn = [rng.standard_normal(leaf.shape).astype(np.float32) for leaf in leaves]
    return jax.tree.unflatten(tree, drawn)


def made(opened, prompts, start=0, stop=None, batch_size=8, **sampling):
    config = opened.config.copy_and_resolve_references()
    config.sampling.update({"clip": False, **sampling, "prompts": tuple(prompts)})
    recipe = build_sampling.recipe(config, opened.facts)
    sampler = build_sampling.make_sampler(recipe, config, opened.network, opened.mesh)
    return sampler.make(
        noisy(opened.state.params),
        start=start,
        stop=len(prompts) if stop is None else stop,
        batch_size=batch_size,
    ).images


def test_a_run_keeps_its_tokenizer_and_tells_its_sensitivity(run):
    kept = json.loads((run / "tokenizer.json").read_text())
    assert kept["tokenizer"]["kind"] == "words"
    assert {"red", "circle", "above"} <= {*kept["tokenizer"]["words"]}
    assert len(kept["captions"]) == captions.KEPT
    records = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    told = [record["sensitivity"] for record in records if "sensitivity" in record]
    assert len(told) == 1
    assert np.isfinite(told[0])
    assert "Sensitivity to the text" in (run / "report.html").read_text()


def test_the_empty_prompt_is_the_null_condition_bit_for_bit(opened):
    config = opened.config.copy_and_resolve_references()
    config.sampling.prompts = ("", "a red circle")
    specs = opened.network.condition_spec
    recipe = build_sampling.recipe(config, opened.facts)
    empty, told = (recipe.condition_of(np.array([i]), specs) for i in (0, 1))
    nothing = conditions.without(specs, told)
    for key in specs:
        np.testing.assert_array_equal(empty[key], nothing[key])
        assert not np.array_equal(told[key], nothing[key])


def test_an_image_depends_on_its_own_prompt_and_number_alone(opened):
    seven = made(opened, [*PROMPTS, "", *PROMPTS], guidance_scale=3.0)
    alone = made(opened, ["a cross"] * 4 + [PROMPTS[0]], 4, 5, guidance_scale=3.0)
    np.testing.assert_allclose(seven[4:5], alone, atol=1e-4)
    assert np.abs(seven[0] - seven[4]).max() > 1e-2  # another number
    other = made(opened, ["a blue circle"], guidance_scale=3.0)
    assert np.abs(seven[:1] - other).max() > 1e-2  # another prompt


def test_guidance_of_an_empty_prompt_changes_nothing(opened):
    plain, guided = (made(opened, [""], guidance_scale=s) for s in (1.0, 5.0))
    np.testing.assert_allclose(plain, guided, atol=1e-4)


def test_a_negative_prompt_leads_elsewhere(opened):
    usual = made(opened, PROMPTS[:1], guidance_scale=3.0)
    away = made(opened, PROMPTS[:1], guidance_scale=3.0, negative="a blue square")
    assert np.abs(usual - away).max() > 1e-2
    # Away from the prompt itself nothing is left of the guidance.
    itself = made(opened, PROMPTS[:1], guidance_scale=3.0, negative=PROMPTS[0])
    plain = made(opened, PROMPTS[:1], guidance_scale=1.0)
    np.testing.assert_allclose(itself, plain, atol=1e-4)


def test_prompts_are_told_kept_and_named(run, opened, tell, tmp_path):
    workdir = shutil.copytree(run, tmp_path / "run")
    flags = [f"--prompt={prompt}" for prompt in PROMPTS]
    told = tell("--mode=sample", f"--workdir={workdir}", *flags)
    assert told.status == 0, told.err
    assert "prompts: 'a red circle', 'a blue square', 'a big cross'" in told.out
    (folder,) = (workdir / "samples").iterdir()
    assert json.loads((folder / "request.json").read_text())["prompts"] == [*PROMPTS]
    lines = tmp_path / "prompts.txt"
    lines.write_text("\ufeff" + "\n\n".join(PROMPTS) + "\n")  # as some editors save it
    again = tell("--mode=sample", f"--workdir={workdir}", f"--prompts={lines}")
    assert again.status == 0, again.err
    assert str(folder) in again.out  # the same request
    told = tell("--mode=sample", f"--workdir={workdir}")
    assert "none given, so captions that the run keeps" in told.out
    assert opened.facts.text.captions[0] in told.out
    assert len([*(workdir / "samples").iterdir()]) == 2


def test_a_run_is_scored_by_its_prompts(run, tell, tmp_path):
    workdir = shutil.copytree(run, tmp_path / "run")
    told = tell(
        "--mode=evaluate",
        f"--workdir={workdir}",
        "--config.evaluation.metric=prompt_accuracy,prompt_swap",
    )
    assert told.status == 0, told.err
    (path,) = (workdir / "evaluation").glob("prompt_accuracy_*.json")
    card = json.loads(path.read_text())
    assert card["real_images"]["whole"]["share"] == 1.0
    assert card["shuffled_captions"]["whole"]["share"] < 0.5
    assert card["seen"]["whole"]["count"] == card["never_seen"]["whole"]["count"] == 8
    assert card["value"] == card["seen"]["whole"]["share"]
    (path,) = (workdir / "evaluation").glob("prompt_swap_*.json")
    assert {"asked", "both", "stayed"} <= json.loads(path.read_text()).keys()
    again = tell(
        "--mode=evaluate",
        f"--workdir={workdir}",
        "--config.evaluation.metric=prompt_accuracy",
    )
    assert "scored already: prompt_accuracy" in again.out


def test_the_run_goes_on_with_its_own_tokenizer_alone(run, tell, tmp_path):
    workdir = shutil.copytree(run, tmp_path / "run")
    path = workdir / "tokenizer.json"
    kept = json.loads(path.read_text())
    kept["tokenizer"]["words"].append("zebra")
    path.write_text(json.dumps(kept))
    going_on = (*TINY, f"--workdir={workdir}", "--config.train.steps=4")
    for command in (going_on, ("--mode=sample", f"--workdir={workdir}")):
        told = tell(*command)
        assert told.status == 1
        assert "is not the tokenizer that this run was trained with" in told.err
    path.unlink()
    told = tell("--mode=sample", f"--workdir={workdir}")
    assert told.status == 1
    assert "tokenizer.json cannot be read" in told.err
    shutil.copy(run / "tokenizer.json", path)
    told = tell(*going_on)
    assert told.status == 0, told.err
    assert "finished 4 steps" in told.out


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        ("a turquoise circle", "unknown word 'turquoise': this run knows"),
        ("a \ud800 circle", "no character"),
        ("a " * 60_000, "120,000 characters"),
    ],
)
def test_prompts_that_cannot_be_read_are_refused(opened, prompt, match):
    config = opened.config.copy_and_resolve_references()
    config.sampling.prompts = (prompt,)
    with pytest.raises(errors.Refusal, match=match):
        build_sampling.recipe(config, opened.facts)


def test_a_prompt_that_is_too_long_is_told(opened):
    config = opened.config.copy_and_resolve_references()
    config.sampling.prompts = ("a red circle " * 9,)
    told = build_prompts.of(config, opened.facts).summary()
    assert any("27 of 12 tokens" in line for line in told)


def test_what_needs_text_is_refused_without(run, tell, tmp_path):
    config = main.parse(["ddpm-jax", *small_runs.TINY]).config
    facts = build_data.DataInfo.of(build_data.dataset(config, "test"))
    with pytest.raises(errors.Refusal, match="only images of 'shapes'"):
        evaluation.prepare(config, facts)
    config.sampling.prompts = ("a circle",)
    with pytest.raises(errors.Refusal, match="'a circle' on a run that reads no text"):
        build_sampling.recipe(config, facts)
    new = f"--workdir={tmp_path / 'new'}"
    refused = {
        (
            "--mode=sample",
            f"--workdir={run}",
            "--config.sampling.prompts=a",
        ): "--prompt",
        (*small_runs.TINY, new, "--config.model.text_layers=1"): "no captions",
        (*TINY, new, "--config.data.flip=True"): "set data.flip=False",
        ("--mode=train", f"--workdir={run}", "--prompt=a"): "--prompt=a belongs to",
    }
    for command, sentence in refused.items():
        told = tell(*command)
        assert told.status == 1
        assert sentence in told.err
    assert not (tmp_path / "new").exists()


def test_files_of_prompts_that_cannot_be_used_are_refused(run, tell, tmp_path):
    file = tmp_path / "prompts.txt"
    command = ("--mode=sample", f"--workdir={run}", f"--prompts={file}")
    assert "cannot be read" in tell(*command).err
    file.write_text("\n \n")
    assert "holds no prompt" in tell(*command).err
    file.write_bytes(b"ein W\xfcrfel\n")
    assert "no text in UTF-8 (byte 5)" in tell(*command).err
    assert "both given: keep one" in tell(*command, "--prompt=a circle").err


def test_guidance_of_a_run_that_never_saw_no_caption_is_refused(opened):
    config = opened.config.copy_and_resolve_references()
    config.train.label_dropout = 0.0
    config.sampling.guidance_scale = 3.0
    with pytest.raises(errors.Refusal, match="without leaving captions out"):
        build_sampling.recipe(config, opened.facts)


def test_a_training_batch_takes_other_captions_of_the_same_images(opened):
    dataset = captions.dataset(opened.config, opened.facts, "train")
    usual = dataset.fetch(np.arange(16))
    drawn = dataset.fetch(np.arange(16), caption_draws=np.linspace(0, 0.99, 16))
    np.testing.assert_array_equal(usual["image"], drawn["image"])
    assert (usual["tokens"] != drawn["tokens"]).any(axis=1).mean() > 0.5


@pytest.mark.parametrize("count", [1, 3, 8, 9, 10, 24])
def test_images_of_any_number_of_prompts_are_shown(count):
    images = np.zeros((16, 8, 8, 3), np.uint8)
    images[count % 16 :] = 200
    sheet = prompt_sheets.sheet(images, [f"text {k}" for k in range(count)])
    assert sheet.dtype == np.uint8
    shown = np.sum(sheet[:, :, 0] == 0) / (96 * 96 if count <= 8 else 192 * 192)
    assert shown >= min(count, 8 if count <= 8 else count % 16 or 1) * 0.9


def test_what_has_no_effect_on_a_run_of_texts_is_refused(opened):
    config = opened.config.copy_and_resolve_references()
    config.sampling.prompts = PROMPTS
    config.sampling.guidance_scale = 0.0
    with pytest.raises(errors.Refusal, match=r"guidance_scale=0.* leaves the text"):
        build_sampling.recipe(config, opened.facts)


def test_samples_are_scored_on_captions_of_the_test_split(opened):
    config = opened.config.copy_and_resolve_references()
    found = sample_sets.with_captions(config, opened.facts).sampling.prompts
    dataset = build_data.dataset(config, "test")
    assert found == tuple(dataset.captions(np.arange(8)))
    config.sampling.prompts = PROMPTS
    assert sample_sets.with_captions(config, opened.facts) is config


def test_metrics_of_prompts_belong_to_evaluation(opened):
    assert {*evaluation.SCORES} == {*table.OF_TEXTS}
