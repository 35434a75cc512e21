"""The published files: which rows are read, and how broken files end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks.base import TaskError
from tasks.sources import detect, open_rows
from tests.tasks.raw_files import GLUE, SQUAD_ROWS, squad_json, write_glue, write_squad


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", GLUE)
def test_glue_rows(tmp_path: Path, name: str) -> None:
    write_glue(tmp_path, name)
    source = open_rows(name, detect(name, tmp_path))
    for split in source.splits:
        assert source.rows(split) == GLUE[name][2]
        assert [type(row["label"]) for row in source.rows(split)] == [float if name == "glue/stsb" else int] * 2


@pytest.mark.parametrize("name", GLUE)
def test_windows_line_ends_and_byte_order_mark_change_nothing(tmp_path: Path, name: str) -> None:
    text = "\ufeff" + GLUE[name][1].removeprefix("\ufeff").replace("\n", "\r\n")
    write_glue(tmp_path, name, text)
    source = open_rows(name, detect(name, tmp_path))
    assert source.rows("train") == GLUE[name][2]


def test_squad_rows(tmp_path: Path) -> None:
    write_squad(tmp_path)
    source = open_rows("squad_v1", detect("squad_v1", tmp_path))
    assert source.splits == ("train", "validation")
    assert source.rows("validation") == SQUAD_ROWS


@pytest.mark.parametrize("folder", ["glue/SST-2", "glue/sst2", "GLUE/sst-2", "SST-2", "sst_2"])
def test_folder_names_without_case_and_dashes(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder
    path.mkdir(parents=True)
    (path / "dev.tsv").write_text(GLUE["glue/sst2"][1], encoding="utf-8")
    assert open_rows("glue/sst2", detect("glue/sst2", tmp_path)).rows("validation") == GLUE["glue/sst2"][2]
    # the folder's own name says which task it holds, and no other task may read it
    assert open_rows("glue/sst2", detect("glue/sst2", path)).splits == ("validation",)
    with pytest.raises(TaskError, match="no data for glue/cola"):
        detect("glue/cola", path)


def test_qqp_leaves_out_its_few_broken_rows(tmp_path: Path) -> None:
    head, row = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n", "5\t1\t2\ta?\tb?\t1\n"
    write_glue(tmp_path, "glue/qqp", head + row * 5_000 + "7\t1\t2\tbroken\n" + row * 5_000)
    source = open_rows("glue/qqp", detect("glue/qqp", tmp_path))
    assert len(source.rows("train")) == 10_000
    assert source.rows("train")[-1]["idx"] == 9_999
    # a second broken row is too many, and a short last row means that the file is cut off
    for text in (head + "7\tx\n" * 2 + row * 10_000, head + row * 10_000 + "7\tx"):
        write_glue(tmp_path, "glue/qqp", text)
        with pytest.raises(TaskError, match=r"line \d+: 2 columns, expected 6"):
            open_rows("glue/qqp", detect("glue/qqp", tmp_path)).rows("train")


def test_reading_published_files_imports_no_library(tmp_path: Path) -> None:
    write_squad(tmp_path)
    write_glue(tmp_path, "glue/rte")
    code = (
        "import sys; from pathlib import Path; from tasks.sources import detect, open_rows\n"
        "for name in ('squad_v1', 'glue/rte'):\n"
        f"    source = open_rows(name, detect(name, Path({str(tmp_path)!r}))); source.rows('train'); source.identity\n"
        "print([m for m in ('torch', 'datasets', 'pyarrow', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


RTE = GLUE["glue/rte"][1].encode()


BROKEN_GLUE: dict[str, tuple[str, bytes, str]] = {
    "empty": ("glue/rte", b"", "empty file"),
    "blank": ("glue/rte", b"\n\r\n", "empty file"),
    "mark alone": ("glue/rte", b"\xef\xbb\xbf\n", "empty file"),
    "header only": ("glue/rte", RTE.split(b"\n")[0], "holds no rows"),
    "cut off": ("glue/rte", RTE[:-20], "line 3: 3 columns, expected 4"),
    "a tab too many": ("glue/rte", RTE.replace(b"Oil fell", b"Oil\tfell"), "line 2: 5 columns, expected 4"),
    "wrong columns": (
        "glue/rte",
        GLUE["glue/qnli"][1].encode(),
        "line 1: no column 'sentence1'; found: index, question, sentence, label",
    ),
    "unknown label": (
        "glue/rte",
        RTE.replace(b"\tentailment", b"\tentailed"),
        "line 3: unknown label 'entailed'; expected one of entailment, not_entailment",
    ),
    "a class number where names belong": ("glue/rte", RTE.replace(b"\tentailment", b"\t0"), "line 3: unknown label '0'"),
    "no majority where that is not known": ("glue/rte", RTE.replace(b"\tentailment", b"\t-"), "line 3: unknown label '-'"),
    "bad UTF-8": ("glue/rte", RTE.replace(b"moved", b"mo\xe9d"), "line 3: byte 0xe9 is not UTF-8"),
    "UTF-16": ("glue/rte", RTE.decode().encode("utf-16"), "line 1: byte 0xff is not UTF-8"),
    "CoLA with a row short": ("glue/cola", b"gj04\t1\t\tFine.\ngj04\t1\n", "line 2: 2 columns, expected 4"),
    "CoLA with another label": ("glue/cola", b"gj04\t2\t\tFine.\n", "line 1: unknown label '2'"),
    "a score that is none": ("glue/stsb", GLUE["glue/stsb"][1].replace("3.800", "x").encode(), "line 2: the score must be"),
    "a score out of range": ("glue/stsb", GLUE["glue/stsb"][1].replace("3.800", "5.1").encode(), "line 2: the score must be"),
    "a score that is not a number": ("glue/stsb", GLUE["glue/stsb"][1].replace("3.800", "nan").encode(), "line 2: the score"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_GLUE)
def test_broken_glue_files_end_in_one_line(tmp_path: Path, case: str) -> None:
    name, data, wanted = BROKEN_GLUE[case]
    path = write_glue(tmp_path, name, "", files=("dev",))
    path.write_bytes(data)
    with pytest.raises(TaskError) as caught:
        open_rows(name, detect(name, tmp_path)).rows("validation")
    assert str(caught.value).startswith(f"{path}: {wanted}")
    assert "\n" not in str(caught.value)


def changed(**parts: Any) -> str:
    return json.dumps(squad_json([SQUAD_ROWS[0], {**SQUAD_ROWS[1], **parts}]))


WHOLE = json.dumps(squad_json())


BROKEN_SQUAD: dict[str, tuple[str, str]] = {
    "truncated": (WHOLE[:300], "line 1 column"),
    "an article's list": (json.dumps(squad_json()["data"]), "no list 'data'"),
    "a GLUE file": (RTE.decode(), "line 1 column 1: not JSON"),
    "other JSON": ('{"data": [{"paragraphs": [{"qas": 3}]}]}', "data[0].paragraphs[0]: no list 'qas'"),
    "not its offset": (
        changed(answers={"text": ["1911"], "answer_start": [11]}),
        "data[1].paragraphs[0].qas[0] (id 000000000000000000000001): answer '1911' is not at its offset 11 in the "
        "context, which has ' 191' there",
    ),
    "before the context": (
        changed(answers={"text": ["."], "answer_start": [-1]}),
        "data[1].paragraphs[0].qas[0] (id 000000000000000000000001): answer '.' is not at its offset -1",
    ),
    "no answer": (
        changed(answers={"text": [], "answer_start": []}),
        "data[1].paragraphs[0].qas[0] (id 000000000000000000000001): no answer; SQuAD v1.1 has",
    ),
    "offset as text": (
        changed(answers={"text": ["1911"], "answer_start": ["12"]}),
        "data[1].paragraphs[0].qas[0] (id 000000000000000000000001): an answer needs a text and an integer",
    ),
    "question without text": (changed(question=None), "data[1].paragraphs[0].qas[0] (id 000000000000000000000001): 'question'"),
    "half a character": (
        changed(question="Who \ud83d?"),
        "data[1].paragraphs[0].qas[0] (id 000000000000000000000001): 'question': character 4 is half of a surrogate pair (U+D83D)",
    ),
    "question without id": (changed(id=7), "data[1].paragraphs[0].qas[0]: 'id' is missing or is not text"),
    "an id twice": (changed(id="0" * 24), "data[1].paragraphs[0].qas[0] (id 000000000000000000000000): this id occurs twice"),
    "no questions": ('{"data": []}', "holds no rows"),
    "absurd nesting": ('{"data": ' + "[" * 200_000, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_SQUAD)
def test_broken_squad_files_end_in_one_line(tmp_path: Path, case: str) -> None:
    text, wanted = BROKEN_SQUAD[case]
    path = write_squad(tmp_path, files=("dev",))
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaskError) as caught:
        open_rows("squad_v1", detect("squad_v1", tmp_path)).rows("validation")
    assert str(caught.value).startswith(f"{path}: {wanted}")
    assert "\n" not in str(caught.value)


def test_articles_without_a_title_are_articles(tmp_path: Path) -> None:
    """Intervals resample articles: with one article for all questions there would be no interval."""
    path = write_squad(tmp_path, files=("dev",))
    content = squad_json()
    for article in content["data"]:
        del article["title"]
    path.write_text(json.dumps(content), encoding="utf-8")
    rows = open_rows("squad_v1", detect("squad_v1", tmp_path)).rows("validation")
    assert [row["title"] for row in rows] == ["data[0]", "data[1]", "data[2]"]


def test_a_file_cut_at_any_byte_is_reported_with_its_place(tmp_path: Path) -> None:
    path = write_squad(tmp_path, files=("dev",))
    data = json.dumps(squad_json(), ensure_ascii=False).encode()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(TaskError, match=r"cut off|column|UTF-8|empty file"):
            open_rows("squad_v1", detect("squad_v1", tmp_path)).rows("validation")
