"""The forward process q: its tables, its marginals, its posterior, its conversions.

    q(x_t | x_{t−1}) = N(√(1−β_t) x_{t−1}, β_t I)                     DDPM eq. 2
    q(x_t | x_0)     = N(√ᾱ_t x_0, (1−ᾱ_t) I),  ᾱ_t = Π_{s≤t}(1−β_s)  DDPM eq. 4
    q(x_{t−1} | x_t, x_0) = N(μ̃_t(x_t, x_0), β̃_t I)                   DDPM eq. 6, 7

Everything is derived in float64 NumPy from β and cast to float32 once: differences of
nearly equal numbers, such as 1−ᾱ, never happen in float32. t is zero-based, ᾱ_{−1} = 1.
Arrays may have any rank: the batch is the first axis, values per example are [B].
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from ddpm_jax.core import arrays, errors
from ddpm_jax.core import keys as keys_lib
from ddpm_jax.diffusion import schedules

LOG_VAR_FLOORS = ("next", "1e-20")
LOG_OF_ZERO = -1e4  # e^−10⁴ and its root are 0 in float32 and in float64


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """What a Gaussian process draws: standard normal noise, and x_T of the same law.

    Training and sampling draw through this value alone, so that a process of another
    kind brings its own draws.
    """

    def noise(self, key, shape, dtype=jnp.float32) -> jax.Array:
        """Return the noise of a batch, of `shape` [B, ...], from one key."""
        return keys_lib.normal(key, shape, dtype)

    def noise_each(self, keys, shape) -> jax.Array:
        """Return noise [B, *shape], example i from keys[i]."""
        return keys_lib.normal_each(keys, shape)

    def x_T_each(self, keys, shape) -> jax.Array:
        """Return x_T [B, *shape], where a chain starts, example i from keys[i]."""
        return keys_lib.normal_each(keys, shape)


GAUSSIAN = Gaussian()


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A forward process on the host: exact, immutable and hashable.

    Attributes:
        betas: β_t, one per kept step.
        timesteps: the original timestep of each kept step, which the network sees.
        original_num_steps: T of the process that the network was trained on.
        rescale_timesteps: whether the network sees t·1000/T as a float.
        log_var_floor: how log β̃_0 = log 0 is avoided: "next" puts entry 1 in its
            place (the OpenAI code and DDPM's CIFAR-10 file), "1e-20" clips β̃ there
            (DDPM's 256×256 file).
    """

    betas: tuple[float, ...]
    timesteps: tuple[int, ...]
    original_num_steps: int
    rescale_timesteps: bool = False
    log_var_floor: str = "next"

    def __post_init__(self):
        schedules.check_betas(np.asarray(self.betas))
        if self.log_var_floor not in LOG_VAR_FLOORS:
            raise errors.Refusal(
                f"unknown log_var_floor {self.log_var_floor!r}: choose one of "
                + ", ".join(LOG_VAR_FLOORS)
            )

    @classmethod
    def from_betas(cls, betas, *, rescale_timesteps=False, log_var_floor="next"):
        """Return the unrespaced process of `betas` [T]."""
        values = tuple(float(beta) for beta in np.asarray(betas, np.float64))
        return cls(
            betas=values,
            timesteps=tuple(range(len(values))),
            original_num_steps=len(values),
            rescale_timesteps=rescale_timesteps,
            log_var_floor=log_var_floor,
        )

    @property
    def num_steps(self) -> int:
        """T′, the number of kept steps."""
        return len(self.betas)

    @property
    def alpha_bar(self) -> np.ndarray:
        """ᾱ_t, float64 [T′]."""
        return np.cumprod(1 - np.asarray(self.betas))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "alpha_bar",
        "one_minus_alpha_bar",
        "log_alpha_bar",
        "sqrt_alpha_bar",
        "sqrt_one_minus_alpha_bar",
        "log_one_minus_alpha_bar",
        "snr",
        "log_beta",
        "posterior_mean_x_0",
        "posterior_mean_x_t",
        "posterior_variance",
        "posterior_log_var",
        "fixed_large_variance",
        "fixed_large_log_var",
        "timesteps_seen",
    ],
    meta_fields=["schedule"],
)
@dataclasses.dataclass(frozen=True, eq=False)
class Tables:
    """The process on the device: float32 [T′] arrays, gathered at t.

    `posterior_log_var` is the clipped log β̃; `fixed_large_*` is β with entry 0 replaced
    by β̃_1 (DDPM's code: a better likelihood of the decoder). `snr` is ᾱ/(1−ᾱ).
    `timesteps_seen` is what the network sees. `schedule` is the exact source, None in
    `padded_tables`.
    """

    alpha_bar: jax.Array
    one_minus_alpha_bar: jax.Array
    log_alpha_bar: jax.Array
    sqrt_alpha_bar: jax.Array
    sqrt_one_minus_alpha_bar: jax.Array
    log_one_minus_alpha_bar: jax.Array
    snr: jax.Array
    log_beta: jax.Array
    posterior_mean_x_0: jax.Array
    posterior_mean_x_t: jax.Array
    posterior_variance: jax.Array
    posterior_log_var: jax.Array
    fixed_large_variance: jax.Array
    fixed_large_log_var: jax.Array
    timesteps_seen: jax.Array
    schedule: Schedule | None

    @property
    def num_steps(self) -> int:
        """T′, the number of kept steps."""
        return self.schedule.num_steps


def tables(schedule: Schedule) -> Tables:
    """Derive every table of a process in float64 and cast it to float32 once."""
    on_host = padded_tables(schedule, schedule.num_steps)
    return dataclasses.replace(
        jax.tree.map(arrays.on_device, on_host), schedule=schedule
    )


def padded_tables(schedule: Schedule, length: int) -> Tables:
    """Return the tables as host arrays of one length, whatever the number of steps.

    A program that is compiled for them runs any respacing of a process: the entries
    from T′ on repeat the last one and are never read. There is no `schedule` in them,
    which a compiled program must not depend on.

    Args:
        schedule: the process, respaced or not.
        length: of the tables, at least T′.
    """
    beta = np.asarray(schedule.betas)
    alpha_bar = schedule.alpha_bar
    previous = np.append(1.0, alpha_bar[:-1])
    one_minus = 1 - alpha_bar
    posterior_variance = beta * (1 - previous) / one_minus  # DDPM eq. 7
    first = 1 if schedule.num_steps > 1 else None
    large = beta.copy()
    if first is not None:
        large[0] = posterior_variance[first]
    # A finite number where ᾱ = 0, for jax_debug_infs: its exponential is 0 as well.
    none_left = alpha_bar == 0
    log_alpha_bar = np.where(
        none_left, LOG_OF_ZERO, np.log(np.where(none_left, 1.0, alpha_bar))
    )

    def padded(values):
        return np.pad(values, (0, length - len(values)), mode="edge")

    def float32(values):
        return padded(np.asarray(values, np.float32))

    return Tables(
        alpha_bar=float32(alpha_bar),
        one_minus_alpha_bar=float32(one_minus),
        log_alpha_bar=float32(log_alpha_bar),
        sqrt_alpha_bar=float32(np.sqrt(alpha_bar)),
        sqrt_one_minus_alpha_bar=float32(np.sqrt(one_minus)),
        log_one_minus_alpha_bar=float32(np.log(one_minus)),
        snr=float32(alpha_bar / one_minus),
        log_beta=float32(np.log(beta)),
        posterior_mean_x_0=float32(beta * np.sqrt(previous) / one_minus),
        posterior_mean_x_t=float32((1 - previous) * np.sqrt(1 - beta) / one_minus),
        posterior_variance=float32(posterior_variance),
        posterior_log_var=float32(_clipped_log(posterior_variance, schedule)),
        fixed_large_variance=float32(large),
        fixed_large_log_var=float32(np.log(large)),
        timesteps_seen=padded(_timesteps_seen(schedule)),
        schedule=None,
    )


def _clipped_log(posterior_variance, schedule):
    """Return log β̃ without the log of β̃_0 = 0."""
    if schedule.log_var_floor == "1e-20":
        return np.log(np.maximum(posterior_variance, 1e-20))
    if schedule.num_steps == 1:  # there is no entry 1: entry 0's β stands in
        return np.log(np.asarray(schedule.betas))
    return np.log(np.append(posterior_variance[1], posterior_variance[1:]))


def _timesteps_seen(schedule):
    kept = np.asarray(schedule.timesteps)
    if schedule.rescale_timesteps:
        return (kept * 1000.0 / schedule.original_num_steps).astype(np.float32)
    return kept.astype(np.int32)


def at(table: jax.Array, t: jax.Array, like: jax.Array) -> jax.Array:
    """Gather `table` [T′] at `t` [B] and shape it to broadcast against `like`.

    Raises:
        Refusal: see `check_steps`.
    """
    check_steps(t, table.shape[0], like)
    return arrays.expand_to(table[t], like)


def marginal(tables: Tables, t: jax.Array, like: jax.Array):
    """Return √ᾱ and 1−ᾱ at t, with ᾱ = 1 at −1 (never index −1)."""
    at_end = t < 0
    index = jnp.maximum(t, 0)
    sqrt_alpha_bar = jnp.where(at_end, 1.0, tables.sqrt_alpha_bar[index])
    one_minus = jnp.where(at_end, 0.0, tables.one_minus_alpha_bar[index])
    return arrays.expand_to(sqrt_alpha_bar, like), arrays.expand_to(one_minus, like)


def seen(tables, t, like) -> jax.Array:
    """Return t [B] as the network is to see it, for examples `like` [B, ...]."""
    check_steps(t, tables.timesteps_seen.shape[0], like)
    return tables.timesteps_seen[t]


def check_steps(t, num_steps: int, like) -> None:
    """Refuse t that are no steps of the process: JAX would take other ones for them.

    Values are checked outside of compiled programs alone, type and shape always.

    Args:
        t: int [B], or one for all examples.
        num_steps: T′.
        like: [B, ...], the examples.

    Raises:
        Refusal: another type or shape, or steps beyond 0 … T′−1.
    """
    if not jnp.issubdtype(jnp.result_type(t), jnp.integer):
        raise errors.Refusal(
            f"t of type {jnp.result_type(t)}: give whole numbers, int32, steps of the "
            f"process from 0 to {num_steps - 1}"
        )
    rows = np.shape(like)[:1]
    if np.shape(t) not in ((), (1,), rows):
        raise errors.Refusal(
            f"t of shape {list(np.shape(t))} with examples {list(np.shape(like))}: "
            f"give one t for all, or one for each example, shape {list(rows)}"
        )
    values = arrays.known(t)
    if values is None or not np.any((values < 0) | (values >= num_steps)):
        return
    wrong = values[(values < 0) | (values >= num_steps)].flat[0]
    raise errors.Refusal(
        f"t = {wrong} with a process of {num_steps} steps: choose 0 … {num_steps - 1}, "
        "for t counts from zero"
    )


def check_floats(name: str, values) -> None:
    """Refuse whole numbers where a state or data is wanted.

    Args:
        name: of the argument.
        values: any array.

    Raises:
        Refusal: names the conversion.
    """
    dtype = jnp.result_type(values)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise errors.Refusal(
            f"{name} of type {dtype}: give floating-point numbers, such as float32 "
            "x / 127.5 − 1 of 8-bit images x"
        )


def q_mean_variance(tables: Tables, x_0, t):
    """Return mean, variance and log-variance of q(x_t | x_0) (DDPM eq. 4).

    Args:
        x_0: [B, ...]; t: [B] int32.

    Returns:
        mean [B, ...]; variance and log-variance [B, 1, ...], broadcasting.
    """
    check_floats("x_0", x_0)
    return (
        at(tables.sqrt_alpha_bar, t, x_0) * x_0,
        at(tables.one_minus_alpha_bar, t, x_0),
        at(tables.log_one_minus_alpha_bar, t, x_0),
    )


def q_sample(tables: Tables, x_0, t, noise):
    """Return x_t = √ᾱ_t x_0 + √(1−ᾱ_t) ε, a draw of q(x_t | x_0) (DDPM eq. 4)."""
    check_floats("x_0", x_0)
    signal = at(tables.sqrt_alpha_bar, t, x_0) * x_0
    return signal + at(tables.sqrt_one_minus_alpha_bar, t, x_0) * noise


def q_posterior_mean(tables: Tables, x_0, x_t, t):
    """Return μ̃_t(x_t, x_0), the mean of q(x_{t−1} | x_t, x_0) (DDPM eq. 7)."""
    return (
        at(tables.posterior_mean_x_0, t, x_t) * x_0
        + at(tables.posterior_mean_x_t, t, x_t) * x_t
    )


def q_posterior(tables: Tables, x_0, x_t, t):
    """Return mean and clipped log-variance of q(x_{t−1} | x_t, x_0) (DDPM eq. 6, 7)."""
    log_var = at(tables.posterior_log_var, t, x_t)
    return q_posterior_mean(tables, x_0, x_t, t), jnp.broadcast_to(log_var, x_t.shape)


def x_0_from_noise(tables: Tables, x_t, t, noise):
    """Return x_0 = (x_t − √(1−ᾱ) ε)/√ᾱ (DDPM eq. 15); undefined where ᾱ = 0."""
    rest = x_t - at(tables.sqrt_one_minus_alpha_bar, t, x_t) * noise
    return rest / at(tables.sqrt_alpha_bar, t, x_t)


def noise_from_x_0(tables: Tables, x_t, t, x_0):
    """Return ε = (x_t − √ᾱ x_0)/√(1−ᾱ), defined where ᾱ = 0 too."""
    rest = x_t - at(tables.sqrt_alpha_bar, t, x_t) * x_0
    return rest / at(tables.sqrt_one_minus_alpha_bar, t, x_t)


def x_0_from_x_prev(tables: Tables, x_t, t, x_prev):
    """Return the x_0 whose posterior mean is `x_prev` (DDPM eq. 7 solved for x_0)."""
    rest = x_prev - at(tables.posterior_mean_x_t, t, x_t) * x_t
    return rest / at(tables.posterior_mean_x_0, t, x_t)


def x_0_from_v(tables: Tables, x_t, t, v):
    """Return x_0 = √ᾱ x_t − √(1−ᾱ) v (Salimans & Ho 2022, appendix D)."""
    signal = at(tables.sqrt_alpha_bar, t, x_t) * x_t
    return signal - at(tables.sqrt_one_minus_alpha_bar, t, x_t) * v


def v_from_x_0_and_noise(tables: Tables, x_0, t, noise):
    """Return v = √ᾱ ε − √(1−ᾱ) x_0 (Salimans & Ho 2022, section 4)."""
    signal = at(tables.sqrt_alpha_bar, t, x_0) * noise
    return signal - at(tables.sqrt_one_minus_alpha_bar, t, x_0) * x_0
