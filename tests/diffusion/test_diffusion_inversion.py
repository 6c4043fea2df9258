"""Inversion: chains that return the image they were made from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from chains import make_denoiser, make_tables, normals
from editing_stand_ins import IMAGE, image_network

from ddpm_jax.core import errors
from ddpm_jax.diffusion import inversion, process, reverse, samplers

X_0 = np.clip(normals(7, *IMAGE, seed=8) / 2, -1, 1)


def wide_network(x_t, t_seen):
    """A noise prediction and a variance that depend on the image."""
    noise = jnp.tanh(x_t + 0.3 * jnp.roll(x_t, 1, axis=1))
    return jnp.concatenate([noise, jnp.sin(3 * x_t)], axis=-1)


def noisy_denoiser(tables):
    return reverse.denoiser(
        tables,
        wide_network,
        prediction="noise",
        variance="learned_range",
        x_0_hooks=(reverse.clipping(),),
    )


def noises(count, seed=2):
    draws = jnp.asarray(normals(count, *X_0.shape, seed=seed))
    return lambda position: draws[position]


def replayed(tables, denoise, maps, *, step, path, residual=None):
    residual = maps.residual if residual is None else residual
    chain = jax.jit(
        lambda maps: (
            samplers.sample(
                tables,
                denoise,
                step=step,
                x_T=maps.x_start,
                noise_fn=lambda position: maps.noise[position],
                step_transforms=(inversion.with_residual(residual),),
                transform_noise_fn=lambda position: None,
                path=path,
            ).x
        )
    )
    return chain(maps)


@pytest.mark.parametrize("step", [samplers.ancestral(), samplers.ddim(0.3)])
@pytest.mark.parametrize("start", [99, 40, 0])
def test_the_chain_returns_the_image(step, start):
    tables = make_tables("linear", 1000, 100)
    denoise = noisy_denoiser(tables)
    path = samplers.sampling_path(start + 1)
    maps = inversion.noise_maps(
        tables, denoise, X_0, step=step, noise_fn=noises(start + 2), path=path
    )
    back = replayed(tables, denoise, maps, step=step, path=path)
    np.testing.assert_allclose(back, X_0, atol=1e-5)


def test_the_chain_goes_through_draws_of_q():
    tables = make_tables("cosine", 30)
    denoise, draw = make_denoiser(tables, image_network), noises(31)
    step, path = samplers.ancestral(), samplers.sampling_path(30)
    maps = inversion.noise_maps(tables, denoise, X_0, step=step, noise_fn=draw)
    made = samplers.sample(
        tables,
        denoise,
        step=step,
        x_T=maps.x_start,
        noise_fn=lambda position: maps.noise[position],
        trajectory=range(30),
    )
    for position, (_, t_next, _) in enumerate(path[:-1]):
        t = jnp.full(7, t_next)
        drawn = process.q_sample(tables, X_0, t, draw(position + 1))
        np.testing.assert_allclose(made.trajectory[position], drawn, atol=1e-5)
    t = jnp.full(7, 29)
    drawn = process.q_sample(tables, X_0, t, draw(0))
    np.testing.assert_array_equal(maps.x_start, drawn)
    np.testing.assert_allclose(made.x + maps.residual, X_0, atol=1e-6)


def test_noise_maps_in_closed_form():
    """z = (x_{t−1} − μ̂)/σ of algorithm 1, in float64 for a step of x̂_0 = 0."""
    tables = make_tables("cosine", 4)
    denoise = make_denoiser(tables, lambda x_t, t_seen: jnp.zeros_like(x_t))
    draw = noises(5)
    maps = inversion.noise_maps(
        tables, denoise, X_0, step=samplers.ancestral(), noise_fn=draw
    )
    alpha_bar = tables.schedule.alpha_bar
    states = [
        np.sqrt(alpha_bar[t]) * X_0 + np.sqrt(1 - alpha_bar[t]) * np.float64(draw(k))
        for k, t in enumerate((3, 2, 1, 0))
    ]
    for k, t in enumerate((3, 2, 1)):
        ratio = alpha_bar[t] / alpha_bar[t - 1]
        left = (1 - alpha_bar[t - 1]) / (1 - alpha_bar[t])
        mean = np.sqrt(ratio) * left * states[k]
        noise = (states[k + 1] - mean) / np.sqrt(left * (1 - ratio))
        np.testing.assert_allclose(maps.noise[k], noise, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(maps.noise[3], 0.0)
    np.testing.assert_allclose(maps.residual, X_0, atol=1e-6)


def test_image_i_alone_is_image_i_of_seven():
    tables = make_tables("linear", 1000, 20)
    denoise, draw = noisy_denoiser(tables), noises(21)
    options = {"step": samplers.ancestral()}
    whole = inversion.noise_maps(tables, denoise, X_0, noise_fn=draw, **options)
    alone = inversion.noise_maps(
        tables, denoise, X_0[4:5], noise_fn=lambda k: draw(k)[4:5], **options
    )
    np.testing.assert_allclose(alone.noise, whole.noise[:, 4:5], atol=1e-4)


# ---- decoding ------------------------------------------------------------------------


def test_decoding_is_encoding_backwards():
    path = inversion.decoding_path(20)
    assert [(t_next, t, kind) for t, t_next, kind in reversed(path)] == list(
        samplers.encoding_path(20)
    )
    assert path == inversion.decoding_path(20, samplers.ddim(0.0))
    samplers.check(20, make_denoiser(make_tables()), samplers.ddim(0.0), path)


def test_the_last_denoising_was_never_encoded():
    """Where DDIM is exact, decoding returns the image, and the whole chain does not."""
    tables = make_tables("linear", 1000, 100)
    direction = jnp.asarray(normals(*X_0.shape, seed=4))
    denoise = make_denoiser(tables, lambda x_t, t: direction, prediction="noise")

    def chain(x, step, path):
        return samplers.sample(
            tables, denoise, step=step, x_T=x, noise_fn=lambda k: None, path=path
        ).x

    latent = chain(X_0, samplers.reverse_ddim(), samplers.encoding_path(100))
    ddim = samplers.ddim(0.0)
    decoded = chain(latent, ddim, inversion.decoding_path(100))
    np.testing.assert_allclose(decoded, X_0, atol=1e-3)
    whole = chain(latent, ddim, samplers.sampling_path(100))
    first = tables.schedule.alpha_bar[0]
    further = (X_0 - np.sqrt(1 - first) * direction) / np.sqrt(first)
    np.testing.assert_allclose(whole, further, atol=1e-3)
    assert np.abs(whole - X_0).max() > 1e-2


# ---- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"step": samplers.ddim(0.0)}, "eta 0, .*choose eta up to 1"),
        ({"path": ((3, 2, "step"),)}, "ends at t = 2: end it at −1"),
        ({"path": ((2, 3, "renoise"), (3, 2, "step"))}, "other entries than 'step'"),
        ({"step": samplers.reverse_ddim()}, "reverse_ddim|ends at t"),
    ],
)
def test_chains_whose_noise_is_not_known_are_refused(options, message):
    tables = make_tables("cosine", 10)
    options = {"step": samplers.ancestral(), **options}
    with pytest.raises(errors.Refusal, match=message):
        inversion.noise_maps(
            tables, make_denoiser(tables), X_0, noise_fn=noises(11), **options
        )


def test_one_step_is_not_encoded():
    with pytest.raises(errors.Refusal, match="at least 2"):
        inversion.decoding_path(1)


def test_noise_maps_know_which_entries_are_guided():
    tables = make_tables("linear", 1000, 20)
    denoise = noisy_denoiser(tables)
    plain = reverse.denoiser(
        tables, image_network, prediction="noise", variance="fixed_small"
    )
    step = samplers.ancestral()
    path = tuple((t, n, k, t > 8) for t, n, k in samplers.sampling_path(20))
    maps = inversion.noise_maps(
        tables,
        denoise,
        X_0,
        step=step,
        noise_fn=noises(21),
        path=path,
        plain=plain,
    )
    chain = samplers.sample(
        tables,
        denoise,
        plain=plain,
        step=step,
        x_T=maps.x_start,
        noise_fn=lambda position: maps.noise[position],
        step_transforms=(inversion.with_residual(maps.residual),),
        transform_noise_fn=lambda position: None,
        path=path,
    )
    np.testing.assert_allclose(chain.x, X_0, atol=1e-5)
