"""What is called official, a subset or a substitute, and which hashes are cached."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from pathlib import Path

import pytest

from tasks import rows
from tasks.base import TaskError
from tasks.definitions import DEFINITIONS, OfficialSplit, definition_of
from tasks.identity import is_official, label_of, label_shown, split_content
from tasks.rows import arrow_size, content_key
from tasks.sources import detect, open_rows
from tests.tasks.raw_files import GLUE, SQUAD_ROWS, write_glue, write_squad


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))


def labels(name: str, folder: Path) -> dict[str, str]:
    identity = open_rows(name, detect(name, folder)).identity
    return {"": identity.label, **{split: part.label for split, part in identity.splits.items()}}


def claim(monkeypatch: pytest.MonkeyPatch, name: str, **splits: OfficialSplit) -> None:
    """Make the official splits small enough for a test."""
    task = definition_of(name)
    monkeypatch.setitem(DEFINITIONS, name, dataclasses.replace(task, splits={**task.splits, **splits}))


def test_a_subset_of_known_questions_is_of_these_very_questions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A translation keeps the ids; white space and the order do not matter."""
    keys = tmp_path / "known.keys"
    keys.write_bytes(b"".join(rows.row_key(definition_of("squad_v1"), row)[: rows.KEY_BYTES] for row in SQUAD_ROWS))
    claim(monkeypatch, "squad_v1", train=OfficialSplit(87_599), validation=OfficialSplit(10_570, members=str(keys)))
    for questions, label in (
        (SQUAD_ROWS[:2], "subset (2 of 10,570)"),
        ([SQUAD_ROWS[2], {**SQUAD_ROWS[1], "question": "When?"}], "subset (2 of 10,570)"),
        ([SQUAD_ROWS[0], {**SQUAD_ROWS[1], "question": "Wann?"}], "substitute"),
        ([SQUAD_ROWS[0], {**SQUAD_ROWS[1], "id": "f" * 24}], "substitute"),
    ):
        write_squad(tmp_path, questions)
        assert labels("squad_v1", tmp_path)["validation"] == label


def test_fewer_questions_with_squads_ids_are_a_subset(tmp_path: Path) -> None:
    write_squad(tmp_path)
    assert labels("squad_v1", tmp_path) == {
        "": "substitute",
        "train": "subset (3 of 87,599)",
        "validation": "substitute",  # its official questions are known, and these are others
    }
    assert len((Path(rows.__file__).parent / "squad_validation.keys").read_bytes()) == 10_570 * rows.KEY_BYTES
    write_squad(tmp_path, [{**SQUAD_ROWS[0], "id": "mine-1"}], files=("train",))
    assert labels("squad_v1", tmp_path)["train"] == "substitute"
    assert labels("squad_v1", tmp_path)[""] == "substitute"


def test_glue_of_another_size_is_a_substitute_unless_declared(tmp_path: Path) -> None:
    write_glue(tmp_path, "glue/qqp")
    assert labels("glue/qqp", tmp_path) == {"": "substitute", "train": "substitute", "validation": "substitute"}
    (tmp_path / "quantboard.json").write_text('{"glue/qqp": {"train": "subset"}, "glue/rte": {}}')
    assert labels("glue/qqp", tmp_path)["train"] == "subset (2 of 363,846)"
    # the declaration nearer to the data counts
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
    claim(monkeypatch, "glue/qqp", train=OfficialSplit(2))
    write_glue(tmp_path, "glue/qqp")
    label = labels("glue/qqp", tmp_path)["train"]
    assert label == "official (by row count)"
    assert is_official(label)


def test_a_row_has_its_size_as_arrow() -> None:
    """Counted by hand: texts in UTF-8, two offsets, a label, an index."""
    row = {"sentence1": "Oil rose \u2019", "sentence2": "It fell", "label": 0}
    assert arrow_size(definition_of("glue/rte"), [row]) == (9 + 3) + 7 + 2 * 4 + 8 + 4
    assert arrow_size(definition_of("glue/stsb"), [{**row, "label": 2.5}]) == (9 + 3) + 7 + 2 * 4 + 4 + 4


@pytest.mark.parametrize("from_hub", [False, True])
def test_as_many_rows_of_another_size_are_a_substitute(from_hub: bool) -> None:
    """9,815 copies of one row are not MNLI's matched set, wherever they come from."""
    task = definition_of("glue/mnli")
    row = {"premise": "The new rights are nice enough", "hypothesis": "Everyone likes them", "label": 1}
    rows = [row] * task.splits["validation_matched"].rows
    content = split_content(task, "validation_matched", [], lambda: (rows, 0))
    assert label_of(task, "validation_matched", content, None, from_hub) == "substitute"
    spread = 1_833_783 // 9_815 - 20  # bytes of both texts of a row, if all were of the published mean size
    rows = [{"premise": "a" * (spread - 4), "hypothesis": f"{place:04}", "label": 1} for place in range(len(rows))]
    content = split_content(task, "validation_matched", [Path(__file__)], lambda: (rows, 0))
    label = label_of(task, "validation_matched", content, None, from_hub)
    assert label == ("official" if from_hub else "official (by row count)")


def test_rows_whose_known_hash_contradicts_are_a_substitute_from_the_hub_too() -> None:
    task = definition_of("glue/rte")
    rows = [{"sentence1": "A", "sentence2": "B", "label": 0}] * task.splits["validation"].rows
    content = split_content(task, "validation", [], lambda: (rows, 0))
    assert label_of(task, "validation", content, None, from_hub=True) == "substitute"


def test_early_records_that_were_official_by_count_are_shown_so() -> None:
    assert label_shown("glue/mnli", "validation_matched", "official", from_hub=False) == "official (by row count)"
    assert label_shown("glue/mnli", "validation_matched", "official", from_hub=True) == "official"
    assert label_shown("glue/rte", "validation", "official", from_hub=False) == "official"
    assert label_shown("glue/mnli", "train", "substitute", from_hub=False) == "substitute"


def test_official_by_content_whatever_the_order_and_white_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, first, second, _ = GLUE["glue/rte"][1].split("\n")
    claim(monkeypatch, "glue/rte", train=OfficialSplit(2, content_key(definition_of("glue/rte"), GLUE["glue/rte"][2])))
    write_glue(tmp_path, "glue/rte", "\n".join([head, second, first.replace("Oil rose", "Oil  rose")]))
    assert labels("glue/rte", tmp_path)["train"] == "official"
    write_glue(tmp_path, "glue/rte", "\n".join([head, first, second.replace("entailment", "not_entailment")]))
    assert labels("glue/rte", tmp_path)["train"] == "substitute"


def test_official_by_the_hash_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_squad(tmp_path)
    known = hashlib.sha256(path.read_bytes()).hexdigest()
    claim(monkeypatch, "squad_v1", train=OfficialSplit(3, file="0" * 64), validation=OfficialSplit(3, "0" * 64, known))
    by_count = "official (by row count)"  # the same rows written again have another hash
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


def test_hashes_are_cached_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change is noticed even if its time was set back, as `cp -p` and archives do."""
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    path = write_glue(tmp_path, "glue/rte")
    ref = detect("glue/rte", tmp_path)
    before, stat = open_rows("glue/rte", ref).identity, path.stat()

    def cached() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in (tmp_path / "cache").rglob("*") if file.is_file()}

    files = cached()
    assert files and open_rows("glue/rte", ref).identity == before
    assert cached() == files
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
    for file in (tmp_path / "cache" / "identity").iterdir():
        file.write_text(damage)
    assert open_rows("glue/rte", ref).identity == before
    (tmp_path / "blocked").write_text("a file where the cache should be")
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "blocked"))
    assert open_rows("glue/rte", ref).identity == before
