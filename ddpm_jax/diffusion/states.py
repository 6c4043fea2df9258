"""Between the data of a source, in [−1, 1], and the states of a chain.

Gaussian chains want mean 0 and variance 1, and continuous values: grey values get
uniform noise of the width of a level (their density then bounds their probability).
Binomial chains want zeros and ones.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class States:
    """A way there and back.

    Attributes:
        mean: of the data, in its own units.
        std: of the data; the state is (x − mean)/std.
        width: of uniform noise, in units of the data; 0 for continuous data.
        binary: whether states are bits, 1 for data above 0; nothing else is read then.
    """

    mean: float = 0.0
    std: float = 1.0
    width: float = 0.0
    binary: bool = False

    def encode(self, data, uniform) -> jax.Array:
        """Return states of data.

        Args:
            data: [B, ...].
            uniform: numbers in [0, 1) of the same shape; not read where width is 0.
        """
        if self.binary:
            return (data > 0).astype(jnp.float32)
        if self.width:
            data = data + self.width * (uniform - 0.5)
        return (data - self.mean) / self.std

    def decode(self, states) -> jax.Array:
        """Return data of states."""
        return 2 * states - 1 if self.binary else self.std * states + self.mean
