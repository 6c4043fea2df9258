"""Respacing against the published rule, exact fractions and published tables (G2)."""

from fractions import Fraction

import numpy as np
import pytest
from reference import respacing as ref_respacing
from reference import schedules as ref_schedules

from ddpm_jax.core import errors
from ddpm_jax.diffusion import process, respacing, schedules

FAST27 = [
    *[0, 22, 44, 66, 88, 111, 133, 155, 177, 199, 200, 222, 244, 266, 288, 311, 333],
    *[355, 377, 399, 400, 500, 599, 600, 799, 800, 997],
]
TEN_FIFTEEN_TWENTY = [
    *[0, 11, 22, 33, 44, 55, 66, 77, 88, 99],
    *[100, 107, 114, 121, 128, 135, 142, 149, 157, 164, 171, 178, 185, 192, 199],
    *[200, 205, 210, 216, 221, 226, 231, 236, 242, 247],
    *[252, 257, 263, 268, 273, 278, 283, 289, 294, 299],
]


@pytest.mark.parametrize(
    ("num_steps", "spec", "kept"),
    [
        (1000, "ddim25", list(range(0, 961, 40))),
        (1000, "ddim250", list(range(0, 997, 4))),
        (1000, "ddim30", list(range(0, 987, 34))),
        (1000, "fast27", FAST27),
        (300, "10,15,20", TEN_FIFTEEN_TWENTY),
        (10, "3,3,2", [0, 2, 3, 4, 5, 6, 7, 9]),
        (10, "1,1", [0, 5]),
        (10, "1", [0]),
        (10, "", list(range(10))),
        (10, "10", list(range(10))),
        (10, 1, [9]),
        (1, 1, [0]),
        (1, "1", [0]),
    ],
)
def test_published_spacings(num_steps, spec, kept):
    assert list(respacing.kept_timesteps(num_steps, spec)) == kept


@pytest.mark.parametrize(
    ("num_steps", "spec", "head", "tail"),
    [
        (1000, "25", [0, 42, 83, 125, 166, 208], [874, 916, 957, 999]),
        (1000, "50", [0, 20, 41, 61, 82, 102], [938, 958, 979, 999]),
        (1000, "100", [0, 10, 20, 30, 40, 50], [969, 979, 989, 999]),
        (1000, "250", [0, 4, 8, 12, 16, 20], [987, 991, 995, 999]),
        (4000, "100", [0, 40, 81, 121, 162], [3918, 3959, 3999]),
    ],
)
def test_published_ends_of_spacings(num_steps, spec, head, tail):
    kept = list(respacing.kept_timesteps(num_steps, spec))
    assert len(kept) == int(spec)
    assert kept[: len(head)] == head
    assert kept[-len(tail) :] == tail
    assert kept == list(respacing.kept_timesteps(num_steps, int(spec)))


@pytest.mark.parametrize("num_steps", [1, 2, 3, 7, 24, 50])
def test_every_number_of_steps(num_steps):
    for count in range(1, num_steps + 1):
        kept = np.array(respacing.kept_timesteps(num_steps, count))
        assert len(kept) == count
        assert kept[-1] == num_steps - 1
        assert (np.diff(kept) > 0).all()
        if count == 1:
            continue
        assert kept[0] == 0
        assert kept.tolist() == ref_respacing.sections(num_steps, [count])
        for step, exact in zip(
            kept.tolist(), ref_respacing.exact_positions(num_steps, count), strict=True
        ):
            assert abs(step - exact) <= Fraction(1, 2)
    with pytest.raises(errors.Refusal):
        respacing.kept_timesteps(num_steps, num_steps + 1)


def test_halves_go_to_the_even_neighbour():
    # Nine intervals of 4.5: 0, 4.5, 9, 13.5, 18, … round to 4 and 14, not 5 and 13.
    kept = respacing.kept_timesteps(37, 9)
    assert kept == (0, 4, 9, 14, 18, 22, 27, 32, 36)


def test_every_published_section_rule():
    rng = np.random.default_rng(0)
    for _ in range(200):
        num_steps, parts = int(rng.integers(5, 400)), int(rng.integers(1, 5))
        base = num_steps // parts
        counts = [int(rng.integers(1, base + 1)) for _ in range(parts)]
        kept = respacing.kept_timesteps(num_steps, ",".join(map(str, counts)))
        assert list(kept) == ref_respacing.sections(num_steps, counts)


@pytest.mark.parametrize("num_steps", [10, 36, 100])
def test_every_ddim_spacing(num_steps):
    for count in range(1, num_steps + 1):
        expected = ref_respacing.ddim(num_steps, count)
        spec = f"ddim{count}"
        if expected is None:
            with pytest.raises(errors.Refusal, match=spec):
                respacing.kept_timesteps(num_steps, spec)
        else:
            assert list(respacing.kept_timesteps(num_steps, spec)) == expected


@pytest.mark.parametrize(
    ("num_steps", "spec"),
    [
        (1000, "ddim64"),
        (1000, "ddim300"),
        (1000, "ddim600"),
        (1000, "ddim999"),
        (1000, "ddim0"),
        (1000, "ddim"),
        (1000, "fast28"),
        (1000, "10,x"),
        (1000, "10,,10"),
        (1000, "-5"),
        (10, "11"),
        (10, "6,4"),
        (10, 0),
        (10, -1),
        (10, 11),
        (10, 2.0),
        (10, True),
        (10, None),
        (12, "fast27"),
    ],
)
def test_refusals(num_steps, spec):
    with pytest.raises(errors.Refusal) as caught:
        respacing.kept_timesteps(num_steps, spec)
    assert len(str(caught.value)) > 20


def test_an_impossible_ddim_names_the_nearest_possible():
    with pytest.raises(errors.Refusal) as caught:
        respacing.kept_timesteps(1000, "ddim300")
    # Strides 4 and 3 keep 250 and 334 of 1000.
    assert "ddim334" in str(caught.value) or "ddim250" in str(caught.value)


# ---- spacings ------------------------------------------------------------------------


def of_name(name, num_steps, **options):
    return process.Schedule.from_betas(schedules.make_betas(name, num_steps, **options))


SPACED = [
    ("linear", 24, {}),
    ("cosine", 50, {}),
    ("linear", 40, {"zero_terminal_snr": True}),
    ("jsd", 1, {}),
    ("jsd", 2, {}),
    ("jsd", 3, {}),
]


@pytest.mark.parametrize("spacing", respacing.SPACINGS)
@pytest.mark.parametrize(("name", "num_steps", "options"), SPACED)
def test_every_number_of_steps_has_every_spacing(name, num_steps, options, spacing):
    schedule = of_name(name, num_steps, **options)
    for count in range(1, num_steps + 1):
        kept = np.array(respacing.spaced(schedule, count, spacing))
        assert len(kept) == count
        assert kept[-1] == num_steps - 1
        assert (np.diff(kept) > 0).all()
        if count == 1:
            continue
        assert kept[0] >= 0 if spacing == "trailing" else kept[0] == 0
        assert respacing.respace(schedule, count, spacing).timesteps == tuple(kept)


@pytest.mark.parametrize(
    ("spacing", "kept"),
    [
        ("even", [0, 250, 500, 749, 999]),
        # What Lin et al. 2023 print in table 2 for five of 1,000, less one.
        ("trailing", [199, 399, 599, 799, 999]),
        ("quadratic", [0, 62, 250, 562, 999]),
    ],
)
def test_spacings_of_five_steps(spacing, kept):
    assert list(respacing.spaced(of_name("linear", 1000), 5, spacing)) == kept


@pytest.mark.parametrize("count", [3, 7, 30, 64, 333])
def test_trailing_is_the_published_rule(count):
    published = np.round(np.arange(1000, 0, -1000 / count))[:count] - 1
    kept = respacing.spaced(of_name("linear", 1000), count, "trailing")
    np.testing.assert_array_equal(kept, published[::-1])


def test_logsnr_takes_the_nearest_timesteps_to_equal_distances():
    schedule = of_name("linear", 1000)
    alpha_bar = ref_schedules.alpha_bar(ref_schedules.BY_NAME["linear"](1000))
    logsnr = np.log(alpha_bar / (1 - alpha_bar))
    targets = np.linspace(logsnr[0], logsnr[-1], 12)
    nearest = [int(np.abs(logsnr - target).argmin()) for target in targets]
    assert list(respacing.spaced(schedule, 12, "logsnr")) == nearest


def test_logsnr_without_terminal_signal_spaces_what_is_finite():
    schedule = of_name("linear", 1000, zero_terminal_snr=True)
    logsnr = np.log(schedule.alpha_bar[:-1] / (1 - schedule.alpha_bar[:-1]))
    targets = np.linspace(logsnr[0], logsnr[-1], 6)
    nearest = [int(np.abs(logsnr - target).argmin()) for target in targets]
    assert list(respacing.spaced(schedule, 7, "logsnr")) == [*nearest, 999]


def test_an_unknown_spacing_is_refused():
    with pytest.raises(errors.Refusal, match=r"'karras'.*even, trailing"):
        respacing.spaced(of_name("linear", 30), 3, "karras")


# ---- betas ---------------------------------------------------------------------------


def test_published_respaced_betas():
    schedule = process.Schedule.from_betas(schedules.make_betas("linear", 1000))
    betas = respacing.respace(schedule, "ddim25").betas
    assert betas[0] == pytest.approx(1e-4, rel=1e-9)
    assert betas[1] == pytest.approx(0.02013508946, rel=1e-9)
    assert betas[-1] == pytest.approx(0.5326018231, rel=1e-9)


@pytest.mark.parametrize("name", ["linear", "cosine", "jsd"])
@pytest.mark.parametrize("spec", [1, 2, 17, "ddim50", "fast27", "30,20,10", "1"])
def test_kept_steps_keep_their_alpha_bar(name, spec):
    schedule = process.Schedule.from_betas(
        schedules.make_betas(name, 1000), log_var_floor="1e-20", rescale_timesteps=True
    )
    short = respacing.respace(schedule, spec)
    kept = list(short.timesteps)
    whole = ref_schedules.alpha_bar(ref_schedules.BY_NAME[name](1000))
    # A β near 1 stores ᾱ with the rounding of 1: 2^-53.
    np.testing.assert_allclose(short.alpha_bar, whole[kept], rtol=1e-9, atol=2.3e-16)
    np.testing.assert_allclose(short.betas, ref_respacing.betas(whole, kept), rtol=1e-8)
    assert short.num_steps == len(kept)
    assert short.original_num_steps == 1000
    assert short.log_var_floor == "1e-20"
    assert short.rescale_timesteps


@pytest.mark.parametrize("spec", ["", 30, "30"])
def test_all_steps_is_no_respacing(spec):
    schedule = process.Schedule.from_betas(schedules.make_betas("cosine", 30))
    assert respacing.respace(schedule, spec) == schedule


def test_schedules_are_values():
    one, two = (
        process.Schedule.from_betas(schedules.make_betas("cosine", 30))
        for _ in range(2)
    )
    assert one == two
    assert hash(one) == hash(two)
    assert hash(respacing.respace(one, 5)) == hash(respacing.respace(two, 5))
    assert respacing.respace(one, 5) != one
    with pytest.raises((AttributeError, TypeError)):
        one.betas = (0.1,)


# ---- below a timestep ----------------------------------------------------------------


@pytest.mark.parametrize("spacing", respacing.SPACINGS)
def test_every_number_of_steps_below_every_timestep(spacing):
    """A chain of n steps from t takes n steps and starts at t, on the whole's ᾱ."""
    whole = process.Schedule.from_betas(schedules.make_betas("linear", 24))
    for last in range(24):
        for count in range(1, last + 2):
            kept = respacing.respace_below(whole, count, last, spacing)
            assert kept.num_steps == count
            assert kept.timesteps[-1] == last
            assert list(kept.timesteps) == sorted(set(kept.timesteps))
            assert kept.original_num_steps == 24
            expected = whole.alpha_bar[list(kept.timesteps)]
            np.testing.assert_allclose(kept.alpha_bar, expected, rtol=1e-11, atol=1e-15)


def test_all_of_the_steps_are_those_of_the_whole_to_the_bit():
    whole = process.Schedule.from_betas(schedules.make_betas("cosine", 24))
    assert respacing.respace_below(whole, 10, 9).betas == whole.betas[:10]
    assert respacing.respace_below(whole, 24, 23) == whole
    spaced = respacing.respace_below(whole, 7, 23, "logsnr")
    assert spaced == respacing.respace(whole, 7, "logsnr")
