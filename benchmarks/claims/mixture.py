"""Guidance where every answer is known: two classes of points in the plane.

Each class is a mixture of two round Gaussians, so that the noise to predict, the
classifier of noisy points and the law that guidance is often said to sample,
p(x)·p(c|x)^s, have closed forms. Nothing is trained; solver and guidance are those of
the package.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import keys
from ddpm_jax.diffusion import (
    guidance,
    process,
    respacing,
    reverse,
    samplers,
    schedules,
    solvers,
)
from ddpm_jax.metrics import precision
from ddpm_jax.runtime import sharding

CENTRES = np.array([[-1.1, 0.5], [-0.3, -0.7], [1.1, 0.5], [0.3, -0.7]])
DEVIATION = 0.4
CLASSES = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])  # weights of the components
ANY = np.full(4, 0.25)
ASKED = 1  # the class that points are led to
NUM_STEPS = 1000
EDGE, CELLS = 3.0, 600  # of the grid on which the law is known
NEVER = 1e-30  # weight of a component that a class lacks


def schedule() -> process.Schedule:
    """Return the whole process: the linear schedule of DDPM."""
    return process.Schedule.from_betas(schedules.make_betas("linear", NUM_STEPS))


def log_densities(x_t, alpha_bar):
    """Return the log densities of the four components after noise, up to a constant.

    Args:
        x_t: [B, 2].
        alpha_bar: [B].
    """
    alpha_bar = alpha_bar[:, None]
    var = alpha_bar * DEVIATION**2 + 1 - alpha_bar
    gaps = x_t[:, None] - jnp.sqrt(alpha_bar)[..., None] * jnp.asarray(CENTRES)
    return -jnp.sum(gaps**2, axis=-1) / (2 * var) - jnp.log(var)


def log_density(x_t, alpha_bar, weights):
    """Return the log density of x_t [B, 2] under components of weights [B, 4]."""
    of_each = log_densities(x_t, alpha_bar)
    return jax.nn.logsumexp(of_each + jnp.log(jnp.maximum(weights, NEVER)), axis=-1)


def noise_network(levels):
    """Return the exact `(x_t, t_seen, weights) → noise`, see `log_density`.

    ε = −√(1−ᾱ) ∇ log p(x_t).

    Args:
        levels: ᾱ of the whole process, [T].
    """

    def network(x_t, t_seen, weights):
        alpha_bar = jnp.asarray(levels, jnp.float32)[t_seen]
        total = lambda x: jnp.sum(log_density(x, alpha_bar, weights))  # noqa: E731
        return -jnp.sqrt(1 - alpha_bar)[:, None] * jax.grad(total)(x_t)

    return network


def led(seed: int, count: int, steps: int, scale: float, guide: str) -> np.ndarray:
    """Return points that guidance leads to the class `ASKED`, [count, 2].

    Args:
        seed: of x_T.
        count: of points.
        steps: of DDIM.
        scale: of the guidance.
        guide: "free" (classifier-free) or "classifier".
    """
    whole = schedule()
    tables = process.tables(respacing.respace(whole, steps))
    network = noise_network(whole.alpha_bar)
    any_class, asked = (
        jnp.broadcast_to(jnp.asarray(w, jnp.float32), (count, 4))
        for w in (ANY, CLASSES[ASKED])
    )
    transforms = ()
    if guide == "free":
        plain = guidance.classifier_free(network, asked, any_class, scale=scale)
    else:
        plain = functools.partial(network, weights=any_class)

        def log_prob(x_t, t_seen):
            level = jnp.asarray(whole.alpha_bar, jnp.float32)[t_seen]
            both = log_density(x_t, level, asked), log_density(x_t, level, any_class)
            return both[0] - both[1]  # but for log p(c), which has no gradient

        transforms = (guidance.classifier(tables, log_prob, scale, form="score"),)
    denoise = reverse.denoiser(
        tables, plain, prediction="noise", variance="fixed_small"
    )
    key = keys.key_for(seed, "claims/mixture")
    made = samplers.sample(
        tables,
        denoise,
        step=solvers.ddim(eta=0.0),
        x_T=keys.normal(key, (count, 2)),
        noise_fn=lambda position: jnp.zeros((count, 2)),  # η = 0 uses none
        prediction_transforms=transforms,
    )
    return np.asarray(made.x_0, np.float64)


def grid() -> np.ndarray:
    """Return the centres of the cells, [CELLS, CELLS, 2]: (x, y)."""
    edges = np.linspace(-EDGE, EDGE, CELLS + 1)
    middle = (edges[1:] + edges[:-1]) / 2
    return np.stack(np.meshgrid(middle, middle), axis=-1)


def tilted(scale: float) -> np.ndarray:
    """Return p(x)·p(c|x)^s of each cell of `grid`, summing to 1; s = 1 is p(x|c)."""
    squares = np.sum((grid()[:, :, None] - CENTRES) ** 2, axis=-1)
    components = np.exp(-squares / (2 * DEVIATION**2))
    whole, own = components @ ANY, components @ CLASSES[ASKED]
    law = whole * (own / np.maximum(whole, NEVER)) ** scale
    return law / law.sum()


def exact(seed: int, count: int, scale: float) -> np.ndarray:
    """Return points of the tilted law, [count, 2]: a cell, and a place in it."""
    random = np.random.default_rng((seed, 7))
    chosen = random.choice(CELLS**2, size=count, p=tilted(scale).reshape(-1))
    place = random.uniform(-0.5, 0.5, (count, 2)) * (2 * EDGE / CELLS)
    return grid().reshape(-1, 2)[chosen] + place


def energy_distance(one: np.ndarray, other: np.ndarray) -> float:
    """Return 2 E|x−y| − E|x−x′| − E|y−y′| of two sets, without bias.

    Reference: Székely & Rizzo 2013, eq. 1; pairs of a point with itself left out.
    """

    def mean_gap(a, b, pairs):
        gaps = np.sqrt(np.sum((a[:, None] - b[None]) ** 2, axis=-1))
        return gaps.sum() / pairs

    n, m = len(one), len(other)
    across = mean_gap(one, other, n * m)
    within = mean_gap(one, one, n * (n - 1)), mean_gap(other, other, m * (m - 1))
    return float(2 * across - sum(within))


def laws(seed: int, *, count: int, steps: int, scale: float) -> dict:
    """Return how led points and the tilted law differ, for one scale.

    Args:
        seed: of the points.
        count: of each set.
        steps: of DDIM.
        scale: of the guidance.
    """
    free = led(seed, count, steps, scale, "free")
    by_classifier = led(seed, count, steps, scale, "classifier")
    law = exact(seed, count, scale)
    return {
        "distance": energy_distance(free, law),
        "distance of exact sets": energy_distance(law, exact(seed + 100, count, scale)),
        "spread": float(np.sqrt(free.var(axis=0).sum() / law.var(axis=0).sum())),
        "difference of guides": float(np.abs(free - by_classifier).max()),
    }


def trade(seed: int, *, count: int, steps: int, scale: float) -> dict:
    """Return precision and recall (k = 3) of led points against those of the class.

    Args:
        seed: of the points.
        count: of each set.
        steps: of DDIM.
        scale: of the classifier.
    """
    made = led(seed, count, steps, scale, "classifier")
    real = exact(seed + 200, count, 1.0)
    found = precision.precision_recall(real, made, mesh=sharding.make_mesh(-1, 1))
    return {"precision": found.precision, "recall": found.recall}
