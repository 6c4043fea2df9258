"""One image forward and back: x_t, and what the network says of it at any t.

The noise is that of image 0 of a seed, as --mode=vary draws it: the way back from t is
a variation with the strength (t + 1)/T, which begins at the x_t that is shown. That is
so up to t = T − 2: strength 1 begins at noise alone.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.builders import process as build_process
from ddpm_jax.builders import sampling as build_sampling
from ddpm_jax.core import flags
from ddpm_jax.diffusion import process, reverse
from ddpm_jax.report import charts
from ddpm_jax.sampling import sampler

FORMULAS = """
<div class="dj-formula">
<p>Forward, in one step: x<sub>t</sub> = √ᾱ<sub>t</sub> x<sub>0</sub> +
√(1 − ᾱ<sub>t</sub>) ε, with ε ~ N(0, I). (DDPM, eq. 4)</p>
<p>The network sees x<sub>t</sub> and t alone. Its estimates of image and noise,
x̂<sub>0</sub> and ε̂, are two ways to say the same:
x<sub>t</sub> = √ᾱ<sub>t</sub> x̂<sub>0</sub> + √(1 − ᾱ<sub>t</sub>) ε̂.</p>
<p>Back, a step at a time: x<sub>t−1</sub> is drawn from
q(x<sub>t−1</sub> | x<sub>t</sub>, x̂<sub>0</sub>), a Gaussian between the two. (DDPM,
eq. 6)</p></div>
"""


class Seen(NamedTuple):
    """An image at a timestep, float32 [H, W, C] each.

    Attributes:
        x_t: the noised image.
        x_0: what the network takes it for.
        noise: that it takes for the noise.
        alpha_bar: ᾱ_t.
    """

    x_t: np.ndarray
    x_0: np.ndarray
    noise: np.ndarray
    alpha_bar: float


def last_of(num_steps: int) -> int:
    """Return the last t, of T steps, from which the way back begins at x_t."""
    return num_steps - 2


class Explainer:
    """Looks at images of a run at any timestep, with one program."""

    def __init__(self, player):
        config, opened = player.config, player.opened
        self._player = player
        hooks = build_sampling.recipe(config, player.facts).make_hooks()
        self.schedule = build_process.schedule(config)
        network, specs = opened.trained.network, opened.trained.network.condition_spec
        with flags.as_program():
            tables = process.tables(self.schedule)

        def look(params, x_0, t, noise, condition):
            x_t = process.q_sample(tables, x_0, t, noise)
            ready = network.prepare(params, condition)
            denoise = reverse.denoiser(
                tables,
                lambda x, t_seen: network.apply(params, x, t_seen, ready),
                prediction=config.diffusion.prediction,
                variance=config.diffusion.variance,
                x_0_hooks=hooks,
            )
            found = denoise(x_t, t)
            return x_t[0], found.x_0[0], found.noise[0]

        shape = player.facts.shape
        self._look, self._specs = jax.jit(look), specs
        self._draw = jax.jit(
            lambda inputs, index: sampler.first_state(inputs, index, shape)
        )

    def at(self, x_0: np.ndarray, t: int, *, seed: int = 0, label: int | None = None):
        """Return a `Seen`.

        Args:
            x_0: float32 [H, W, C].
            t: 0 … T−1.
            seed: of the noise.
            label: index of the class that the network is told; None for no class.
        """
        noise = self.noise(seed)
        condition = {}
        for key, spec in self._specs.items():
            value = spec.none if label is None or key != "label" else label
            shape = (1, *spec.shape)
            condition[key] = np.broadcast_to(np.asarray(value, spec.dtype), shape)
        with flags.as_program():
            params = self._player.opened.weights.params
            given = jnp.asarray(x_0)[None], jnp.asarray([t], jnp.int32), noise
            x_t, estimate, found = self._look(params, *given, condition)
        alpha_bar = float(self.schedule.alpha_bar[t])
        return Seen(*(np.asarray(a) for a in (x_t, estimate, found)), alpha_bar)

    def noise(self, seed: int) -> np.ndarray:
        """Return ε of image 0 of a seed, float32 [1, H, W, C]."""
        inputs = {"seed": np.uint32(seed), "settings": {}}
        with flags.as_program():
            return np.asarray(self._draw(inputs, np.zeros(1, np.int32)))

    def forward(self, x_0: np.ndarray, times, *, seed: int = 0) -> np.ndarray:
        """Return x_t of an image at several t, float32 [n, H, W, C]."""
        alpha_bar = self.schedule.alpha_bar[np.asarray(times)].reshape(-1, 1, 1, 1)
        mixed = np.sqrt(alpha_bar) * x_0 + np.sqrt(1 - alpha_bar) * self.noise(seed)
        return mixed.astype(np.float32)


def drawn(schedule: process.Schedule, t: int) -> str:
    """Return the shares of image and noise by t, and where t is, as a chart."""
    alpha_bar = schedule.alpha_bar
    steps = np.arange(len(alpha_bar))
    lines = [
        charts.Line("√ᾱ, image", steps, np.sqrt(alpha_bar), 0),
        charts.Line("√(1−ᾱ), noise", steps, np.sqrt(1 - alpha_bar), 1),
        charts.Line("", [t, t], [0, 1], 2, dashed=True),
    ]
    found = charts.chart(lines, title="Shares of image and noise", x_label="t")
    return f'<div class="dj-chart">{found}</div>'
