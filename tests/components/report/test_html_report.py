"""What pages are made of; whole pages are looked at in a browser in tests/pipelines/runner/local/test_report.py."""

import json
import re

import numpy as np
import pytest
from markupsafe import Markup

from kfp_image_classification.components.report import html_report
from kfp_image_classification.components.report.chart_axis import linear_axis
from kfp_image_classification.components.report.html_report import Section, Series


@pytest.mark.parametrize(
    ("values", "whole", "ticks"),
    [
        ([0.885, 0.97], False, [0.88, 0.9, 0.92, 0.94, 0.96, 0.98]),
        ([0.04, 1.19], False, [0, 0.5, 1, 1.5]),
        ([1, 2, 3], True, [1, 2, 3]),
        (list(range(1, 21)), True, [5, 10, 15, 20]),
        ([7], True, [7]),
        ([float("nan"), 1.0, 3.0], False, [1, 1.5, 2, 2.5, 3]),
    ],
    ids=["accuracies", "losses", "few epochs", "many epochs", "one epoch", "not a number"],
)
def test_axis_names_round_values_and_holds_all(values: list[float], whole: bool, ticks: list[float]) -> None:
    axis = linear_axis(values, 100, 0, whole_numbers=whole)
    assert axis.ticks == pytest.approx(ticks)
    assert all(0 <= axis.at(value) <= 100 for value in values if value == value)


def test_axis_of_equal_values_has_room() -> None:
    axis = linear_axis([0.5, 0.5], 100, 0)
    assert 0 < axis.at(0.5) < 100


def test_section_is_found_in_a_page_again() -> None:
    sections = [Section("First, of all", html_report.note("a < b")), Section("Second", Markup("<b>two\n</b>"))]
    page = html_report.page("Title", "summary", sections)
    assert [html_report.section_of(page, section.heading) for section in sections] == sections
    assert html_report.section_of(page, "Third") is None


def test_names_are_escaped_everywhere() -> None:
    bad = '"><script>alert(1)</script>'
    parts = [
        html_report.line_chart(bad, [Series(bad, [(1, 0.5), (2, 0.6)])], "%"),
        html_report.legend([bad]),
        html_report.matrix(np.eye(2, dtype=int), [bad, "b"]),
        html_report.gallery([np.zeros((4, 4, 3), np.uint8)], [[bad]]),
        html_report.bars([bad], [1]),
        html_report.timeline(bad, [(bad, 0, 1, bad, False)], 1),
        html_report.facts({bad: bad}),
        html_report.command(bad, bad),
        html_report.links(bad, {bad: bad}),
        html_report.banner("good", bad),
        html_report.log_lines([bad]),
    ]
    for part in parts:
        assert "<script>" not in part
        assert '"">' not in part


def test_chart_knows_each_value_under_the_pointer() -> None:
    chart = html_report.line_chart("Accuracy", [Series("cnn", [(1, 0.5), (2, 0.625)])], "%")
    found = re.search(r'data-chart="([^"]*)"', chart)
    assert found
    hover = json.loads(Markup(found[1]).unescape())
    assert hover["series"] == [{"name": "cnn", "colour": 0, "y": {"1": "50.00%", "2": "62.50%"}}]


def test_matrix_of_many_classes_is_a_picture() -> None:
    assert "<table" in html_report.matrix(np.eye(20, dtype=int), list("abcdefghijklmnopqrst"))
    assert "<table" not in html_report.matrix(np.eye(21, dtype=int), list("abcdefghijklmnopqrstu"))
