"""GLIDE's noised CLIP: how well a noisy image agrees with a text.

Two transformers end in one space. That of the image reads patches of x_t and, in place
of a class token, an embedding of the timestep; that of the text is causal and ends at
the text's last token. Agreement is 100·⟨z_text, z_image⟩ of the unit vectors, and its
gradient by x_t guides a diffusion model as a classifier's does.

Reference: GLIDE (Nichol et al. 2021), published code.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ddpm_jax.core import conditions, errors
from ddpm_jax.models import attention, checks, functional, initialisation

TOKENS, LENGTH, EMBEDDING = "clip_tokens", "clip_length", "clip_embedding"
"""Keys of a condition: the text as it is given, and as `prepare` leaves it."""

LOGIT_SCALE = 100.0
MEANS = (122.77093945, 116.74601272, 104.09373519)
STDS = (68.50053285, 66.63215831, 70.32316309)
"""Of the channels of images in 0 … 255 that CLIP was trained on."""

LAYER_NORM_EPSILON = 1e-5
UNIT_EPSILON = 1e-12  # beside a norm that divides
MASKED = -1e10
MLP_RATIO = 4
CHANNELS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clip:
    """The sizes of both encoders; the defaults are those that were published.

    Attributes:
        image_size: H = W of the images.
        patch_size: side of a patch.
        image_width, image_layers, image_heads: of the transformer over patches.
        timesteps: number of timesteps t that can be told apart.
        text_width, text_layers, text_heads: of the transformer over tokens.
        context: number of positions L of a text.
        vocabulary: number of tokens.
        embedding: width E of the common space.

    Raises:
        Refusal: a size below 1, or one that does not divide another as it should.
    """

    image_size: int = 64
    patch_size: int = 4
    image_width: int = 768
    image_layers: int = 12
    image_heads: int = 12
    timesteps: int = 1000
    text_width: int = 512
    text_layers: int = 12
    text_heads: int = 8
    context: int = 77
    vocabulary: int = 65536
    embedding: int = 512

    def __post_init__(self):
        checks.check_counts(**dataclasses.asdict(self))
        for whole, part in (
            ("image_size", "patch_size"),
            ("image_width", "image_heads"),
            ("text_width", "text_heads"),
        ):
            if getattr(self, whole) % getattr(self, part):
                raise errors.Refusal(
                    f"{part} {getattr(self, part)} does not divide {whole} "
                    f"{getattr(self, whole)}: give a divisor of it"
                )

    @property
    def patches(self) -> int:
        """How many patches an image has."""
        return (self.image_size // self.patch_size) ** 2


def clip(sizes: Clip) -> functional.Network:
    """Return the noised CLIP as a pair of functions, see `functional.Network`.

    `apply(params, x, t, condition)` takes x [B, H, W, 3], images in [−1, 1] with noise,
    and t [B], timesteps of the process before respacing, and returns the agreement of
    each image with its text, float32 [B]. The condition is "clip_tokens" int32 [B, L],
    zeros behind the text, and "clip_length" int32 [B], how many tokens count, those of
    start and end among them; or what `prepare` makes of it.
    """
    specs = {
        TOKENS: conditions.Spec((sizes.context,), "int32", None, sizes.vocabulary),
        LENGTH: conditions.Spec((), "int32", None, sizes.context + 1),
    }
    prepared = {EMBEDDING: conditions.Spec((sizes.embedding,), "float32")}
    rule = initialisation.RULES["torch"]
    return functional.functional(lambda rngs: _Clip(sizes, rngs), rule, specs, prepared)


class _Clip(nnx.Module):
    def __init__(self, sizes, rngs):
        self.image_shape = (sizes.image_size, sizes.image_size, CHANNELS)
        self.image = ImageEncoder(sizes, rngs=rngs)
        self.text = TextEncoder(sizes, rngs=rngs)

    def prepare(self, condition):
        """Return the condition with its text encoded, see `functional.Network`."""
        if EMBEDDING in condition:
            return condition
        return {EMBEDDING: self.text(condition[TOKENS], condition[LENGTH])}

    def __call__(self, x, t, condition, *, dropout_keys):
        del dropout_keys
        checks.check_call(x, t, image_shape=self.image_shape)
        text = self.prepare(condition)[EMBEDDING]
        return LOGIT_SCALE * jnp.sum(text * self.image(x, t), axis=-1)


class ImageEncoder(nnx.Module):
    """Noisy images and timesteps to unit vectors: [B, H, W, 3], [B] → [B, E]."""

    def __init__(self, sizes: Clip, *, rngs: nnx.Rngs):
        width, patch = sizes.image_width, sizes.patch_size
        self.timesteps = nnx.Embed(sizes.timesteps, width, rngs=rngs)
        self.patches = nnx.Conv(
            CHANNELS,
            width,
            (patch, patch),
            strides=patch,
            padding="VALID",
            use_bias=False,
            rngs=rngs,
        )
        self.positions = nnx.Embed(1 + sizes.patches, width, rngs=rngs)
        self.norm_in = _norm(width, rngs)
        self.blocks = _blocks(width, sizes.image_layers, sizes.image_heads, rngs)
        self.norm_out = _norm(width, rngs)
        self.project = _dense(width, sizes.embedding, rngs, bias=False)

    def __call__(self, x: jax.Array, t: jax.Array):
        means, stds = np.float32(MEANS), np.float32(STDS)
        h = self.patches(((x + 1.0) * 127.5 - means) / stds)
        h = h.reshape(h.shape[0], -1, h.shape[-1])  # [B, N, width]
        whole = jnp.round(t).astype(jnp.int32)  # floats where they are rescaled
        h = jnp.concatenate([self.timesteps(whole)[:, None], h], axis=1)
        h = self.norm_in(h + self.positions.embedding[...])
        for block in self.blocks:
            h = block(h, causal=False)
        return _unit(self.project(self.norm_out(h[:, 0])))


class TextEncoder(nnx.Module):
    """Texts to unit vectors: tokens [B, L] and their lengths [B] → [B, E]."""

    def __init__(self, sizes: Clip, *, rngs: nnx.Rngs):
        width = sizes.text_width
        self.tokens = nnx.Embed(sizes.vocabulary, width, rngs=rngs)
        self.positions = nnx.Embed(sizes.context, width, rngs=rngs)
        self.blocks = _blocks(width, sizes.text_layers, sizes.text_heads, rngs)
        self.norm_out = _norm(width, rngs)
        self.project = _dense(width, sizes.embedding, rngs, bias=False)

    def __call__(self, tokens: jax.Array, length: jax.Array):
        h = self.tokens(tokens) + self.positions.embedding[...]
        for block in self.blocks:
            h = block(h, causal=True)
        last = jnp.maximum(length - 1, 0)[:, None, None]
        end = jnp.take_along_axis(h, last, axis=1)[:, 0]
        return _unit(self.project(self.norm_out(end)))


class Block(nnx.Module):
    """Attention, then two dense layers; norms in front of both. Keys have no bias."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.norm_1 = _norm(width, rngs)
        self.query = _dense(width, width, rngs)
        self.key = _dense(width, width, rngs, bias=False)
        self.value = _dense(width, width, rngs)
        self.project = _dense(width, width, rngs)
        self.norm_2 = _norm(width, rngs)
        self.dense_1 = _dense(width, MLP_RATIO * width, rngs)
        self.dense_2 = _dense(MLP_RATIO * width, width, rngs)

    def __call__(self, h, *, causal: bool):
        normed = self.norm_1(h)
        q, k, v = (
            layer(normed).reshape(*h.shape[:2], self.heads, -1)
            for layer in (self.query, self.key, self.value)
        )
        h = h + self.project(_attend(q, k, v, causal=causal).reshape(h.shape))
        hidden = jax.nn.gelu(self.dense_1(self.norm_2(h)), approximate=False)
        return h + self.dense_2(hidden)


def _attend(q, k, v, *, causal):
    """Mix values [B, N, heads, d]; `causal` lets a position see none behind it."""
    if not causal:
        return attention.attend(q, k, v, scale="split")
    N, d = q.shape[1], q.shape[-1]
    logits = jnp.einsum("bqhd,bkhd->bhqk", q * d**-0.25, k * d**-0.25)
    seen = np.tri(N, dtype=bool)
    weights = jax.nn.softmax(jnp.where(seen, logits, MASKED), axis=-1)
    return jnp.einsum("bhqk,bkhd->bqhd", weights, v)


def _unit(z):
    length = jnp.sqrt(jnp.sum(z * z, axis=-1, keepdims=True))
    return z / (length + UNIT_EPSILON)


def _blocks(width, count, heads, rngs):
    return nnx.List([Block(width, heads, rngs=rngs) for _ in range(count)])


def _dense(width_in, width_out, rngs, *, bias=True):
    return nnx.Linear(width_in, width_out, use_bias=bias, rngs=rngs)


def _norm(width, rngs):
    return nnx.LayerNorm(
        width, epsilon=LAYER_NORM_EPSILON, use_fast_variance=False, rngs=rngs
    )
