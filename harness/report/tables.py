"""What a table of a page is made of: plain values, already formatted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Literal

from harness.measure.paired import PairedTest
from harness.records.figure import Figure

WIDE = 9
"""Columns that fit beside one another on a page of 1,200 pixels."""


@dataclass(frozen=True)
class Badge:
    """A short marked word. kind: `ok`, `warn`, `invalid`, `failed`, `skipped`, or empty for a neutral one; it decides the
    colour. title: shown when it is pointed at."""

    kind: str
    text: str
    title: str = ""


@dataclass(frozen=True)
class Value:
    """What a table cell shows. order: what the column is sorted by; None sorts last. low, high: its interval. invalid: the
    finding about this very figure. page: where its text links to."""

    text: str
    order: float | None = None
    low: str = ""
    high: str = ""
    note: str = ""
    invalid: str = ""
    page: str = ""
    badges: tuple[Badge, ...] = ()


@dataclass(frozen=True)
class Column:
    """title: what the figure means, shown when the header is pointed at and in the list below the table. kind: `number` is
    set to the right, `notes` is wide."""

    name: str
    unit: str = ""
    title: str = ""
    kind: Literal["number", "text", "notes"] = "number"

    @property
    def attributes(self) -> str:
        """Of its cells in HTML: escaped once for all of them."""
        name = f"{self.name}, {self.unit}" if self.unit else self.name
        return f'class="{self.kind}" data-label="{escape(name)}"'


@dataclass(frozen=True)
class Table:
    """label: its name for screen readers. rows: values as columns; the first of each names the row."""

    label: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    sortable: bool = False

    @cached_property
    def shown(self) -> tuple[Column, ...]:
        """The columns without those in which no row has anything."""
        return tuple(self.columns[place] for place in self._places)

    @property
    def is_wide(self) -> bool:
        """Too wide for a page: a row is then laid out as a list of its figures."""
        return len(self._places) > WIDE

    @property
    def cells(self) -> list[list[tuple[str, Value]]]:
        """Each row's values with the attributes of their columns."""
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"{self.label}: a row is shorter or longer than the columns")
        attributes = [(place, self.columns[place].attributes) for place in self._places]
        return [[(text, row[place]) for place, text in attributes] for row in self.rows]

    @cached_property
    def _places(self) -> list[int]:
        def said(value: Value) -> bool:
            return bool(value.text or value.note or value.invalid or value.badges)

        return [place for place in range(len(self.columns)) if not place or any(said(row[place]) for row in self.rows)]


def text_columns(*names: str) -> tuple[Column, ...]:
    return tuple(Column(name, kind="text") for name in names)


def figure_value(figure: Figure | None, *, note: str = "") -> Value:
    """Rounded for reading, to about four digits; the record has all of them."""
    if figure is None:
        return Value("")
    digits = 2 if abs(figure.value) < 100 else 1 if abs(figure.value) < 1000 else 0
    low = f"{figure.low:.{digits}f}" if figure.low is not None else ""
    high = f"{figure.high:.{digits}f}" if figure.high is not None else ""
    return Value(f"{figure.value:.{digits}f}", figure.value, low, high, note)


def formatted(figure: Figure | PairedTest | None, form: str = ".2f", *, note: str = "") -> Value:
    """A figure with its interval, all in one format."""
    if figure is None:
        return Value("")
    low, high = (format(end, form) if end is not None else "" for end in (figure.low, figure.high))
    return Value(format(figure.value, form), figure.value, low, high, note)


def number(value: float | None, form: str = ".2f") -> Value:
    return Value("") if value is None else Value(format(value, form), float(value))


def mebibytes(size: int | None) -> Value:
    return number(None if size is None else size / 2**20, ".1f")
