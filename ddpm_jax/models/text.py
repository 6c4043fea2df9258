"""A caption as a U-Net reads it: GLIDE's transformer over tokens.

Pre-norm blocks without a mask: every position attends to every other, those without a
token too, for which a learned embedding of their own stands. The U-Net gets the text in
two forms: all positions, as further keys and values of its attention, and the last
position, projected into the embedding of the timestep.

Reference: GLIDE (Nichol et al. 2021), published code.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from ddpm_jax.core import conditions, errors
from ddpm_jax.models import attention, checks, layers

TOKENS, MASK = "tokens", "token_mask"
POSITIONS, POOLED = "text", "text_embedding"
"""Keys of a condition: of a text as it is given, and as `TextEncoder` leaves it."""

LAYER_NORM_EPSILON = 1e-5
MLP_RATIO = 4

LEANINGS = (
    lambda distance: 3.0 * (distance == 1),  # at the next word
    lambda distance: 3.0 * (distance == -1),  # at the one before
    lambda distance: 1.5 * (distance > 0),  # at all that follow
    lambda distance: 1.5 * (distance < 0),  # at all before
)
"""Where heads look in the beginning, in turn: distance of key less query → added."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Text:
    """The sizes of a text encoder.

    Attributes:
        width: channels of a position, divided evenly among the heads.
        layers: number of blocks.
        heads: of the attention of a block.
        context: number of positions L; shorter texts are padded.
        vocabulary: number of tokens; the last one is that of padding.
        relative: whether attention is also told how far apart two positions are, see
            `RelativeBias`; GLIDE's is not.

    Raises:
        Refusal: a size below 1, or heads that do not share the width.
    """

    width: int
    layers: int
    heads: int
    context: int
    vocabulary: int
    relative: bool = False

    def __post_init__(self):
        sizes = dataclasses.asdict(self)
        del sizes["relative"]
        named = {f"text_{key}": n for key, n in sizes.items()}
        checks.check_counts(**named)
        if self.width % self.heads:
            raise errors.Refusal(
                f"text_heads {self.heads} does not divide text_width {self.width}: "
                "give a divisor of it"
            )

    @property
    def padding(self) -> int:
        """The token of positions without one; what stands there is not read."""
        return self.vocabulary - 1

    def condition_spec(self) -> dict[str, conditions.Spec]:
        """Return what is read of a condition; padding alone is "no condition"."""
        shape = (self.context,)
        return {
            TOKENS: conditions.Spec(shape, "int32", self.padding, self.vocabulary),
            MASK: conditions.Spec(shape, "bool", False),
        }

    def prepared_spec(self, embedding_channels: int) -> dict[str, conditions.Spec]:
        """Return the same of a condition that the encoder has been run on."""
        return {
            POSITIONS: conditions.Spec((self.context, self.width), "float32"),
            POOLED: conditions.Spec((embedding_channels,), "float32"),
        }


class TextEncoder(nnx.Module):
    """The transformer: tokens to what the U-Net reads.

    Args:
        sizes: of the text.
        embedding_channels: E, width of the timestep embedding.
        dtype: of the matrix products; sums, norms and softmax are float32.
    """

    def __init__(self, sizes: Text, embedding_channels: int, *, dtype, rngs: nnx.Rngs):
        width = sizes.width
        self.tokens = nnx.Embed(sizes.vocabulary, width, rngs=rngs)
        self.positions = nnx.Embed(sizes.context, width, rngs=rngs)
        self.padding = nnx.Embed(sizes.context, width, rngs=rngs)
        self.blocks = nnx.List(
            [
                Block(
                    width,
                    sizes.heads,
                    relative=sizes.context if sizes.relative else 0,
                    dtype=dtype,
                    rngs=rngs,
                )
                for _ in range(sizes.layers)
            ]
        )
        self.norm_out = _norm(width, rngs)
        self.embed = layers.dense(width, embedding_channels, rngs=rngs)

    def __call__(self, tokens: jax.Array, mask: jax.Array):
        """Encode texts.

        Args:
            tokens: int32 [B, L].
            mask: bool [B, L], which positions hold a token.

        Returns:
            (float32 [B, L, width] of all positions, float32 [B, E] of the last one).
        """
        embedded = self.tokens(tokens) + self.positions.embedding[...]
        h = jnp.where(mask[..., None], embedded, self.padding.embedding[...])
        for block in self.blocks:
            h = block(h)
        h = self.norm_out(h)
        return h, self.embed(h[:, -1])


class RelativeBias(nnx.Module):
    """What attention adds to q·k for the distance of two positions, head by head.

    A learned number beside a fixed one, by which heads begin at one of `LEANINGS`. Of
    absolute positions alone a small network takes long to learn which words are
    neighbours, and so which colour is of which thing.

    Args:
        heads: of the attention.
        context: L, the largest number of positions.

    Reference: Shaw et al. 2018 and Press et al. 2022 for what is added; where heads
    begin is ours.
    """

    def __init__(self, heads: int, context: int):
        self.context = context
        self.leanings = tuple(i % len(LEANINGS) for i in range(heads))
        self.relative_bias = nnx.Param(jnp.zeros((heads, 2 * context - 1)))

    def __call__(self, length: int) -> jax.Array:
        """Return what is added between `length` positions: [heads, length, length]."""
        distances = np.arange(1 - self.context, self.context)  # of key less query
        begin = np.stack([LEANINGS[i](distances) for i in self.leanings])
        both = self.relative_bias[...] + begin.astype(np.float32)
        places = np.arange(length)
        return both[:, places[None, :] - places[:, None] + self.context - 1]


class Block(nnx.Module):
    """Attention over all positions, then two dense layers; norms in front of both.

    Args:
        width: channels of a position.
        heads: of the attention.
        relative: number of positions that a `RelativeBias` is for; 0 for none.
        dtype: of the matrix products.
    """

    def __init__(
        self, width: int, heads: int, *, relative: int = 0, dtype, rngs: nnx.Rngs
    ):
        self.heads = heads
        self.distance = RelativeBias(heads, relative) if relative else None
        self.norm_1 = _norm(width, rngs)
        self.qkv = layers.dense(width, 3 * width, dtype=dtype, rngs=rngs)
        self.project = layers.dense(width, width, dtype=dtype, rngs=rngs)
        self.norm_2 = _norm(width, rngs)
        hidden = MLP_RATIO * width
        self.dense_1 = layers.dense(width, hidden, dtype=dtype, rngs=rngs)
        self.dense_2 = layers.dense(hidden, width, dtype=dtype, rngs=rngs)

    def __call__(self, h):
        qkv = self.qkv(self.norm_1(h))
        q, k, v = attention.split_qkv(qkv, heads=self.heads, order="legacy")
        bias = None if self.distance is None else self.distance(h.shape[1])
        h = h + self.project(attention.attend(q, k, v, scale="split", bias=bias))
        # The exact GELU; Flax and JAX mean its approximation by tanh unless told so.
        hidden = jax.nn.gelu(self.dense_1(self.norm_2(h)), approximate=False)
        return h + self.dense_2(hidden)


def _norm(width, rngs):
    # E[x²] − E[x]² cancels where the mean is large.
    return nnx.LayerNorm(
        width, epsilon=LAYER_NORM_EPSILON, use_fast_variance=False, rngs=rngs
    )
