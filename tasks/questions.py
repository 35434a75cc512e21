"""Files of questions with answers in a paragraph: SQuAD's nested JSON, and one row a question as JSON, JSONL or Parquet.

A row has `context`, `question`, `answers` (texts with their offsets in characters, as a list of objects or as an object of lists; or
one as `answer` and `answer_start`), and, if it can, `id` and `title`, the article. Questions of one article are resampled together; without titles, those of one
paragraph.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.base import BadRow, TaskError
from tasks.rows import Row, check_question

Entry = tuple[str, Mapping[str, Any]]


def read_questions(
    path: Path,
    *,
    unanswerable: bool = False,
    skip: bool = False,
    read_table: Callable[[Path], list[Entry]] | None = None,
) -> tuple[list[Row], int]:
    """The questions of a file in file order, in Hugging Face's flat form, and how many were left out.

    unanswerable: whether a question may have no answer. skip: leave out questions that cannot be used. read_table: reads a folder
    or a Parquet file. Raises TaskError, naming file and place: BadRow for a question that can be left out.
    """
    rows: list[Row] = []
    seen: set[str] = set()
    skipped = 0
    for where, entry in _entries(path, read_table):
        try:
            row = _row(entry, where)
            where = f"{where} (id {row['id'][:40]})" if isinstance(row["id"], str) else where
            check_question(row, where, unanswerable=unanswerable)
            if row["id"] in seen:
                raise TaskError(f"{where}: this id occurs twice; keep one of the two questions")
        except TaskError as error:
            if not skip:
                raise BadRow(str(error)) from None
            skipped += 1
            continue
        seen.add(row["id"])
        rows.append(row)
    return rows, skipped


MARKED = 0.1
"""The share of questions without an answer from which a file that marks none with `is_impossible` is one of SQuAD v2's kind."""


def has_unanswerable(path: Path, read_table: Callable[[Path], list[Entry]] | None = None) -> bool:
    """Whether a file has questions that are meant to have no answer: marked as such, or not few. Raises TaskError."""
    empty = count = 0
    for _, entry in _entries(path, read_table):
        if entry.get("is_impossible") is True:
            return True
        answers = entry.get("answers")
        texts = answers.get("text") if isinstance(answers, dict) else answers
        count += 1
        empty += texts == []
    return empty > MARKED * count


def _row(entry: Mapping[str, Any], where: str) -> Row:
    impossible = entry.get("is_impossible") is True
    entry = {name: value for name, value in entry.items() if name != "is_impossible"}
    answers = [] if impossible else entry.get("answers")
    if isinstance(answers, dict):
        texts, starts = answers.get("text"), answers.get("answer_start")
        parts = [texts] if isinstance(texts, str) else texts, [starts] if isinstance(starts, int) else starts
        return {**entry, "answers": {"text": parts[0], "answer_start": parts[1]}}
    if answers is None and isinstance(entry.get("answer"), str):
        start = entry.get("answer_start")
        start = int(start) if isinstance(start, str) and start.isdecimal() else start  # of a CSV file
        answers = [{"text": entry["answer"], "answer_start": start}]
    entry = {name: value for name, value in entry.items() if name not in ("answer", "answer_start")}
    if not isinstance(answers, list):
        fix = "this is not SQuAD's format: replace the file with the published one"
        if ".qas[" not in where:
            fix = "give each row answers with text and answer_start"
        raise TaskError(f"{where}: no list 'answers'; {fix}")
    if not all(isinstance(answer, dict) for answer in answers):
        raise TaskError(f"{where}: an answer needs a text and an integer 'answer_start'")
    columns = {name: [answer.get(name) for answer in answers] for name in ("text", "answer_start")}
    return {**entry, "answers": columns}


def _entries(path: Path, read_table: Callable[[Path], list[Entry]] | None) -> Iterator[Entry]:
    """(place, question with its paragraph) in file order; nothing in it is checked."""
    if read_table and (path.is_dir() or path.suffix.lower() in (".parquet", ".csv", ".tsv")):
        table = read_table(path)
        if "context" not in table[0][1]:
            raise _no_questions(path, table[0][1])
        yield from _flat(path, table)
        return
    text = read_text(path)
    try:
        content = json.loads(text)
    except RecursionError:
        raise TaskError(f"{path}: nested too deeply for SQuAD's format; replace it with the published file") from None
    except json.JSONDecodeError as error:
        if (rows := _lines(path, text)) is None:
            cut = "; the file is cut off" if not text[error.pos :].strip() or "Unterminated" in error.msg else ""
            fix = "replace it with the complete file"
            if text.lstrip()[:1] not in ("{", "["):
                fix = "questions are read from SQuAD's JSON, or from JSONL, CSV or Parquet"
            raise TaskError(
                f"{path}: line {error.lineno} column {error.colno}: not JSON: {error.msg}{cut}; {fix}"
            ) from error
        yield from _flat(path, rows)
        return
    if isinstance(content, dict) and "context" in content:
        yield from _flat(path, [("line 1", content)])
        return
    rows = content.get("data") if isinstance(content, dict) else content
    if isinstance(rows, list) and rows and isinstance(rows[0], dict) and "context" in rows[0]:
        yield from _flat(path, [(f"row {number}", row) for number, row in enumerate(rows, 1)])
    elif isinstance(content, list) and content and isinstance(content[0], dict) and "paragraphs" not in content[0]:
        raise _no_questions(path, content[0])
    else:
        yield from _nested(path, content)


def _no_questions(path: Path, columns: Iterable[str]) -> TaskError:
    return TaskError(
        f"{path}: questions need the columns context, question and answers, or answer and answer_start; its columns are"
        f" {', '.join(columns)[:200]}"
    )


def _lines(path: Path, text: str) -> list[Entry] | None:
    """The rows of a JSONL file whatever its name; None for another file."""
    rows: list[Entry] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            if not rows:
                return None
            raise TaskError(f"{path}: line {number}: not JSON: {error}; correct the line") from None
        if not rows and not (isinstance(row, dict) and "context" in row):
            return None
        rows.append((f"line {number}", row))
    return rows


def _flat(path: Path, rows: list[Entry]) -> Iterator[Entry]:
    contexts: dict[Any, int] = {}
    for number, (place, row) in enumerate(rows):
        where = f"{path}: {place}"
        if not isinstance(row, dict):
            raise TaskError(f"{where}: expected an object with context, question and answers; correct it")
        context = row.get("context")
        paragraph = contexts.setdefault(context if isinstance(context, str) else None, len(contexts))
        id_ = row.get("id", number)
        yield (
            where,
            {
                "id": str(id_) if isinstance(id_, int) and not isinstance(id_, bool) else id_,
                "title": row["title"] if isinstance(row.get("title"), str) else f"context {paragraph + 1}",
                "context": context,
                "question": row.get("question"),
                "answers": row.get("answers"),
                **{name: row[name] for name in ("is_impossible", "answer", "answer_start") if name in row},
            },
        )


def _nested(path: Path, content: Any) -> Iterator[Entry]:
    """SQuAD's own form: articles, their paragraphs, and the questions on each."""
    for article_index, article in enumerate(_list(content, "data", f"{path}")):
        article_place = f"{path}: data[{article_index}]"
        # without a title, each article still is an article of its own
        title = article.get("title", f"data[{article_index}]") if isinstance(article, dict) else ""
        for paragraph_index, paragraph in enumerate(_list(article, "paragraphs", article_place)):
            place = f"{article_place}.paragraphs[{paragraph_index}]"
            for index, question in enumerate(_list(paragraph, "qas", place)):
                where = f"{place}.qas[{index}]"
                if not isinstance(question, dict):
                    question = {}
                yield (
                    where,
                    {
                        "id": question.get("id"),
                        "title": title,
                        "context": paragraph.get("context"),
                        "question": question.get("question"),
                        "answers": question.get("answers"),
                        **({"is_impossible": True} if question.get("is_impossible") is True else {}),
                    },
                )


def _list(value: Any, key: str, where: str) -> list[Any]:
    items = value.get(key) if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise TaskError(
            f"{where}: no list '{key}'; this is not SQuAD's format: replace the file with the published one"
        )
    return items


def read_text(path: Path) -> str:
    """A file's text, without a byte order mark. Raises TaskError for one that is missing, empty or not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TaskError(f"{path}: cannot be read: {error.strerror}; check the file and its permissions") from error
    if not data.removeprefix(codecs.BOM_UTF8).strip():
        raise TaskError(f"{path}: empty file; replace it with the complete file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise TaskError(
            f"{path}: line {line}: byte 0x{data[error.start]:02x} is not UTF-8; convert the file to UTF-8"
        ) from error
