"""Figures that do not contradict what is said of them."""

from __future__ import annotations

import pytest

from harness.report.columns import p_text
from harness.report.rounded import rounded, significant


@pytest.mark.parametrize(
    ("value", "digits", "bounds", "text"),
    [
        (99.95, 1, (99.96,), "99.95"),
        (98.97, 1, (99,), "98.97"),
        (98.94, 1, (99,), "98.9"),
        (99.0, 1, (99,), "99.0"),
        (99.996, 2, (100,), "99.996"),
        (99.8999, 2, (99, 99.9), "99.8999"),
        (-3.04, 1, (99,), "-3.0"),
    ],
)
def test_digits_are_added_until_the_side_of_a_bound_is_right(
    value: float, digits: int, bounds: tuple[float, ...], text: str
) -> None:
    assert rounded(value, digits, *bounds) == text


def test_significant_digits() -> None:
    assert significant(10.004, 3, 10) == "10.004"
    assert significant(1234.4, 3, 1000) == "1230"
    assert significant(20.0, 3, 10) == "20"
    assert significant(0.00123449, 3, 1) == "0.00123"


def test_p_does_not_read_as_the_level() -> None:
    assert p_text(0.0496) == "p = 0.0496" and p_text(0.0504) == "p = 0.0504"
    assert p_text(0.049) == "p = 0.049" and p_text(0.2) == "p = 0.20"
