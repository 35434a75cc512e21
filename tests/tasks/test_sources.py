"""The classic files: what is read, how broken ones end, what is called official."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tasks import forms
from tasks.base import DataRef, TaskError
from tasks.forms import Official, content_key, form_of
from tasks.identity import is_official
from tasks.sources import detect, open_rows, resolve
from tests.tasks.raw_files import GLUE, SQUAD_ROWS, squad_json, write_glue, write_squad


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))


def claim(monkeypatch: pytest.MonkeyPatch, name: str, **splits: Official) -> None:
    """Make the official splits small enough for a test."""
    form = form_of(name)
    monkeypatch.setitem(forms.FORMS, name, dataclasses.replace(form, splits={**form.splits, **splits}))


# --- rows -------------------------------------------------------------------------------------------------------------


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


def test_splits_are_those_that_are_there(tmp_path: Path) -> None:
    write_glue(tmp_path, "glue/mnli", files=("train", "dev_matched"))
    source = open_rows("glue/mnli", detect("glue/mnli", tmp_path))
    assert source.splits == ("train", "validation_matched")
    with pytest.raises(TaskError, match=r"no split 'validation_mismatched' in .*; found: train, validation_matched"):
        source.rows("validation_mismatched")
    assert source.identity.missing == ("validation_mismatched",)
    write_glue(tmp_path, "glue/mnli", files=("dev_mismatched",))
    assert open_rows("glue/mnli", detect("glue/mnli", tmp_path)).identity.missing == ()


@pytest.mark.parametrize("folder", ["glue/SST-2", "glue/sst2", "GLUE/sst-2", "SST-2", "sst_2"])
def test_folder_names_without_case_and_dashes(tmp_path: Path, folder: str) -> None:
    path = tmp_path / folder
    path.mkdir(parents=True)
    (path / "dev.tsv").write_text(GLUE["glue/sst2"][1], encoding="utf-8")
    assert open_rows("glue/sst2", detect("glue/sst2", tmp_path)).rows("validation") == GLUE["glue/sst2"][2]
    # the folder itself says which task it is, and no other may take it
    assert open_rows("glue/sst2", detect("glue/sst2", path)).splits == ("validation",)
    with pytest.raises(TaskError, match="nothing for glue/cola"):
        detect("glue/cola", path)


def test_a_split_is_read_only_when_asked_for(tmp_path: Path) -> None:
    write_squad(tmp_path)
    (tmp_path / "squad" / "train-v1.1.json").write_text("{")
    source = open_rows("squad_v1", detect("squad_v1", tmp_path))
    assert len(source.rows("validation")) == 3
    with pytest.raises(TaskError):
        source.rows("train")


def test_qqp_leaves_out_its_few_broken_rows(tmp_path: Path) -> None:
    head, row = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n", "5\t1\t2\ta?\tb?\t1\n"
    write_glue(tmp_path, "glue/qqp", head + row * 5_000 + "7\t1\t2\tbroken\n" + row * 5_000)
    source = open_rows("glue/qqp", detect("glue/qqp", tmp_path))
    assert len(source.rows("train")) == 10_000
    assert source.rows("train")[-1]["idx"] == 9_999
    # a second one is too many, and a short last row is a file cut off
    for text in (head + "7\tx\n" * 2 + row * 10_000, head + row * 10_000 + "7\tx"):
        write_glue(tmp_path, "glue/qqp", text)
        with pytest.raises(TaskError, match=r"line \d+: 2 columns, expected 6"):
            open_rows("glue/qqp", detect("glue/qqp", tmp_path)).rows("train")


def test_reading_classic_files_imports_no_library(tmp_path: Path) -> None:
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


# --- broken files -----------------------------------------------------------------------------------------------------

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
        "data[1].paragraphs[0].qas[0] (id 000000000000000000000001): answer '1911' is not at its offset 11 of the context, "
        "where ' 191' stands",
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
        "data[1].paragraphs[0].qas[0] (id 000000000000000000000001): 'question': character 4 is half of a pair (U+D83D)",
    ),
    "question without id": (changed(id=7), "data[1].paragraphs[0].qas[0]: 'id' is missing or no text"),
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


def test_a_subset_of_known_questions_is_of_these_very_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A translation keeps the ids; white space and the order do not matter."""
    keys = tmp_path / "known.keys"
    keys.write_bytes(b"".join(forms.row_key(form_of("squad_v1"), row)[: forms.KEY_BYTES] for row in SQUAD_ROWS))
    claim(monkeypatch, "squad_v1", train=Official(87_599), validation=Official(10_570, members=str(keys)))
    for rows, label in (
        (SQUAD_ROWS[:2], "subset (2 of 10,570)"),
        ([SQUAD_ROWS[2], {**SQUAD_ROWS[1], "question": "When?"}], "subset (2 of 10,570)"),
        ([SQUAD_ROWS[0], {**SQUAD_ROWS[1], "question": "Wann?"}], "substitute"),
        ([SQUAD_ROWS[0], {**SQUAD_ROWS[1], "id": "f" * 24}], "substitute"),
    ):
        write_squad(tmp_path, rows)
        assert labels("squad_v1", tmp_path)["validation"] == label


def test_articles_without_a_title_are_articles(tmp_path: Path) -> None:
    """By which intervals are made: one article for all of them would leave none."""
    path = write_squad(tmp_path, files=("dev",))
    content = squad_json()
    for article in content["data"]:
        del article["title"]
    path.write_text(json.dumps(content), encoding="utf-8")
    rows = open_rows("squad_v1", detect("squad_v1", tmp_path)).rows("validation")
    assert [row["title"] for row in rows] == ["data[0]", "data[1]", "data[2]"]


def test_a_file_cut_anywhere_is_said_to_be_cut_or_names_its_place(tmp_path: Path) -> None:
    path = write_squad(tmp_path, files=("dev",))
    data = json.dumps(squad_json(), ensure_ascii=False).encode()
    for length in range(0, len(data), 7):
        path.write_bytes(data[:length])
        with pytest.raises(TaskError, match=r"cut off|column|UTF-8|empty file"):
            open_rows("squad_v1", detect("squad_v1", tmp_path)).rows("validation")


def test_a_missing_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nowhere: no such folder"):
        detect("squad_v1", tmp_path / "nowhere")
    with pytest.raises(
        TaskError, match=r"nothing for squad_v1; looked for squad/\{train,dev\}-v1.1.json and a folder of"
    ):
        detect("squad_v1", tmp_path)
    with pytest.raises(TaskError, match=r"glue/MNLI/\{train,dev_matched,dev_mismatched\}.tsv"):
        detect("glue/mnli", tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(TaskError, match="file: not a folder"):
        detect("glue/mnli", tmp_path / "file")
    with pytest.raises(TaskError, match=r"no data is known for task 'glue/../cola'"):
        detect("glue/../cola", tmp_path)


def test_the_data_went_away_after_it_was_planned(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="nothing for squad_v1"):
        open_rows("squad_v1", DataRef("raw", str(tmp_path / "gone"))).rows("train")


# --- identity ---------------------------------------------------------------------------------------------------------


def labels(name: str, folder: Path) -> dict[str, str]:
    identity = open_rows(name, detect(name, folder)).identity
    return {"": identity.label, **{split: part.label for split, part in identity.splits.items()}}


def test_fewer_questions_with_squads_ids_are_a_subset(tmp_path: Path) -> None:
    write_squad(tmp_path)
    assert labels("squad_v1", tmp_path) == {
        "": "substitute",
        "train": "subset (3 of 87,599)",
        "validation": "substitute",  # its official questions are known, and these are none of them
    }
    assert len((Path(forms.__file__).parent / "squad_validation.keys").read_bytes()) == 10_570 * forms.KEY_BYTES
    write_squad(tmp_path, [{**SQUAD_ROWS[0], "id": "mine-1"}], files=("train",))
    assert labels("squad_v1", tmp_path)["train"] == "substitute"
    assert labels("squad_v1", tmp_path)[""] == "substitute"


def test_glue_of_another_size_is_a_substitute_unless_declared(tmp_path: Path) -> None:
    write_glue(tmp_path, "glue/qqp")
    assert labels("glue/qqp", tmp_path) == {"": "substitute", "train": "substitute", "validation": "substitute"}
    (tmp_path / "quantboard.json").write_text('{"glue/qqp": {"train": "subset"}, "glue/rte": {}}')
    assert labels("glue/qqp", tmp_path)["train"] == "subset (2 of 363,846)"
    # the one nearer to the data holds
    (tmp_path / "glue" / "QQP" / "quantboard.json").write_text('{"glue/qqp": {"train": "sample"}}')
    assert labels("glue/qqp", tmp_path) == {"": "sample", "train": "sample", "validation": "substitute"}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"glue/qqp": {"train": "official"}}', "glue/qqp.train: 'official' cannot be declared"),
        ('{"glue/qpq": {"train": "subset"}}', "there is no task 'glue/qpq'; did you mean 'glue/qqp'?"),
        ('{"glue/qqp": {"dev": "subset"}}', "glue/qqp: there is no split 'dev'; it is one of train, validation"),
        ('{"glue/qqp": "substitute"}', "expected"),
        ("[", "not JSON"),
    ],
)
def test_a_declaration_never_makes_official(tmp_path: Path, text: str, wanted: str) -> None:
    write_glue(tmp_path, "glue/qqp")
    (tmp_path / "quantboard.json").write_text(text)
    with pytest.raises(TaskError, match=rf"quantboard\.json: {wanted}"):
        labels("glue/qqp", tmp_path)


def test_official_by_number_where_no_hash_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    claim(monkeypatch, "glue/qqp", train=Official(2))
    write_glue(tmp_path, "glue/qqp")
    found = labels("glue/qqp", tmp_path)
    assert found["train"] == "official (by row count)"
    assert is_official(found["train"])


def test_official_by_content_whatever_the_order_and_white_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, first, second, _ = GLUE["glue/rte"][1].split("\n")
    claim(monkeypatch, "glue/rte", train=Official(2, content_key(form_of("glue/rte"), GLUE["glue/rte"][2])))
    write_glue(tmp_path, "glue/rte", "\n".join([head, second, first.replace("Oil rose", "Oil  rose")]))
    assert labels("glue/rte", tmp_path)["train"] == "official"
    write_glue(tmp_path, "glue/rte", "\n".join([head, first, second.replace("entailment", "not_entailment")]))
    assert labels("glue/rte", tmp_path)["train"] == "substitute"


def test_official_by_the_hash_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_squad(tmp_path)
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    claim(monkeypatch, "squad_v1", train=Official(3, file="0" * 64), validation=Official(3, "0" * 64, known))
    by_count = "official (by row count)"  # a file written anew has another hash, whatever it holds
    assert labels("squad_v1", tmp_path) == {"": by_count, "train": by_count, "validation": "official"}


def test_digest_follows_the_rows_alone(tmp_path: Path) -> None:
    def digest(folder: str) -> str:
        return open_rows("glue/rte", detect("glue/rte", tmp_path / folder)).identity.digest

    write_glue(tmp_path / "a", "glue/rte")
    write_glue(tmp_path / "b", "glue/rte", "\ufeff" + GLUE["glue/rte"][1].replace("\n", "\r\n"))
    write_glue(tmp_path / "c", "glue/rte", GLUE["glue/rte"][1].replace("fell", "rose"))
    write_glue(tmp_path / "d", "glue/rte", files=("dev",))
    assert digest("a") == digest("b")
    assert len({digest("a"), digest("c"), digest("d")}) == 3


def test_hashes_are_remembered_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is seen also where its time was set back, as `cp -p` and archives do."""
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    path = write_glue(tmp_path, "glue/rte")
    ref = detect("glue/rte", tmp_path)
    before, stat = open_rows("glue/rte", ref).identity, path.stat()
    kept = {one: one.stat().st_mtime_ns for one in (tmp_path / "cache").rglob("*") if one.is_file()}
    assert kept and open_rows("glue/rte", ref).identity == before
    assert kept == {one: one.stat().st_mtime_ns for one in (tmp_path / "cache").rglob("*") if one.is_file()}
    path.write_bytes(b"\xff" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    with pytest.raises(TaskError, match="not UTF-8"):
        _ = open_rows("glue/rte", ref).identity


@pytest.mark.parametrize("damage", ["", "[]", '{"rows": 1}', "\x00"])
def test_a_damaged_or_unwritable_cache_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    write_glue(tmp_path, "glue/rte")
    ref = detect("glue/rte", tmp_path)
    before = open_rows("glue/rte", ref).identity
    for entry in (tmp_path / "cache" / "identity").iterdir():
        entry.write_text(damage)
    assert open_rows("glue/rte", ref).identity == before
    (tmp_path / "blocked").write_text("a file where the cache should be")
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "blocked"))
    assert open_rows("glue/rte", ref).identity == before


def test_sample(tmp_path: Path) -> None:
    source = open_rows("squad_v1", DataRef("sample"))
    identity = source.identity
    assert (identity.kind, identity.label) == ("sample", "sample")
    assert identity.splits["train"].rows == len(source.rows("train")) > 1000
    assert {part.label for part in identity.splits.values()} == {"sample"}
    assert identity.splits["train"].sha256 != identity.splits["validation"].sha256


# --- where rows come from ---------------------------------------------------------------------------------------------


def test_resolve(tmp_path: Path) -> None:
    write_squad(tmp_path)
    assert resolve("squad_v1", str(tmp_path), hub=True) == DataRef("raw", str(tmp_path.resolve()))
    assert resolve("squad_v1", "sample", hub=True) == DataRef("sample")
    assert resolve("squad_v1", None, hub=True) == DataRef("hub")
    assert resolve("squad_v1", None, hub=False) == DataRef("sample")
    assert resolve("squad_v1", "real", hub=True) == DataRef("hub")
    refused = resolve("squad_v1", "real", hub=False)
    assert isinstance(refused, tuple)
    assert "--data DIR" in refused[1]
    with pytest.raises(TaskError, match="nothing for glue/rte"):
        resolve("glue/rte", str(tmp_path), hub=True)
    # what was fetched before needs no network
    fetched = tmp_path / "cache" / "hub" / "squad_v1"
    fetched.mkdir(parents=True)
    (fetched / "origin.json").write_text("{}")
    assert resolve("squad_v1", "real", hub=False) == resolve("squad_v1", None, hub=False) == DataRef("hub")


def test_a_task_of_an_installed_package_reads_its_own_data(tmp_path: Path) -> None:
    package = tmp_path / "site" / "weather-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: weather\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[quantboard.tasks]\nweather = weather:open_task\n")
    code = (
        "from tasks import TaskError; from tasks.sources import resolve\n"
        f"for data in ({str(tmp_path)!r}, None): print(resolve('weather', data, hub=False).kind)\n"
        f"try: resolve('whether', {str(tmp_path)!r}, hub=False)\n"
        "except TaskError as error: print(error)"
    )
    path = os.pathsep.join([str(tmp_path / "site"), str(Path(forms.__file__).parent.parent)])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.splitlines()[:2] == ["raw", "sample"]
    assert done.stdout.splitlines()[2].startswith("no data is known for task 'whether'")
