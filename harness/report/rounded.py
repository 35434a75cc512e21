"""Figures rounded for reading that do not contradict what is said of them."""

from __future__ import annotations

from collections.abc import Callable

MOST = 8
"""Digits that are added at most."""


def rounded(value: float, digits: int, *bounds: float) -> str:
    """With so many decimals, or as many more as it takes to stand on the same side of each bound as it does unrounded: 98.996 is not
    shown as 99.0 where it is below a limit of 99."""
    return _apart(value, bounds, lambda more: f"{value:.{digits + more}f}")


def significant(value: float, digits: int, *bounds: float) -> str:
    """As `rounded`, with so many significant digits."""
    return _apart(value, bounds, lambda more: f"{float(format(value, f'.{digits + more}g')):.15g}")


def _apart(value: float, bounds: tuple[float, ...], shown: Callable[[int], str]) -> str:
    texts = map(shown, range(MOST + 1))
    return next(
        (text for text in texts if all(_side(float(text), at) == _side(value, at) for at in bounds)), shown(MOST)
    )


def _side(value: float, bound: float) -> int:
    return (value > bound) - (value < bound)
