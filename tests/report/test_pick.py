"""The rule that names a method to ship, on methods whose right answer is known by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.report.pick import Limits, Method, Ratio, pick

FP32 = Method("fp32", Ratio(1.0, 1.0, 1.0), Ratio(1.0, 1.0, 1.0), p90_ms=25, size_mib=86, memory_mib=400)
STATIC = Method("static", Ratio(0.995, 0.991, 0.999), Ratio(2.70, 2.5, 2.9), p90_ms=9.8, size_mib=56, effort=1)
DYNAMIC = Method("dynamic", Ratio(0.998, 0.994, 1.002), Ratio(2.63, 2.5, 2.77), p90_ms=9.1, size_mib=56)
TRAINED = Method("trained", Ratio(0.980, 0.970, 0.990), Ratio(3.50, 3.4, 3.6), p90_ms=8, size_mib=40, effort=2)
ALL = (FP32, STATIC, DYNAMIC, TRAINED)


def unsure(a: Method, b: Method) -> float | None:
    return 0.4


def sure(a: Method, b: Method) -> float | None:
    return 0.001


def test_of_methods_tied_in_speed_the_one_that_keeps_most_is_picked() -> None:
    choice = pick(ALL, Limits(keep=0.99), unsure)
    assert choice.ship is DYNAMIC
    assert choice.tied == (STATIC,)
    assert not choice.close_call
    assert {method.name: why for method, why in choice.outside} == {"trained": "keeps 98.0%"}


def test_a_difference_of_speed_that_a_test_tells_is_no_tie() -> None:
    choice = pick(ALL, Limits(keep=0.99), sure)
    assert (choice.ship, choice.tied) == (STATIC, ())


def test_a_noisy_machine_does_not_tie_what_lies_more_than_five_percent_apart() -> None:
    """No test tells anything apart here, yet FP32 at 1.0 does not tie with INT8 at 2.7."""
    slow = replace(DYNAMIC, speed_up=Ratio(2.70 * 0.949))
    assert pick((FP32, STATIC, slow), Limits(), lambda a, b: None).ship is STATIC
    near = replace(DYNAMIC, speed_up=Ratio(2.70 * 0.951))
    assert pick((FP32, STATIC, near), Limits(), lambda a, b: None).ship is near


def test_with_equal_accuracy_the_simplest_to_make_is_picked() -> None:
    calibrated = replace(STATIC, kept=DYNAMIC.kept)
    assert pick((calibrated, DYNAMIC), Limits(), unsure).ship is DYNAMIC


def test_a_close_call_names_the_fastest_that_surely_keeps() -> None:
    choice = pick(ALL, Limits(keep=0.993), sure)
    assert choice.ship is STATIC and choice.close_call
    assert choice.surely is DYNAMIC
    assert pick(ALL, Limits(keep=0.993, sure=True), sure).ship is DYNAMIC


def test_a_close_call_that_nothing_surely_keeps() -> None:
    choice = pick((replace(STATIC, kept=Ratio(0.995, 0.98, 1.01)),), Limits(), sure)
    assert choice.close_call and choice.surely is None


@pytest.mark.parametrize(
    ("limits", "ship"),
    [
        (Limits(keep=0.97), TRAINED),
        (Limits(keep=0.97, p90_ms=7.9), None),
        (Limits(keep=1.0), FP32),
        (Limits(size_mib=50), None),
        (Limits(keep=0.9, size_mib=50), TRAINED),
    ],
)
def test_limits_change_the_pick(limits: Limits, ship: Method | None) -> None:
    assert pick(ALL, limits, sure).ship is ship


def test_where_none_fits_the_limit_to_loosen_is_named_with_a_value_that_works() -> None:
    choice = pick(ALL, Limits(keep=0.99, size_mib=50), sure)
    assert choice.ship is None
    assert choice.loosen == "trained would fit with --keep 0.980"
    assert pick(ALL, Limits(keep=0.98, size_mib=50), sure).ship is TRAINED
    choice = pick((STATIC, DYNAMIC), Limits(p90_ms=5), sure)
    assert choice.loosen == "static would fit with --p90-ms 9.8"
    assert pick((STATIC, DYNAMIC), Limits(p90_ms=9.8), sure).ship is STATIC


def test_what_was_not_measured_cannot_hold_a_limit() -> None:
    assert pick((DYNAMIC,), Limits(memory_mib=1000), sure).ship is None
    untimed = replace(DYNAMIC, speed_up=None)
    choice = pick((untimed,), Limits(), sure)
    assert choice.ship is None and choice.outside == ((untimed, "no valid speed"),)
    assert choice.loosen == ""
    assert pick((replace(DYNAMIC, kept=Ratio(0.999)),), Limits(sure=True), sure).ship is None


def test_what_is_outside_a_limit_does_not_read_as_inside() -> None:
    near = replace(STATIC, kept=Ratio(0.98997, 0.9, 1.0), p90_ms=10.004, size_mib=1234.4)
    ((_, why),) = pick((near,), Limits(keep=0.99, p90_ms=10, size_mib=1000), sure).outside
    assert why == "keeps 98.997%, p90 10.004 ms, size 1230 MiB"


def test_a_share_below_zero_is_no_limit_to_loosen_to() -> None:
    """Of Matthews' correlation, which may be negative; --keep takes shares above 0."""
    assert pick((replace(STATIC, kept=Ratio(-0.1, -0.3, 0.1)),), Limits(), sure).loosen == ""


@pytest.mark.parametrize(("kept", "shown"), [(0.98, "98.0%"), (0.9896, "98.96%"), (0.98999, "98.999%")])
def test_a_share_below_the_limit_is_not_rounded_up_to_it(kept: float, shown: str) -> None:
    choice = pick((FP32, replace(STATIC, kept=Ratio(kept, 0.9, 1.0))), Limits(keep=0.99), sure)
    assert [why for _, why in choice.outside] == [f"keeps {shown}"]
