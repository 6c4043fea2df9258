"""The network of a run."""

from ddpm_jax import config as config_lib
from ddpm_jax.builders.data import DataInfo
from ddpm_jax.core import conditions, errors
from ddpm_jax.data import images
from ddpm_jax.diffusion import reverse
from ddpm_jax.models import classifier, custom, functional, unet


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
    if rate and not conditional:
        raise errors.Refusal(
            f"train.label_dropout={rate} with model.class_conditional=False: there are "
            "no labels to drop; set model.class_conditional=True or label_dropout=0"
        )
    return facts.num_classes if rate else None


def network(config, facts: DataInfo) -> functional.Network:
    """Return the network for these images and labels: what model.kind says."""
    model = config.model
    if not images.is_image(facts.shape):
        raise errors.Refusal(
            f"model.kind={model.kind!r} takes images [height, width, channels], and "
            f"one example of {config.data.name!r} is {list(facts.shape)}: give a "
            "network of your own, ddpm_jax.train(config, workdir, network=…), or images"
        )
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
            _check_classifier(config)
            return classifier.classifier(
                num_classes=facts.num_classes, pool=model.pool, **options
            )
        learned = config.diffusion.variance in reverse.LEARNED_VARIANCES
        return unet.unet(
            out_channels=2 * channels if learned else channels,
            num_classes=label_rows(config, facts),
            null_label=null_label(config, facts),
            low_res=model.kind == "upsampler",
            resample=model.resample,
            sinusoid=model.sinusoid,
            sinusoid_shift=model.sinusoid_shift,
            norm_epsilon=model.norm_epsilon,
            downsample_padding=model.downsample_padding,
            attention_scale=model.attention_scale,
            middle_attention=model.middle_attention,
            initialisation=model.initialisation,
            **options,
        )


NOT_OF_CLASSIFIERS = (
    "sinusoid",
    "sinusoid_shift",
    "norm_epsilon",
    "downsample_padding",
    "resample",
    "attention_scale",
    "middle_attention",
    "initialisation",
)


def _check_classifier(config):
    """Refuse fields that the classifier of ADM, which has one dialect, would ignore."""
    usual = config_lib.base().model
    for name in NOT_OF_CLASSIFIERS:
        if config.model[name] != usual[name]:
            raise errors.Refusal(
                f"{name}={config.model[name]!r} has no meaning for a classifier: leave "
                f"it {usual[name]!r}"
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


def check_kind(config, doing: str) -> None:
    """Refuse to train, sample or score what no mode can feed yet.

    Args:
        doing: for the sentence, e.g. "sampling from".
    """
    needs = {
        "upsampler": "low-resolution images beside its input",
        "classifier": "a diffusion model to guide",
    }
    if config.model.kind != "unet":
        raise errors.Refusal(
            f"model.kind={config.model.kind!r}: {doing} it is not possible yet, for it "
            f"needs {needs[config.model.kind]}; it can be converted, exported and "
            "called from Python"
        )
