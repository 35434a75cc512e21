"""The page Method: docs/method.md, by markdown-it-py."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup


@dataclass(frozen=True)
class MethodPage:
    """parts: (anchor, title) of its sections. body: HTML."""

    title: str
    parts: tuple[tuple[str, str], ...]
    body: Markup


def method_page(file: Path) -> MethodPage:
    """HTML in the text is shown as text. Links to other files of the repository lose their target, since pages stand alone."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(file.read_text(encoding="utf-8"))
    title, parts = "Method", []
    for place, token in enumerate(tokens):
        for child in token.children or ():
            if child.type == "link_open" and not str(child.attrs.get("href", "")).startswith(("https://", "#")):
                child.attrs.pop("href", None)
        if token.type != "heading_open":
            continue
        text = tokens[place + 1].content
        if token.tag == "h1":
            title = text
            token.hidden = tokens[place + 1].hidden = tokens[place + 2].hidden = True
            tokens[place + 1].children = []
        elif token.tag == "h2":
            anchor = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
            token.attrs["id"] = anchor
            parts.append((anchor, text))
    body = parser.renderer.render(tokens, parser.options, {})
    first, *tables = body.split("<table>")
    for number, table in enumerate(tables, 1):
        rest = table.replace("</table>", "</table></div>")
        first += f'<div class="scroll" tabindex="0" role="region" aria-label="Table {number}"><table>{rest}'
    return MethodPage(title, tuple(parts), Markup(first))
