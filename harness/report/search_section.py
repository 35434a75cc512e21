"""What the page of a suite that `quantboard search` wrote shows of the search: which parts of the encoder are sensitive, and what was
tried. The figures are of training rows and choose; none is ranked."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import Tell
from harness.measure.paired import PairedTest
from harness.report.noise_map import WORDS, NoiseCell, NoiseMap
from harness.report.tables import Column, Table, Value, formatted, number, text_columns

SHARES = (0.03, 0.1, 0.25, 0.5)
"""Of the most sensitive part's error: at the last begins the darkest cell, below the first lies the palest."""


@dataclass(frozen=True)
class SearchSection:
    """picture: decibels by part and layer. kept: what stays float. tried: every candidate."""

    summary: str
    picture: NoiseMap
    kept: tuple[str, ...]
    tried: Table


def read_search(results: Path, suite: str, sample: bool, tell: Tell) -> SearchSection | None:
    """The section of a suite; None where no search wrote it. `tell` gets a file that cannot be read."""
    path = results / ("sample" if sample else "") / "searches" / f"{suite}.json"
    if not path.is_file():
        return None
    try:
        return search_section(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        tell(f"{path}: cannot be read as a search ({error!r}); repeat the search, or delete the file")
        return None


def search_section(found: Mapping[str, Any]) -> SearchSection:
    """found: as `search` writes it. Raises KeyError, TypeError, ValueError for anything else."""
    best = found["best"]
    layers = f", and {len(best['kept'])} of {len(found['sensitivities'])} parts in float" if best["kept"] else ""
    return SearchSection(
        summary=f"{found['backend']} for {found['model']} on {found['task']}: {best['way']}{layers}."
        f" Chosen by {found['examples']:,} training rows on which nothing was calibrated; {found['metric']} of"
        f" {found['baseline']} is {found['baseline_score']:.2f} there."
        + (" The model was trained on these rows, too." if best.get("train") else ""),
        picture=_picture({name: float(error) for name, error in found["sensitivities"]}),
        kept=tuple(map(str, best["kept"])),
        tried=_tried(found),
    )


def _picture(errors: Mapping[str, float]) -> NoiseMap:
    """errors: mean squared change of the logits with this part alone quantized, in units of their variance."""
    worst = max(errors.values(), default=0.0)
    kinds: dict[str, dict[int, NoiseCell]] = {}
    others = []
    for name, error in errors.items():
        decibels = -10 * math.log10(error) if error > 0 else math.inf
        layer, found, part = name.removeprefix("encoder.layer.").partition(".")
        if name.startswith("encoder.layer.") and found and layer.isdigit():
            kind = "query, key, value" if ".self." in f".{part}" else WORDS.get(part, part)
            band = sum(error >= share * worst for share in SHARES)
            kinds.setdefault(kind, {})[int(layer)] = NoiseCell(f"{decibels:.0f}", band)
        else:
            others.append((name, f"{decibels:.1f}"))
    count = max((layer + 1 for cells in kinds.values() for layer in cells), default=0)
    rows = (
        (kind, tuple(cells.get(layer, NoiseCell("", 0)) for layer in range(count))) for kind, cells in kinds.items()
    )
    return NoiseMap(tuple(str(layer + 1) for layer in range(count)), tuple(rows), tuple(others))


def _tried(found: Mapping[str, Any]) -> Table:
    columns = (
        *text_columns("way"),
        Column("in float", "parts"),
        Column(found["metric"], "%"),
        Column("against the baseline", "points", "with its 95% interval"),
        Column("logits", "dB", "signal to quantization noise of the logits on these rows"),
        Column("speed", "times the baseline's", "samples a second, interleaved; with its 95% interval"),
        Column("", kind="text"),
    )
    rows = []
    for one in found["candidates"]:
        speed = PairedTest(**one["speed"]) if one["speed"] else None
        decibels = -10 * math.log10(one["error"]) if one["error"] > 0 else None
        rows.append(
            (
                Value(str(one["way"])),
                number(len(one["kept"]), ".0f"),
                number(one["score"]),
                formatted(PairedTest(**one["difference"])),
                number(decibels, ".1f"),
                formatted(speed),
                Value("taken" if one == found["best"] else ""),
            )
        )
    return Table("Tried", columns, tuple(rows), sortable=True)
