"""The network of a run."""

from ddpm_jax import config as config_lib
from ddpm_jax.builders import chains, fitting
from ddpm_jax.builders import clip as build_clip
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import conditions, errors
from ddpm_jax.data import images, low_res
from ddpm_jax.diffusion import reverse
from ddpm_jax.models import classifier, custom, functional, text, unet
from ddpm_jax.runs import commands
from ddpm_jax.text import tokenizers


def null_label(config, facts: DataInfo) -> int | None:
    """Return the label of "no class": one past the last, with label drop-out only.

    Raises:
        Refusal: label drop-out without labels to drop.
    """
    rate = config.train.label_dropout
    conditional = config.model.class_conditional
    if conditional and not facts.num_classes:
        raise errors.Refusal(
            "model.class_conditional=True: this data has no labels; set it to False"
        )
    if rate and not conditional and not config.model.text_layers:
        raise errors.Refusal(
            f"train.label_dropout={rate} with model.class_conditional=False: there are "
            "no labels to drop; set model.class_conditional=True or label_dropout=0"
        )
    return facts.num_classes if rate and conditional else None


def network(config, facts: DataInfo) -> functional.Network:
    """Return the network for this data and its labels: what model.kind says."""
    model = config.model
    chains.check_unread(config)
    if model.kind in chains.KINDS:
        return chains.network(config, facts)
    if not images.is_image(facts.shape):
        raise errors.Refusal(
            f"model.kind={model.kind!r} takes images [height, width, channels], and "
            f"one example of {config.data.name!r} is {list(facts.shape)}: give a "
            "network of your own, ddpm_jax.train(config, workdir, network=…), or images"
        )
    if model.kind == "clip":
        return build_clip.network(config, facts)
    fitting.check_sides(config, facts, network)
    height, width, channels = facts.shape
    options = {
        "image_size": (height, width),
        "in_channels": channels,
        "channels": model.channels,
        "channel_mult": tuple(model.channel_mult),
        "num_res_blocks": model.num_res_blocks,
        "attention_resolutions": tuple(model.attention_resolutions),
        "num_heads": model.num_heads,
        "head_channels": model.head_channels or None,
        "scale_shift": model.scale_shift,
        "resblock_updown": model.resblock_updown,
        "qkv_order": model.qkv_order,
        "norm_groups": model.norm_groups,
        "dropout": model.dropout,
        "dtype": model.dtype,
        "remat": model.remat,
    }
    with errors.about("model"):
        if model.kind == "classifier":
            check_classes(config, facts)
            refuse_fields(config, NOT_OF_CLASSIFIERS)
            return classifier.classifier(
                num_classes=facts.num_classes, pool=model.pool, **options
            )
        learned = config.diffusion.variance in reverse.LEARNED_VARIANCES
        return unet.unet(
            out_channels=2 * channels if learned else channels,
            num_classes=label_rows(config, facts),
            null_label=null_label(config, facts),
            low_res=low_res_size(config, facts),
            low_res_levels=low_res_levels(config),
            inpainting=model.inpainting,
            text=text_sizes(config, facts),
            resample=model.resample,
            sinusoid=model.sinusoid,
            sinusoid_shift=model.sinusoid_shift,
            norm_epsilon=model.norm_epsilon,
            downsample_padding=model.downsample_padding,
            attention_scale=model.attention_scale,
            attention_positions=model.attention_positions,
            middle_attention=model.middle_attention,
            initialisation=model.initialisation,
            **options,
        )


def low_res_size(config, facts: DataInfo) -> bool | tuple[int, int]:
    """Return (h, w) of what an upsampler reads, True for any, False for other networks.

    Raises:
        Refusal: a factor that does not divide the images, or of other networks.
    """
    factor = config.data.low_res_factor
    if config.model.kind != "upsampler":
        _refuse_low_res(config)
        return False
    if not factor:
        return True
    low_res.check_factor(facts.shape, factor)
    height, width, _ = facts.shape
    return height // factor, width // factor


def _refuse_low_res(config):
    for section, name in (("data", "low_res_factor"), ("model", "low_res_noise")):
        if config[section][name]:
            raise errors.Refusal(
                f"{section}.{name}={config[section][name]} with "
                f"model.kind={config.model.kind!r}, which reads no smaller images: set "
                f"model.kind=upsampler, or leave it out"
            )


def low_res_levels(config) -> int:
    """Return how many levels of noise the smaller images may have, none among them."""
    return config.diffusion.num_steps + 1 if config.model.low_res_noise else 0


def text_sizes(config, facts: DataInfo) -> text.Text | None:
    """Return the sizes of the text encoder that model.text_layers asks for, or None.

    Raises:
        Refusal: sizes that neither the config nor the tokenizer tells, or that the
            tokenizer contradicts.
    """
    model = config.model
    if not model.text_layers:
        return None
    sizes = {"context": model.text_context, "vocabulary": model.text_vocabulary}
    if facts.text is not None:
        tokenizer = tokenizers.without_files(facts.text.tokenizer)
        of_tokenizer = {
            "context": tokenizer.context,
            "vocabulary": tokenizer.vocabulary_size,
        }
        for name, own in of_tokenizer.items():
            if sizes[name] not in (0, own):
                raise errors.Refusal(
                    f"model.text_{name}={sizes[name]}: the tokenizer "
                    f"{tokenizer.kind!r} of this data has {own}; set it to {own}, or "
                    "to 0"
                )
            sizes[name] = own
    for name, value in sizes.items():
        if not value:
            raise errors.Refusal(
                f"model.text_{name}=0 without data whose captions tell it: give it, "
                f"such as model.text_{name}={GLIDE[name]} of GLIDE"
            )
    return text.Text(
        width=model.text_width,
        layers=model.text_layers,
        heads=model.text_heads,
        relative=model.text_relative,
        **sizes,
    )


GLIDE = {"context": 128, "vocabulary": 50257}

# Fields that the classifier of ADM, which has one dialect, would ignore …
NOT_OF_CLASSIFIERS = (
    "model.sinusoid",
    "model.sinusoid_shift",
    "model.norm_epsilon",
    "model.downsample_padding",
    "model.resample",
    "model.attention_scale",
    "model.attention_positions",
    "model.middle_attention",
    "model.initialisation",
    "model.inpainting",
    "model.text_layers",
    "model.low_res_noise",
    "data.low_res_factor",
)
# … and those that its training would: it denoises nothing and makes no samples.
NOT_OF_THEIR_TRAINING = (
    "model.class_conditional",
    "diffusion.prediction",
    "diffusion.variance",
    "diffusion.loss",
    "diffusion.weighting",
    "diffusion.weighting_gamma",
    "diffusion.weighting_k",
    "diffusion.timestep_sampler",
    "train.label_dropout",
    "train.sample_every",
    "train.evaluate_every",
)
NEVER = ("train.sample_every", "train.evaluate_every")  # 0, whatever is usual


def refuse_fields(config, paths) -> None:
    """Refuse fields that have no meaning for a classifier and are not as usual.

    Raises:
        Refusal: names the field and its usual value.
    """
    usual = config_lib.base()
    for path in paths:
        section, name = path.split(".")
        value = config[section][name]
        good = 0 if path in NEVER else usual[section][name]
        if value != good:
            raise errors.Refusal(
                f"{path}={value!r} has no meaning for a classifier: set it to {good!r}"
            )


def check_classes(config, facts) -> None:
    """Refuse data that a classifier has nothing to tell apart in."""
    if (facts.num_classes or 0) < 2:
        raise errors.Refusal(
            f"a classifier needs images of at least 2 classes, and the data "
            f"{config.data.name!r} has {facts.num_classes or 'none'}: choose "
            "data.labels and data.path so that there are more"
        )


def label_rows(config, facts):
    """Return the rows of the label embedding, the null label's among them, or None."""
    null = null_label(config, facts)
    if not config.model.class_conditional:
        return None
    return facts.num_classes + (null is not None)


def label_spec(config, facts: DataInfo) -> dict[str, conditions.Spec]:
    """Return the part of a condition that model.class_conditional asks for."""
    null = null_label(config, facts)  # refuses drop-out without labels
    if not config.model.class_conditional:
        return {}
    rows = label_rows(config, facts)
    return {"label": conditions.Spec((), "int32", null, rows)}


def custom_network(given, config, facts):
    """Return a network of the user's own, with the labels that the config says.

    Args:
        given: from `models.custom.own_network`.

    Raises:
        Refusal: another shape of its output, or weights of another run to start from.
    """
    if config.train.init_from:
        raise errors.Refusal(
            f"train.init_from={config.train.init_from} with a network of your own: "
            "leave it empty and let init return the weights to start from"
        )
    network = custom.with_labels(given, label_spec(config, facts))
    if ("label" in network.condition_spec) != config.model.class_conditional:
        raise errors.Refusal(
            f"model.class_conditional={config.model.class_conditional} with a network "
            f"that reads {', '.join(network.condition_spec) or 'no condition'}: set it "
            "to True if and only if condition_spec has a 'label'"
        )
    if config.train.label_dropout and not conditions.has_none(network.condition_spec):
        raise errors.Refusal(
            f"train.label_dropout={config.train.label_dropout} with a network whose "
            'condition_spec has no value for "no condition": give it as the third '
            "entry of a key, such as the number of classes, or set label_dropout=0"
        )
    channels = facts.shape[-1]
    learned = config.diffusion.variance in reverse.LEARNED_VARIANCES
    custom.check_output(
        network,
        image_shape=facts.shape,
        out_channels=2 * channels if learned else channels,
        float_timesteps=config.diffusion.rescale_timesteps,
    )
    return network


NOT_YET = {
    "inpainting": "a picture to complete beside its input: complete one with "
    "--mode=inpaint --image=FILE --mask=FILE"
}
"""Fields of networks that training and sampling cannot feed yet, and what with."""


def makes_images_alone(config) -> bool:
    """Return whether images can be sampled from nothing but noise and labels."""
    model = config.model
    return model.kind == "unet" and not any(model[field] for field in NOT_YET)


def check_kind(
    config, doing: str, workdir="CLASSIFIER", *, completes: bool = False
) -> None:
    """Refuse to do with a run what only a diffusion model permits.

    Args:
        doing: for the sentence, e.g. "sampling from".
        workdir: the run, for the command in the sentence.
        completes: whether there is a picture to complete.

    Raises:
        Refusal: says what the run can be used for.
    """
    kind = config.model.kind
    if kind in chains.KINDS and not completes:
        raise errors.Refusal(
            f"model.kind={kind!r}: {doing} it is not possible; train it, sample it "
            "with --mode=sample and measure its bound with --mode=evaluate"
        )
    if kind == "upsampler" and config.model.inpainting:
        raise errors.Refusal(
            f"model.inpainting=True of an upsampler: {doing} it is not possible yet, "
            "for it needs a large picture to complete beside a small one; it can be "
            "converted, exported and called from Python"
        )
    for field, needed in NOT_YET.items():
        if config.model[field] and kind == "unet" and not completes:
            raise errors.Refusal(
                f"model.{field}={config.model[field]!r}: {doing} it is not possible "
                f"yet, for it needs {needed}"
            )
    if kind == "classifier":
        raise errors.Refusal(
            f"model.kind={kind!r}: {doing} it is not possible, for it makes no images; "
            f"score it with --mode=evaluate, or let it guide a diffusion model: "
            f"{commands.guide(config.model.guides, workdir)}"
        )
    if kind == "clip":
        raise errors.Refusal(
            f"model.kind={kind!r}: {doing} it is not possible, for it makes no images; "
            "let it guide a run that does: --mode=sample --workdir=RUN "
            f"--config.sampling.classifier={workdir}"
        )


def check_no_upsampler(config, doing: str) -> None:
    """Refuse to do with an upsampler what is defined for images from noise alone.

    Args:
        config: of the run.
        doing: for the sentence, e.g. "diagnosing".

    Raises:
        Refusal: says what the run can be used for.
    """
    if config.model.kind == "upsampler":
        raise errors.Refusal(
            f"model.kind='upsampler': {doing} it is not possible, for it enlarges "
            "images and makes none from noise alone; give the run that makes the small "
            "images, and enlarge what comes of it with --mode=sample "
            "--config.sampling.low_res=…"
        )
