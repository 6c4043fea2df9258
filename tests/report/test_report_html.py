"""The skeleton of pages: escaping, numbers, tables, the policy of the document."""

import base64
import hashlib
import re

import pytest
import written_runs as runs

from ddpm_jax.report import html


def test_text_and_attributes_are_escaped():
    made = html.tag("p", "a<b>&\"'", title='"><script>', class_="x")
    found = runs.Page(made)
    assert found.elements == [("p", {"title": '"><script>', "class": "x"})]
    assert found.text == "a<b>&\"'"


def test_markup_is_kept_and_nothing_else_counts_as_markup():
    inner = html.tag("b", "<")
    assert html.tag("p", inner, [inner, "<"], None) == (
        "<p><b>&lt;</b><b>&lt;</b>&lt;</p>"
    )
    assert html.tag("p", str(inner) + "") == "<p>&lt;b&gt;&amp;lt;&lt;/b&gt;</p>"


def test_attributes_may_be_left_out_or_have_no_value():
    assert html.tag("img", alt="", src=None, hidden=True, x=False) == (
        '<img alt="" hidden>'
    )
    assert html.tag("path", d="M0") == '<path d="M0"/>'


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, "0"),
        (0.0, "0"),
        (1200, "1,200"),
        (-3, "−3"),
        (0.031234, "0.03123"),
        (2.5, "2.5"),
        (12345.678, "12,346"),
        (-0.25, "−0.25"),
        (4.1e-7, "4.1·10⁻⁷"),
        (1e-4, "0.0001"),
        (3.25e9, "3.25·10⁹"),
    ],
)
def test_numbers_are_short(value, expected):
    assert html.short(value) == expected


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_number_that_is_missing_is_a_dash(value):
    assert runs.Page(html.number(value)).text == "–"


def test_a_number_holds_the_whole_one_for_machines():
    found = runs.Page(html.number(0.123456789, "%"))
    assert found.elements == [("data", {"value": "0.123456789"})]
    assert found.text == "0.1235 %"


@pytest.mark.parametrize(
    ("value", "error", "expected"),
    [
        (2.35211, 0.02582, "2.352 ± 0.026 m"),
        (1234.5, 12.0, "1234 ± 12 m"),
        (0.5, 1e-4, "0.50000 ± 0.00010 m"),
        (0.5, 0.0, "0.5000 ± 0.0000 m"),
    ],
)
def test_a_measured_value_has_two_digits_of_its_error(value, error, expected):
    assert runs.Page(html.measured(value, error, "m")).text == expected


def test_a_column_of_numbers_is_set_to_the_right():
    made = html.table(["name", "size", "kind"], [["a", 1, "x"], ["b", None, 2]])
    found = runs.Page(made)
    assert [cell.get("class") for cell in found.all("td")] == ["number", None] * 2
    heads = found.all("th")
    assert [head.get("class") for head in heads[:3]] == [None, "number", None]
    assert [head["scope"] for head in heads] == ["col"] * 3 + ["row"] * 2
    assert [[text for text, _ in row] for row in found.rows[1:]] == [
        ["a", "1", "x"],
        ["b", "–", "2"],
    ]


def test_facts_without_a_value_are_left_out():
    assert (
        runs.Page(html.facts([("a", "1"), ("b", None), ("c", "0")])).text == "a 1 c 0"
    )


def test_sections_without_content_are_left_out():
    made = html.document(
        "T", {"One": html.note("x"), "No": html.Html(""), "A-B c?": "y"}
    )
    found = runs.Page(made.decode())
    assert [s["id"] for s in found.all("section")] == ["one", "a-b-c"]
    assert [a["href"] for a in found.all("a")] == ["#one", "#a-b-c"]


def test_the_policy_permits_the_script_of_the_page_alone():
    source = html.document("T", {"One": "x"}).decode()
    (script,) = re.findall("<script>(.*?)</script>", source, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = runs.Page(source).all("meta")[1]["content"]
    assert f"script-src 'sha256-{digest}';" in policy
    assert "default-src 'none'" in policy
