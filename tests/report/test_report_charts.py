"""Charts: points where they belong, ticks, long lines, missing values."""

import numpy as np
import pytest
import written_runs as runs

from ddpm_jax.report import charts


def draw(*lines, **options):
    made = charts.chart(list(lines), title="Loss", **options)
    return runs.Page(made), made


def points(polyline):
    pairs = (pair.split(",") for pair in polyline["points"].split())
    return np.array([[float(left), float(top)] for left, top in pairs]).T


@pytest.mark.parametrize("log", [False, True])
def test_points_lie_in_proportion(log):
    x = np.array([0.0, 10.0, 40.0])
    y = np.array([1.0, 10.0, 1000.0])
    found, _ = draw(charts.Line("", x, y), log=log)
    left, top = points(found.all("polyline")[0])
    np.testing.assert_allclose(
        (left - left[0]) / (left[-1] - left[0]), x / 40, atol=1e-3
    )
    height = np.log10(y) if log else y
    share = (height - height[0]) / (height[-1] - height[0])
    np.testing.assert_allclose((top[0] - top) / (top[0] - top[-1]), share, atol=2e-3)
    assert np.all(np.diff(top) < 0)  # upwards
    assert left.min() >= 0
    assert left.max() <= charts.WIDTH
    assert top.min() >= 0
    assert top.max() <= charts.HEIGHT


@pytest.mark.parametrize("low", [0.3, 3e-4])
@pytest.mark.parametrize("log", [False, True])
def test_ticks_are_where_their_values_are(low, log):
    axes = charts.Axes.around(
        [(charts.Line("", [], []), np.array([0.0, 9.0]), np.array([low, 7.0]))],
        log=log,
        zero=False,
    )
    values = axes.y_ticks()
    assert 2 <= len(values) <= 8
    assert all(axes.y_range[0] <= value <= axes.y_range[1] for value in values)
    if log:
        assert {f"{value:.0e}"[0] for value in values} <= set("125")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (0.0005, "0.0005"),
        (1e-5, "10⁻⁵"),
        (2e-7, "2·10⁻⁷"),
        (-2, "−2"),
        (1000, "1k"),
        (1500, "1500"),
        (12500, "12.5k"),
        (2_000_000, "2M"),
    ],
)
def test_tick_texts(value, expected):
    assert charts.tick_text(value) == expected


def test_a_long_line_is_shown_by_means_and_says_so():
    x, y = np.arange(1000.0), np.tile([0.0, 1.0, 2.0, 3.0, 4.0], 200)
    found, _ = draw(charts.Line("", x, y))
    left, top = points(found.all("polyline")[0])
    assert len(left) == 200
    assert np.ptp(top) < 0.05  # every run of 5 has the mean 2
    (band,) = found.all("polygon")
    _, edges = points(band)
    assert len(set(edges)) == 2  # and the range 0 … 4
    assert "Means of 5 values each, and their range." in found.text


def test_a_short_line_is_shown_as_it_is():
    found, _ = draw(charts.Line("", range(200), range(200)))
    assert len(points(found.all("polyline")[0])[0]) == 200
    assert not found.all("polygon")
    assert "Means" not in found.text


def test_missing_values_are_left_out():
    y = [1.0, None, float("nan"), float("inf"), 2.0]
    found, _ = draw(charts.Line("", range(5), y))
    assert len(points(found.all("polyline")[0])[0]) == 2
    found, _ = draw(charts.Line("", range(4), [0.0, -1.0, 1.0, 2.0]), log=True)
    assert len(points(found.all("polyline")[0])[0]) == 2


def test_a_single_point_is_a_dot():
    found, _ = draw(charts.Line("", [5], [0.25]), log=True)
    assert len(found.all("circle")) == 1


def test_nothing_to_draw_is_nothing():
    assert charts.chart([charts.Line("a", [], [])], title="Loss") == ""
    assert charts.chart([charts.Line("a", [1], [None])], title="Loss") == ""


def test_constant_lines_have_axes():
    found, _ = draw(charts.Line("", [1, 2], [0.0, 0.0]))
    left, top = points(found.all("polyline")[0])
    assert np.ptp(top) == 0
    assert np.ptp(left) > 100


def test_names_do_not_collide():
    lines = [
        charts.Line(f"line {k}", [0, 1], [0, 1e-3 * k], colour=k) for k in range(5)
    ]
    found, _ = draw(*lines, charts.Line("top", [0, 1], [0, 1]))
    tops = sorted(
        float(a["y"]) for a in found.all("text") if a.get("class", "")[:5] == "label"
    )
    assert len(tops) == 6
    assert min(np.diff(tops)) >= charts.LABEL_GAP - 0.11
    assert tops[-1] <= charts.HEIGHT


def test_it_is_told_in_words():
    found, _ = draw(charts.Line("mean", [10, 20], [0.5, 0.25]), unit="bits/dim")
    assert "Loss. mean: 0.5 bits/dim at step 10, 0.25 bits/dim at step 20" in found.text


def test_the_same_numbers_give_the_same_chart():
    lines = [charts.Line("a", range(50), np.sqrt(np.arange(50)))]
    assert charts.chart(lines, title="L") == charts.chart(lines, title="L")
