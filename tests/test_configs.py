"""The configs of this repository: published networks, variants, rules for folders."""

import ast
import functools
import importlib
import math
import pathlib

import numpy as np
import pytest
from PIL import Image

from ddpm_jax.builders import data as build_data
from ddpm_jax.builders import kinds
from ddpm_jax.builders import network as build_network
from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.builders import step as build_step
from ddpm_jax.builders import training as build_training
from ddpm_jax.config import reading
from ddpm_jax.convert import published
from ddpm_jax.core import errors
from ddpm_jax.models import functional
from ddpm_jax.text import tokenizers

ROOT = pathlib.Path(__file__).parent.parent
# Of these, the user's folder or a published file decides the rest.
NEED_A_VARIANT = {"folder", "published", "digits_classifier"}
ALL = sorted((ROOT / "configs").glob("*.py"))
PLAIN = [path.stem for path in ALL if path.stem not in NEED_A_VARIANT]
VARIANTS = [
    "imagenet64_iddpm:vlb",
    "imagenet64_iddpm:cond",
    "imagenet256_adm:unconditional",
    "lsun256_ddpm:bedroom_large",
    "lsun256_ddpm:cat",
    "lsun256_ddpm:church",
    "lsun256_iddpm:horse",
]


def read(spec):
    name, _, variant = spec.partition(":")
    path = ROOT / "configs" / f"{name}.py"
    return reading.from_file(f"{path}:{variant}" if variant else str(path))


CAPTIONS = ("a red circle", "a blue square above a cross")


def facts(config, num_classes=1000):
    """Return the facts of data as the config asks for it."""
    known = {"digits": (8, 8, 1), "cifar10": (32, 32, 3), "tfds:cifar10": (32, 32, 3)}
    size = tuple(config.data.image_size)
    size = size * 2 if len(size) == 1 else size
    shape = known.get(config.data.name) or (*size, config.data.channels or 3)
    names = tuple(str(number) for number in range(num_classes))
    text = None
    if config.model.text_layers and not config.model.text_vocabulary:
        made = tokenizers.make(config.data.tokenizer, captions=CAPTIONS)
        text = build_data.TextFacts(made.to_json(), CAPTIONS)
    return build_data.DataInfo(shape, 256, 50_000, num_classes, names, "…", text)


@functools.cache
def network_of(spec):
    config = read(spec)
    return build_network.network(config, facts(config))


def arrays(spec):
    return functional.by_path(network_of(spec).shapes)


def count(spec):
    return sum(math.prod(leaf.shape) for leaf in arrays(spec).values())


CLASSIFIERS = [spec for spec in PLAIN if spec.endswith("_classifier")]
CHAINS = [spec for spec in PLAIN if spec.endswith("_2015")]
# Of these, see test_configs_glide.py.
GLIDE = [spec for spec in PLAIN if spec.startswith("glide_")]
UPSAMPLERS = [
    spec for spec in PLAIN if spec.endswith("_upsampler") and spec not in GLIDE
]
UNETS = [spec for spec in PLAIN if spec not in (*CLASSIFIERS, *GLIDE, *CHAINS)]


@pytest.mark.parametrize("spec", [*UNETS, *VARIANTS])
def test_every_config_builds_without_its_data(spec):
    config = read(spec)
    build_process.objective(config, facts(config))
    if spec not in UPSAMPLERS:
        build_sampling.recipe(config, facts(config))
    build_training.optimizer(config)
    build_process.timestep_sampler(config)
    leaves = arrays(spec)
    outputs = 2 if config.diffusion.variance.startswith("learned") else 1
    channels = facts(config).shape[-1]
    assert leaves["conv_out/kernel"].shape[-1] == outputs * channels


@pytest.mark.parametrize("spec", CLASSIFIERS)
def test_every_classifier_builds_without_its_data(spec):
    config, network = read(spec), network_of(spec)
    build_step.train_step(config, facts(config), network)
    build_training.abstract_state(config, network, build_training.mesh(config))
    leaves = functional.by_path(network.shapes)
    assert leaves["pool/proj_out/kernel"].shape[-1] == 1000


OF_CHAINS = {  # shape and levels of their data
    "heartbeat": ((20, 1), 2),
    "swissroll": ((2,), None),
    "dead_leaves": ((16, 16, 1), 256),
    "digits": ((8, 8, 1), 17),
}


@pytest.mark.parametrize("spec", CHAINS)
def test_every_chain_of_the_2015_paper_builds_without_its_data(spec):
    config = read(spec)
    shape, levels = OF_CHAINS[config.data.name]
    facts = build_data.DataInfo(shape, levels, 1000, None, (), "…")
    network = build_network.network(config, facts)
    build_step.train_step(config, facts, network)
    build_training.abstract_state(config, network, build_training.mesh(config))
    recipe = kinds.of(config).recipe(config, facts)
    assert recipe.num_steps == config.diffusion.num_steps
    leaves = functional.by_path(network.shapes)
    learns = config.model.kind == "gaussian_2015"
    assert ("rates/offset" in leaves) == learns


@pytest.mark.parametrize("spec", UPSAMPLERS)
def test_an_upsampler_builds_without_its_data(spec):
    config, network = read(spec), network_of(spec)
    build_step.train_step(config, facts(config), network)
    height, width, channels = facts(config).shape
    factor = config.data.low_res_factor
    assert network.condition_spec["low_res"].shape == (
        height // factor,
        width // factor,
        channels,
    )


@pytest.mark.parametrize(
    ("spec", "name", "steps", "rate"),
    [
        ("imagenet256_iddpm_upsampler", "upsample_cond_500K", 500_000, 3e-4),
        ("imagenet256_adm_upsampler", "64_256_upsampler", 500_000, 1e-4),
        ("imagenet512_adm_upsampler", "128_512_upsampler", 1_050_000, 1e-4),
    ],
)
def test_an_upsampler_is_the_published_one(spec, name, steps, rate):
    """Network and process are those of the flags, numbers those of the papers."""
    config = read(spec)
    values = dict(reading.leaves(config.to_dict()))
    fields = dict(published.PUBLISHED[name].fields)
    assert fields.pop("facts.num_classes") == 1000
    assert fields.pop("data.image_size") == config.data.image_size * 2
    if config.model.head_channels:
        fields.pop("model.num_heads")
    assert {name: values[name] for name in fields} == fields
    assert (config.train.steps, config.train.batch_size) == (steps, 256)
    assert config.train.learning_rate == rate


@pytest.mark.parametrize("spec", CLASSIFIERS)
def test_a_classifier_is_the_published_one(spec):
    """Network and process are those of the flags, numbers those of the paper."""
    size = int(spec.removeprefix("imagenet").removesuffix("_classifier"))
    config = read(spec)
    values = dict(reading.leaves(config.to_dict()))
    fields = dict(published.PUBLISHED[f"{size}x{size}_classifier"].fields)
    assert fields.pop("facts.num_classes") == 1000
    assert fields.pop("data.image_size") == config.data.image_size * 2
    if config.model.head_channels:
        fields.pop("model.num_heads")
    assert {name: values[name] for name in fields} == fields
    is_small = size == 64
    train = config.train
    assert train.weight_decay == (0.2 if is_small else 0.05)
    assert train.learning_rate == (6e-4 if is_small else 3e-4)
    assert train.batch_size == (1024 if is_small else 256)
    assert train.steps == {64: 300_000, 128: 300_000, 256: 500_000, 512: 500_000}[size]
    assert (train.decay, tuple(train.ema_decay), train.clip_norm) == ("linear", (), 0)
    assert (config.data.crop, config.data.flip) == ("random", True)
    assert config.model.dropout == 0


def test_the_digits_classifier_names_the_command_that_is_missing():
    file = "digits_classifier"
    with pytest.raises(errors.Refusal, match=rf"needs the run .*--config={file}:runs/"):
        read("digits_classifier")


# Counted in the original implementations (PyTorch modules without memory).
PUBLISHED = {
    "cifar10_ddpm": 35_746_307,
    "celebahq256_ddpm": 113_673_219,
    "lsun256_ddpm:church": 113_673_219,
    "cifar10_iddpm": 52_546_438,
    "imagenet64_iddpm": 121_063_942,
    "imagenet64_iddpm:vlb": 121_063_942,
    "imagenet64_iddpm:cond": 273_049_350,
    "lsun256_iddpm": 113_676_678,
    "imagenet64_adm": 295_904_454,
    "imagenet128_adm": 421_529_606,
    "imagenet256_adm": 553_838_086,
    "imagenet256_adm:unconditional": 552_814_086,
    "imagenet512_adm": 558_997_638,
    "imagenet256_adm_upsampler": 311_795_910,
    "imagenet512_adm_upsampler": 308_835_270,
    "imagenet256_iddpm_upsampler": 279_792_390,
    "imagenet64_classifier": 65_438_568,
    "imagenet128_classifier": 42_568_040,
    "imagenet256_classifier": 54_096_360,
    "imagenet512_classifier": 54_448_360,
}


@pytest.mark.parametrize("spec", PUBLISHED)
def test_a_network_has_the_published_number_of_parameters(spec):
    assert count(spec) == PUBLISHED[spec]


def test_the_large_bedroom_network_has_about_256_million_parameters():
    assert round(count("lsun256_ddpm:bedroom_large") / 1e6) == 256  # the paper


def test_flags_that_shapes_do_not_show():
    """Each of these makes a published checkpoint useless if it is wrong."""
    rescaled = {
        spec: (config.diffusion.loss, config.diffusion.rescale_timesteps)
        for spec in PUBLISHED
        if "iddpm" in spec
        for config in [read(spec)]
    }
    assert rescaled == {
        "cifar10_iddpm": ("rescaled_hybrid", True),
        "imagenet64_iddpm": ("rescaled_hybrid", True),
        "imagenet64_iddpm:vlb": ("rescaled_kl", True),
        "imagenet64_iddpm:cond": ("hybrid", False),
        "lsun256_iddpm": ("hybrid", False),
        "imagenet256_iddpm_upsampler": ("hybrid", False),
    }
    orders = {s: read(s).model.qkv_order for s in PUBLISHED if "_adm" in s}
    assert [spec for spec, order in orders.items() if order == "new"] == [
        "imagenet64_adm"
    ]
    heads = read("imagenet128_adm").model
    assert (heads.num_heads, heads.head_channels) == (4, 0)


@pytest.mark.parametrize("spec", ["cifar10_ddpm", "celebahq256_ddpm", "lsun256_ddpm"])
def test_ddpm_configs_speak_its_dialect(spec):
    model = read(spec).model
    assert (model.sinusoid, model.sinusoid_shift) == ("sin_cos", 1)
    assert (model.norm_epsilon, model.downsample_padding) == (1e-6, "end")
    assert (model.num_heads, model.scale_shift) == (1, False)


@pytest.mark.parametrize(
    "spec", ["imagenet64_iddpm", "imagenet256_adm", "lsun256_ddpm", "lsun256_iddpm"]
)
def test_an_unknown_variant_is_refused_with_the_known_ones(spec):
    with pytest.raises(errors.Refusal, match=r"variant .*'dog': choose one of"):
        read(f"{spec}:dog")


@pytest.mark.parametrize("path", ALL, ids=lambda path: path.stem)
def test_every_config_says_how_to_run_it_and_what_to_expect(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert f"--config=configs/{path.name}" in docstring
    assert "result" in docstring.lower()


# ---- configs/folder.py ---------------------------------------------------------------


@pytest.fixture
def folder_config(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "configs"))
    return importlib.import_module("folder")


def save_images(folder, number, shape, classes=()):
    """Write PNG files of one size, in turn into the folders of `classes`."""
    for index in range(number):
        place = folder / classes[index % len(classes)] if classes else folder
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.full(shape, index % 256, np.uint8)
        Image.fromarray(pixels).save(place / f"{index:04d}.png")


def test_small_photographs_keep_their_size(tmp_path):
    save_images(tmp_path / "photos", 40, (48, 64, 3))
    config = read(f"folder:{tmp_path / 'photos'}")
    assert config.data.name == "folder"
    assert config.data.path == str(tmp_path / "photos")
    assert tuple(config.data.image_size) == (48, 64)
    assert not config.model.class_conditional
    assert config.train.batch_size <= 20  # several batches an epoch
    made = build_data.DataInfo((48, 64, 3), 256, 36, None, (), "…")
    assert build_network.network(config, made).shapes
    build_process.objective(config, made)
    build_sampling.recipe(config, made)


def test_grey_images_of_20_pixels_have_a_network(tmp_path):
    save_images(tmp_path / "grey", 30, (20, 20))
    config = read(f"folder:{tmp_path / 'grey'}")
    made = build_data.DataInfo((20, 20, 1), 256, 27, None, (), "…")
    leaves = functional.by_path(build_network.network(config, made).shapes)
    assert leaves["conv_in/kernel"].shape == (3, 3, 1, 32)


def test_large_images_become_smaller_unless_a_size_is_asked_for(tmp_path):
    save_images(tmp_path / "large", 3, (200, 300, 3))
    spec = f"folder:{tmp_path / 'large'}"
    assert tuple(read(spec).data.image_size) == (64, 64)
    assert tuple(read(f"{spec}@128").data.image_size) == (128, 128)
    assert tuple(read(f"{spec}@48x64").data.image_size) == (48, 64)


def test_images_of_several_sizes_get_one_that_fits_all(tmp_path):
    save_images(tmp_path / "mixed" / "a", 2, (50, 70, 3))
    save_images(tmp_path / "mixed" / "b", 2, (90, 45, 3))
    assert tuple(read(f"folder:{tmp_path / 'mixed'}").data.image_size) == (40, 40)


def test_two_folders_are_classes_and_train_and_test_are_not(tmp_path):
    save_images(tmp_path / "pets", 8, (16, 16, 3), ("cat", "dog"))
    pets = read(f"folder:{tmp_path / 'pets'}")
    assert pets.model.class_conditional
    assert pets.train.label_dropout == 0.1
    save_images(tmp_path / "splits", 8, (16, 16, 3), ("train", "test"))
    assert not read(f"folder:{tmp_path / 'splits'}").model.class_conditional


@pytest.mark.parametrize(
    ("spec", "parts"),
    [
        ("folder", ["folder.py", "PATH"]),
        ("folder:/nowhere/at/all", ["/nowhere/at/all", "does not exist"]),
    ],
)
def test_a_path_that_is_missing_is_refused(spec, parts):
    with pytest.raises(errors.Refusal) as refusal:
        read(spec)
    for part in parts:
        assert part in str(refusal.value)


def test_sides_that_cannot_be_halved_are_refused_with_their_neighbours(tmp_path):
    save_images(tmp_path / "odd", 2, (45, 45, 3))
    with pytest.raises(errors.Refusal, match=r"not divisible by 4: .* @44x44"):
        read(f"folder:{tmp_path / 'odd'}")


def test_images_of_one_pixel_are_refused(tmp_path):
    save_images(tmp_path / "tiny", 2, (1, 1, 3))
    with pytest.raises(errors.Refusal, match=r"1x1 are too small for a network"):
        read(f"folder:{tmp_path / 'tiny'}")


def test_arrays_work_like_a_folder(tmp_path):
    images = np.zeros((40, 16, 24, 3), np.uint8)
    np.savez(tmp_path / "a.npz", arr_0=images, arr_1=np.arange(40) % 4)
    config = read(f"folder:{tmp_path / 'a.npz'}")
    assert config.data.name == "npz"
    assert tuple(config.data.image_size) == (16, 24)
    assert config.model.class_conditional


def test_levels_end_at_maps_of_8_to_15_where_the_sides_permit(folder_config):
    for height in range(8, 513):
        for width in (height, 2 * height):
            try:
                levels = folder_config.number_of_levels(height, width)
            except errors.Refusal:
                continue
            factor = 2 ** (levels - 1)
            assert height % factor == 0
            assert width % factor == 0
            smallest = height // factor
            if height % 2**5 == 0:
                assert 8 <= smallest <= 16
            assert 4 <= smallest <= 31


def test_fewer_images_mean_fewer_steps_shorter_averages_and_more_dropout(folder_config):
    few = folder_config.steps_for(500, 16)
    many = folder_config.steps_for(50_000, 16)
    assert few < many
    assert folder_config.ema_decay_for(few) < folder_config.ema_decay_for(many)
    for steps in (2000, few, many):
        span = 1 / (1 - folder_config.ema_decay_for(steps))
        assert span <= steps / 10 * 1.01
    for number in (2, 3, 7, 40, 500):
        batch = folder_config.batch_size_for(number, 64)
        assert 1 <= batch <= max(number // 2, 1)
        assert batch & (batch - 1) == 0  # devices come in powers of two
