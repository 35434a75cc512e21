"""A table as HTML. The pages of a large site hold millions of table cells, and a template takes ten times as long for each."""

from __future__ import annotations

from html import escape

from markupsafe import Markup

from harness.report.tables import Badge, Column, Table, Value


def table_html(data: Table) -> Markup:
    kinds = " ".join([*["sortable"] * data.sortable, *["lists"] * data.is_wide])
    heads = "".join(_head(column, sortable=data.sortable) for column in data.shown)
    rows = "\n".join(f"<tr>{_row_head(first)}{''.join(map(_cell, rest))}</tr>" for (_, first), *rest in data.cells)
    return Markup(
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(data.label)}">\n<table class="{kinds}">\n'
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table>\n</div>\n"
    )


def soft(text: str) -> str:
    """Escaped, and free to be broken after an underscore."""
    return escape(text).replace("_", "_<wbr>")


def badge_html(badge: Badge) -> str:
    title = f' title="{escape(badge.title)}"' if badge.title else ""
    return f'<span class="badge {escape(badge.kind)}"{title}>{escape(badge.text)}</span>'


def _head(column: Column, *, sortable: bool) -> str:
    title = f' title="{escape(column.title)}"' if column.title else ""
    text = escape(column.name) + (f"<br><small>{escape(column.unit)}</small>" if column.unit else "")
    inner = f'<button type="button">{text}</button>' if sortable else text
    return f'<th scope="col" class="{column.kind}"{title}>{inner}</th>'


def _row_head(value: Value) -> str:
    text = soft(value.text)
    return f'<th scope="row">{f"<a href={_quoted(value.page)}>{text}</a>" if value.page else text}{_more(value)}</th>'


def _quoted(text: str) -> str:
    return f'"{escape(text)}"'


def _cell(cell: tuple[str, Value]) -> str:
    attributes, value = cell
    order = "" if value.order is None else f' data-order="{value.order}"'
    return f"<td {attributes}{order}>{escape(value.text)}{_more(value)}</td>"


def _more(value: Value) -> str:
    """Badges, and what stands below a figure."""
    found = "".join(f" {badge_html(badge)}" for badge in value.badges) if value.badges else ""
    if value.low:
        found += f"<br><small>{escape(value.low)} to {escape(value.high)}</small>"
    line = "<br>" if value.text else ""
    if value.note:
        found += f'{line}<small class="note">{escape(value.note)}</small>'
    if value.invalid:
        found += f'{line}<span class="badge invalid" title="{escape(value.invalid)}">invalid</span>'
    return found
