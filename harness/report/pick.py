"""Which method to ship under given limits: one rule, for the terminal and for pages.

Of the methods within the limits the fastest wins, together with those within 5% of it that a paired test cannot tell from
it. Of these the one that keeps most accuracy is the pick, then the one that is simplest to make. A test alone would tie
everything on a noisy machine, and 5% alone would separate what the measurement cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from harness.measure.paired import LEVEL
from harness.measure.percentiles import TAIL_QUERIES
from harness.report.rounded import rounded, significant

CLOSE = 0.95
"""Share of the fastest speed-up from which a method can tie with it."""


@dataclass(frozen=True)
class Limits:
    """What a method must meet. keep: share of the baseline's accuracy, 0 to 1. sure: the lower end of the share's 95% interval
    must meet it, not the share itself. Milliseconds of one query; MiB of what the engine loads, and of peak memory."""

    keep: float = 0.99
    sure: bool = False
    p90_ms: float | None = None
    p99_ms: float | None = None
    size_mib: float | None = None
    memory_mib: float | None = None


@dataclass(frozen=True)
class Ratio:
    """A figure as a share of the baseline's, with its 95% interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Method:
    """A way to run a model, as the rule sees it. effort: 0 nothing to make, 1 calibrated after training, 2 trained. accuracy, in
    percent, and title are shown only."""

    name: str
    kept: Ratio | None
    speed_up: Ratio | None
    p90_ms: float | None = None
    p99_ms: float | None = None
    size_mib: float | None = None
    memory_mib: float | None = None
    effort: int = 0
    accuracy: Ratio | None = None
    title: str = ""


@dataclass(frozen=True)
class Pick:
    """ship: None where no method meets the limits. tied: as fast as the pick, as far as can be told; the pick is not among
    them. surely: the method to ship where the limit on accuracy must hold with 95% certainty, where that is another one
    (None: there is none); asked only where `close_call`. outside: for each method that does not fit, why. loosen: what
    would make a method fit where none does."""

    ship: Method | None
    tied: tuple[Method, ...] = ()
    close_call: bool = False
    surely: Method | None = None
    outside: tuple[tuple[Method, str], ...] = ()
    loosen: str = ""


def pick(methods: Sequence[Method], limits: Limits, p_of_speed: Callable[[Method, Method], float | None]) -> Pick:
    """The method to ship. p_of_speed: two-sided p that two methods are equally fast, from interleaved rounds; None where no
    test was made, which counts as a tie."""
    outside = tuple((method, why) for method in methods if (why := _why_outside(method, limits)))
    inside = [method for method in methods if not _why_outside(method, limits)]
    if not inside:
        return Pick(None, outside=outside, loosen=_loosen(methods, limits))
    ship, tied = _best(inside, p_of_speed)
    close_call = not limits.sure and bool(_why_outside(ship, replace(limits, sure=True)))
    sure = [method for method in methods if not _why_outside(method, replace(limits, sure=True))]
    surely = _best(sure, p_of_speed)[0] if close_call and sure else None
    return Pick(ship, tied, close_call, surely, outside)


def _best(
    methods: Sequence[Method], p_of_speed: Callable[[Method, Method], float | None]
) -> tuple[Method, tuple[Method, ...]]:
    """The pick among methods within the limits, and those tied with it."""
    fastest = max(methods, key=_speed)
    ties = [method for method in methods if method is fastest or _is_tied(method, fastest, p_of_speed)]
    best = max(ties, key=lambda method: (_kept(method), -method.effort, _speed(method)))
    return best, tuple(method for method in ties if method is not best)


def _is_tied(method: Method, fastest: Method, p_of_speed: Callable[[Method, Method], float | None]) -> bool:
    if _speed(method) < CLOSE * _speed(fastest):
        return False
    p = p_of_speed(method, fastest)
    return p is None or p >= LEVEL


def _speed(method: Method) -> float:
    return method.speed_up.value if method.speed_up else 0.0


def _kept(method: Method) -> float:
    return method.kept.value if method.kept else 0.0


def _why_outside(method: Method, limits: Limits) -> str:
    """Why a method does not meet the limits; empty where it does."""
    if method.speed_up is None:
        return "no valid speed"
    if method.kept is None:
        return "no accuracy to compare"
    failures = [text for _, text, _ in _failures(method, limits)]
    return ", ".join(failures)


def _failures(method: Method, limits: Limits) -> list[tuple[str, str, str]]:
    """Of every limit that a method fails: the option, what is wrong, and the value of the option that it would hold, if any."""
    found = []
    if method.kept:
        held = method.kept.low if limits.sure else method.kept.value
        if held is None:
            found.append(("sure", "no interval of its accuracy", ""))
        elif held < limits.keep:
            how, share = "surely keeps" if limits.sure else "keeps", math.floor(1000 * held) / 1000
            text = f"{how} {rounded(100 * held, 1, 100 * limits.keep)}%"
            found.append(("keep", text, f"{share:.3f}" if share > 0 else ""))  # the option takes shares above 0
    for option, unit in (("p90_ms", "ms"), ("p99_ms", "ms"), ("size_mib", "MiB"), ("memory_mib", "MiB")):
        bound, value = getattr(limits, option), getattr(method, option)
        if bound is None:
            continue
        name = option.partition("_")[0]
        if value is None:
            fewer = f" of {TAIL_QUERIES} queries or more" if option == "p99_ms" else ""
            found.append((option, f"no {name}{fewer} was measured", ""))
        elif value > bound:
            found.append((option, f"{name} {significant(value, 3, bound)} {unit}", f"{_rounded_up(value):g}"))
    return found


def _rounded_up(value: float) -> float:
    """To three significant digits, never below the value."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 2)
    return math.ceil(value / unit) * unit


def _loosen(methods: Sequence[Method], limits: Limits) -> str:
    """The limit to loosen: of the methods that fail fewest limits the fastest, with the values that it holds."""
    usable = [(method, _failures(method, limits)) for method in methods if method.speed_up and method.kept]
    usable = [(method, failures) for method, failures in usable if all(value for *_, value in failures)]
    if not usable:
        return ""
    method, failures = min(usable, key=lambda item: (len(item[1]), -_speed(item[0])))
    options = " ".join(f"--{option.replace('_', '-')} {value}" for option, _, value in failures)
    return f"{method.name} would fit with {options}"
