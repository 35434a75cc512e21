"""Whether the rounds of a table's cells may end: the figures that it compares are as precise as the suite asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.measure.paired import ratio
from harness.measure.precision import Interval, half_width
from harness.measure.scenarios import summarise
from harness.run.assemble import speeds
from harness.run.context import CellResults


def may_end(cells: Sequence[CellResults], finished: int) -> bool:
    """Whether no further round is needed after so many: at a planned look all compared figures are precise. Rounds of a suite
    without `measure.max_rounds` go on to the last."""
    for results in cells:
        measure = results.cell.measure
        if finished < measure.looks[-1] and finished not in measure.looks:
            return False
    return all(
        finished >= results.cell.measure.looks[-1] or _is_precise(figure, results.cell.measure.precision)
        for results, figure in _compared(cells)
    )


def _is_precise(figure: Interval, wanted: float) -> bool:
    width = half_width(figure)
    return width is not None and width <= wanted


def _compared(cells: Sequence[CellResults]) -> Iterator[tuple[CellResults, Interval]]:
    """The ratio of each cell's interleaved times to the baseline's, by load; of cells that were not interleaved with it the
    samples a second."""
    base = next((results for results in cells if results.cell.baseline), cells[0] if cells else None)
    for results in cells:
        measure = results.cell.measure
        shared = _shared(results, base) if base and results is not base else {}
        for pairs in shared.values():
            mine, theirs = zip(*pairs, strict=True)
            yield results, ratio(mine, theirs, interleaved=True, looks=len(measure.looks))
        if not shared and (results is not base or len(cells) == 1):
            for speed in speeds(results.cell, results.rounds):
                if figure := summarise(
                    speed.rounds, measure.planned_looks, interleaved=speed.scenario == "interleaved"
                )["qps"]:
                    yield results, figure


def _shared(mine: CellResults, base: CellResults) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """By load and batch size: samples a second of both, a pair a round that they share."""
    others = {(turn["together"], turn["load"], turn["batch_size"]): turn["seconds"] for turn in base.turns}
    shared: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for turn in mine.turns:
        place = (turn["together"], turn["load"], turn["batch_size"])
        if place in others:
            shared.setdefault(place[1:], []).append((1 / turn["seconds"], 1 / others[place]))
    return shared
