"""A scheme of static INT8 that keeps a share of the baseline's accuracy and is faster than it, better than the one that a row has.

1. Ways to quantize are tried one after the other, those that cost no speed first: zero points, estimators of activation ranges,
   SmoothQuant, corrected biases. Each step starts from the way before it whose logits the engine moved least (mean squared change in
   units of the baseline's variance): on a few hundred rows the metric itself cannot tell them apart.
2. With the best way each part of the encoder is quantized alone (simulated). Where no way keeps enough, the 1, 2, 4, 8 ... parts that
   move the logits most for their share of the products stay float, until the engine's own score keeps the wanted share of the
   baseline's; then the number is halved down between the last that did not and the first that did.
3. Where still none keeps enough, the way that moves the logits least is trained with (`harness.run.search_training`), if that is asked.
4. The candidates that keep enough, the row's own scheme and the baseline run the same batches interleaved. Of those that keep enough
   and gain enough, the result is the fastest, or what a paired test cannot tell from it and moves the logits less.

Everything is chosen on training rows that the ranges were not calibrated on (`harness.run.search_steps`); the evaluation split is
not read. The share of the result is therefore that of the rows that chose it: a run of the suite file that is written tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from backends import Backend, BackendError, get_backend
from backends.schemes import changed_scheme, changes_of, get_scheme
from harness.errors import QuantboardError
from harness.measure.paired import LEVEL, PairedTest, differences, ratio
from harness.plan.spec import Cell
from harness.run.context import Run
from harness.run.search_steps import keeping
from harness.run.search_training import rows_to_choose, train, trainable
from harness.run.search_trial import Part, Scored, Trial
from harness.suite.backend_checks import why_unsupported

ESTIMATORS: tuple[Mapping[str, Any], ...] = (
    {"activations.estimator": "output_error"},
    {"activations.estimator": "min_max"},
    {"activations.estimator": "percentile", "activations.percentile": 99.999},
    {"activations.estimator": "percentile", "activations.percentile": 99.99},
    {"activations.estimator": "mse"},
)
STEPS: tuple[tuple[Mapping[str, Any], ...], ...] = (
    ({"activations.symmetric": False},),
    ESTIMATORS,
    ({"smoothing": 0.5}, {"smoothing": 0.25}),
    ({"bias_correction": True},),
)
"""The ways of each step, as changes of a scheme; each backend leaves out those that it cannot run. Zero points come first: unsigned
engines have them for nothing, and the values of GELU lie on one side of 0."""
TIMED = 5
"""Candidates that are timed at most, those that move the logits least: all their processes are alive at once."""


@dataclass(frozen=True)
class Goals:
    """keep: share of the baseline's score at least. gain: times the baseline's samples a second, more than this. sure: the lower ends
    of the 95% intervals must hold both."""

    keep: float = 0.999
    gain: float = 1.0
    sure: bool = False


@dataclass(frozen=True)
class Candidate:
    """scheme: its full name. way: what it changes in the row's own scheme, beside `kept`: what stays float, in the order of
    the search.
    score: of the primary metric, in percent. difference: from the baseline, in points. error: mean squared change of the baseline's
    logits, in units of their variance. speed: samples a second over the baseline's, at the largest batch. seconds: by round. train: the
    settings of a training with the scheme's quantizers; None for one that calibration alone made."""

    scheme: str
    kept: tuple[str, ...]
    score: float
    difference: PairedTest
    speed: PairedTest | None = None
    error: float = 0.0
    way: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    train: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """What no other candidate of the search is called."""
        return f"{self.scheme}, trained" if self.train else self.scheme

    def share(self, baseline: float) -> float:
        return self.score / baseline

    def keeps(self, baseline: float, goals: Goals) -> bool:
        low = self.difference.low
        held = self.score if not goals.sure or low is None else baseline + low
        return held / baseline >= goals.keep

    def gains(self, goals: Goals) -> bool:
        if self.speed is None:
            return False
        return (self.speed.low if goals.sure and self.speed.low is not None else self.speed.value) > goals.gain


@dataclass(frozen=True)
class Found:
    """What a search found. sensitivities: (pattern, error) of each part alone, in the way that moves the logits least, the largest
    first. best: None where no candidate will do; `why` is the reason then."""

    metric: str
    examples: int
    baseline: float
    sensitivities: tuple[tuple[str, float], ...]
    candidates: tuple[Candidate, ...]
    best: Candidate | None
    why: str = ""


def search(cell: Cell, baseline: Cell, goals: Goals, run: Run, rows: int, qat_minutes: float = 0) -> Found:
    """cell: static INT8 with a post-training scheme. baseline: what accuracy and speed are held against. rows: that candidates are
    scored on at most; nothing is trained on them. qat_minutes: of training at most, where no other candidate keeps enough. Raises QuantboardError for what cannot be searched, and where a process ends badly."""
    if cell.checkpoint.recipe != "ptq" or cell.scheme is None:
        raise QuantboardError(
            f"{cell.label}: its ranges come with the model; a search needs a backend with a post-training scheme, such as"
            " onnxruntime_int8 with scheme engine_int8"
        )
    if get_scheme(cell.scheme).tensors == "op_outputs":
        raise QuantboardError(
            f"{cell.label}: its scheme rounds every operator's output, and a search chooses among linear layers; take engine_int8 or"
            " q8bert"
        )
    trial = Trial(cell, baseline, run, rows_to_choose(cell, rows) if qat_minutes else rows)
    try:
        return _Search(trial, goals, cell.scheme).find(qat_minutes)
    finally:
        trial.clean()


class _Search:
    def __init__(self, trial: Trial, goals: Goals, scheme: str) -> None:
        self._trial, self._goals, self._scheme = trial, goals, scheme
        self._base = trial.score(trial.baseline)
        self._metric = self._base.primary
        if self._base.value <= 0:
            raise QuantboardError(
                f"the baseline's {self._metric} on the slice is not positive, so that no share of it can be kept"
            )
        self._tried: dict[str, Candidate] = {}

    def find(self, qat_minutes: float) -> Found:
        goals, base = self._goals, self._base.value
        way = self._best_way()
        found = self._trial.sensitivities(way.scheme)
        order = float_order(found)
        if not any(one.keeps(base, goals) for one in self._tried.values()):  # a layer in float costs time
            try_counts(
                len(order),
                lambda count: self._candidate(way.scheme, order[:count]),
                lambda one: one.keeps(base, goals),
            )
        if qat_minutes and not any(one.keeps(base, goals) for one in self._tried.values()):
            self._train(qat_minutes)
        tried = list(self._tried.values())
        enough = sorted((one for one in tried if one.keeps(base, goals)), key=lambda one: one.error)[:TIMED]
        timed = list(dict.fromkeys([self._scheme, *(one.name for one in enough)])) if enough else []
        seconds = self._trial.seconds(timed)
        candidates = tuple(_timed(one, seconds) for one in tried)
        best, why = choose(candidates, base, goals, len(order))
        moved = tuple((part.pattern, part.error) for part in found)
        return Found(self._metric, self._base.examples, base, moved, candidates, best, why)

    def _best_way(self) -> Candidate:
        """Step by step the candidate without float layers that moves the logits least."""
        best, backend = self._candidate(self._scheme, []), get_backend(self._trial.cell.backend)
        for step in STEPS:
            made = [one for name in others(best.scheme, step, backend) if (one := self._try(name))]
            best = min([best, *made], key=lambda one: one.error)
        return best

    def _try(self, scheme: str) -> Candidate | None:
        """A candidate; None, and the reason said, where it cannot be made."""
        try:
            return self._candidate(scheme, [])
        except QuantboardError as error:
            self._trial.run.say(f"{way_of(scheme, self._scheme)} is left out: {error}")
            return None

    def _candidate(self, scheme: str, kept: Sequence[str]) -> Candidate:
        name = keeping(scheme, kept)
        if name not in self._tried:
            scored = self._trial.score(self._trial.candidate(name))
            self._tried[name] = one = self._made(name, way_of(scheme, self._scheme), kept, scored)
            self._tell(one)
        return self._tried[name]

    def _train(self, minutes: float) -> None:
        """One more candidate: the model trained with the way that moves the logits least, of those that a training can have."""
        plain = [one for one in self._tried.values() if not one.kept and trainable(one.scheme)]
        if not plain:
            self._trial.run.say(
                "QAT is left out: the row's scheme has smoothing or corrected biases, which no training has"
            )
            return
        way = min(plain, key=lambda one: one.error)
        try:
            cell, settings, steps = train(self._trial, way.scheme, minutes)
            scored = self._trial.score(cell)
        except QuantboardError as error:
            self._trial.run.say(f"QAT is left out: {error}")
            return
        words = f"{way.way} + QAT, {steps:,} steps"
        one = replace(self._made(way.scheme, words, (), scored), train=settings)
        self._trial.add(one.name, cell)
        self._tried[one.name] = one
        self._tell(one)

    def _tell(self, one: Candidate) -> None:
        layers = f", {len(one.kept)} parts in float" if one.kept else ""
        self._trial.run.say(
            f"{one.way}{layers}: {self._metric} {one.score:.2f}, {100 * one.share(self._base.value):.2f}% kept,"
            f" logits moved by {one.error:.2e}"
        )

    def _made(self, scheme: str, way: str, kept: Sequence[str], scored: Scored) -> Candidate:
        (difference,) = differences([scored.scores, self._base.scores], self._metric, [(0, 1)])
        return Candidate(scheme, tuple(kept), scored.value, difference, error=scored.error(self._base), way=way)


def with_changes(scheme: str, change: Mapping[str, Any]) -> str:
    """The name of a scheme with some changes instead of its own."""
    base, changes = changes_of(scheme)
    if "activations.estimator" in change:
        changes.pop("activations.percentile", None)
    return changed_scheme(base, {**changes, **change})


def others(scheme: str, step: Sequence[Mapping[str, Any]], backend: Backend) -> Iterator[str]:
    """The names of the schemes that a step makes of one, without those that its base or a backend cannot have, and the one itself."""
    for change in step:
        with suppress(BackendError):
            name = with_changes(scheme, change)
            same = replace(get_scheme(name), name="") == replace(get_scheme(scheme), name="")
            if not (same or why_unsupported(backend, name)):
                yield name


def float_order(parts: Sequence[Part]) -> list[str]:
    """The patterns in the order in which they become float: those first that move the logits most for their share of the products,
    which stands for the speed that they cost."""
    return [part.pattern for part in sorted(parts, key=lambda part: part.error / part.share, reverse=True)]


def way_of(scheme: str, own: str) -> str:
    """What a scheme changes in the row's own, in words."""
    changes, known = changes_of(scheme)[1], changes_of(own)[1]
    new = {key for key, value in changes.items() if known.get(key) != value}
    words = ["zero points"] if "activations.symmetric" in new else []
    if new & {"activations.estimator", "activations.percentile"}:
        percent = f" {changes['activations.percentile']:g}" if "activations.percentile" in changes else ""
        words.append(f"{changes.get('activations.estimator', 'percentile')}{percent}")
    if "smoothing" in new:
        words.append(f"smoothing {changes['smoothing']:g}")
    if "bias_correction" in new:
        words.append("bias correction")
    return " + ".join(words) or "as given"


def _timed(one: Candidate, seconds: Mapping[str, Mapping[str, float]]) -> Candidate:
    mine = seconds.get(one.name, {})
    return replace(one, speed=next(_ratios(mine, seconds.get("", {})), None), seconds=mine)


def try_counts(
    parts: int, candidate: Callable[[int], Candidate], keeps: Callable[[Candidate], bool]
) -> list[Candidate]:
    """Candidates with 0, 1, 2, 4 ... of the parts in float up to the first that keeps enough, and those that halve the step
    before it; by number of parts in float. All of them in float would not be INT8."""
    tried: dict[int, Candidate] = {}
    steps = [
        0,
        *(2**power for power in range(parts.bit_length()) if 2**power < parts - 1),
        *([parts - 1] if parts > 1 else []),
    ]
    last = -1
    for count in steps:
        tried[count] = candidate(count)
        if keeps(tried[count]):
            while count - last > 1:
                middle = (last + count) // 2
                tried[middle] = candidate(middle)
                last, count = (last, middle) if keeps(tried[middle]) else (middle, count)
            break
        last = count
    return [tried[number] for number in sorted(tried)]


def choose(candidates: Sequence[Candidate], baseline: float, goals: Goals, parts: int) -> tuple[Candidate | None, str]:
    """Of the candidates that meet the goals the fastest, or what a paired test cannot tell from it and moves the logits less; or None,
    and why there is none."""
    surely = " for sure (the interval's lower end)" if goals.sure else ""
    enough = [one for one in candidates if one.keeps(baseline, goals)]
    if not enough:
        most = max(candidates, key=lambda one: one.score)
        return None, (
            f"no candidate keeps {100 * goals.keep:g}%{surely}: the most is {100 * most.share(baseline):.2f}%, with {len(most.kept)} of"
            f" {parts} parts in float; lower --keep, take another scheme, or give --qat-minutes, so that the model is trained with quantizers"
        )
    timed = [one for one in enough if one.speed]
    if not timed:
        return None, "the candidates could not be timed together; the lines above say why"
    fast = [one for one in timed if one.gains(goals)]
    if not fast:
        best = max(timed, key=_times)
        limit = (
            "not faster than the baseline" if goals.gain == 1 else f"not {goals.gain:g} times as fast as the baseline"
        )
        return None, (
            f"what keeps {100 * goals.keep:g}% is {limit} here{surely} ({_times(best):.2f} times its samples a second): ship the"
            " baseline, or lower --keep" + ("" if goals.gain == 1 else " or --gain")
        )
    fastest = max(fast, key=_times)
    tied = [one for one in fast if one is fastest or not _slower(one, fastest)]
    return min(tied, key=lambda one: one.error), ""


def _times(one: Candidate) -> float:
    return one.speed.value if one.speed else 0.0


def _slower(one: Candidate, fastest: Candidate) -> bool:
    """Whether a paired test tells a candidate from the fastest."""
    for test in _ratios(one.seconds, fastest.seconds):
        return test.p is not None and test.p < LEVEL
    return True


def _ratios(mine: Mapping[str, float], theirs: Mapping[str, float]) -> Iterator[PairedTest]:
    rounds = [name for name in mine if name in theirs]
    if rounds:
        yield ratio([1 / mine[name] for name in rounds], [1 / theirs[name] for name in rounds], interleaved=True)
