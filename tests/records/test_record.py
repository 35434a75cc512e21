"""Records are appended whole, survive a kill, and are refused where they break the schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness.cli.main import main
from harness.errors import RecordError
from harness.records import store
from harness.records.figure import Figure
from harness.records.schema import Finding, Record, Rule
from tests.records.records import make_record


def test_records_are_read_back_unrounded(tmp_path: Path) -> None:
    file = tmp_path / "suite" / "run.jsonl"
    first, second = make_record(key="a", f1=100 / 3), make_record(key="b")
    store.append(file, first)
    store.append(file, second)
    assert [record for _, record in store.read(tmp_path)] == [first, second]
    assert json.loads(file.read_text().splitlines()[0])["accuracy"][0]["metrics"]["f1"]["value"] == 100 / 3


def cuts(text: str) -> list[int]:
    """Within the first bytes, anywhere, behind an inner brace, before the last."""
    return [1, 12, 16, 200, text.index("}") + 1, text.rindex("}", 0, -1) + 1, len(text) - 1]


def test_an_incomplete_last_line_is_skipped_and_replaced_wherever_it_was_cut(tmp_path: Path) -> None:
    cut = make_record(key="cut", label="é" * 50).model_dump_json()
    within_a_letter = cut.encode().index("é".encode()) + 1
    for at in [*cuts(cut), within_a_letter]:
        file = tmp_path / str(at) / "run.jsonl"
        store.append(file, make_record(key="a"))
        with file.open("ab") as out:
            out.write(cut.encode()[:at])
        assert [record.key for _, record in store.read(file.parent)] == ["a"], at
        store.append(file, make_record(key="b"))
        assert [record.key for _, record in store.read(file.parent)] == ["a", "b"], at
        assert file.read_bytes().count(b"\n") == 2


def test_an_incomplete_first_line_counts_as_an_empty_file(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text('{"schema_ver')
    assert list(store.read(tmp_path)) == []
    store.append(file, make_record(key="b"))
    assert [record.key for _, record in store.read(tmp_path)] == ["b"]


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text(make_record(key="a").model_dump_json())
    assert [record.key for _, record in store.read(tmp_path)] == ["a"]
    store.append(file, make_record(key="b"))
    assert [record.key for _, record in store.read(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("at", cuts(make_record().model_dump_json()))
def test_an_incomplete_line_before_the_last_is_an_error(tmp_path: Path, at: int) -> None:
    text = make_record().model_dump_json()
    (tmp_path / "run.jsonl").write_text(f"{text}\n{text[:at]}\n{text}\n")
    with pytest.raises(RecordError) as caught:
        list(store.read(tmp_path))
    line = f"{tmp_path / 'run.jsonl'}: line 2: not a JSON object; restore the file from git or delete the line"
    assert str(caught.value) == line


def test_a_last_line_that_is_no_record_is_an_error_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text("somebody's notes")
    with pytest.raises(RecordError, match="line 1: not a JSON object"):
        list(store.read(tmp_path))
    store.append(file, make_record())
    assert file.read_text().startswith("somebody's notes\n{")


def a_folder(path: Path) -> None:
    path.mkdir()


def a_dangling_link(path: Path) -> None:
    path.symlink_to(path.parent / "gone")


@pytest.mark.parametrize("make", [a_folder, a_dangling_link])
def test_a_path_that_is_no_file_is_one_message(tmp_path: Path, make: Callable[[Path], None], capsys: Any) -> None:
    make(tmp_path / "x.jsonl")
    assert main(["compare", "a", "b", "--results", str(tmp_path)]) == 2
    line = f"{tmp_path / 'x.jsonl'}: not a file (a folder, or a broken link); move it out of the results folder or rename it"
    assert capsys.readouterr().err.splitlines()[0] == f"left out: {line}"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1,2]", "the line: Input should be an object: not a record of schema version 1"),
        ("[" * 100_000, "nested too deeply for a record"),
        ('{"schema_version": 1, "settings": ' + '{"a":' * 5000, "nested too deeply for a record"),
        ("1" * 5000, "not a JSON object"),
        ('{"a\\nb": 1}', None),
    ],
)
def test_a_broken_line_is_one_message_with_a_fix(tmp_path: Path, line: str, problem: str | None) -> None:
    (tmp_path / "run.jsonl").write_text(line + "\n")
    with pytest.raises(RecordError) as caught:
        list(store.read(tmp_path))
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'run.jsonl'}: line 1: {problem or ''}")
    assert message.endswith("; restore the file from git or delete the line")
    assert "\n" not in message


def without_rounds(value: dict[str, Any]) -> None:
    value["speed"][0]["rounds"] = []


def half_an_interval(value: dict[str, Any]) -> None:
    value["accuracy"][0]["metrics"]["f1"]["high"] = None


def another_primary(value: dict[str, Any]) -> None:
    value["accuracy"][0]["primary"] = "matthews"


MALFORMED: dict[str, tuple[dict[str, Any] | Callable[[dict[str, Any]], None], str]] = {
    "measure": ({"settings": {"measure": 3}}, "settings.measure: Input should be"),
    "no measure": ({"settings": {"measure": None}}, "settings.measure: Input should be"),
    "badge": ({"settings": {"measure": {"min_accuracy": "most"}}}, "settings.measure.min_accuracy: Input should be"),
    "limit": ({"settings": {"limit": "x"}}, "settings.limit: Input should be a valid integer"),
    "limit as a list": ({"settings": {"limit": [5]}}, "settings.limit: Input should be a valid integer"),
    "a GPU without a name": ({"machine": {"gpus": [{}]}}, "machine.gpus[0].name: Field required"),
    "GPUs": ({"machine": {"gpus": 1}}, "machine.gpus: Input should be a valid list"),
    "flags": ({"machine": {"flags": [1]}}, "machine.flags[0]: Input should be a valid string"),
    "suite": ({"suite": "../out"}, "suite: String should match pattern"),
    "rounds": (without_rounds, "speed[0].rounds: List should have at least 1 item"),
    "interval": (half_an_interval, "accuracy[0].metrics.f1: an interval needs both low and high"),
    "primary": (another_primary, "accuracy[0]: metrics has no 'matthews', which primary names"),
}


@pytest.mark.parametrize("case", MALFORMED)
@pytest.mark.parametrize("words", [("site",), ("compare", "a", "b")])
def test_records_that_pages_and_comparisons_could_not_read_are_refused(
    tmp_path: Path, capsys: Any, case: str, words: tuple[str, ...]
) -> None:
    change, problem = MALFORMED[case]
    value = json.loads(make_record().model_dump_json())
    value.update(change) if isinstance(change, dict) else change(value)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "run.jsonl").write_text(json.dumps(value) + "\n")
    more = ("--out", str(tmp_path / "out")) if words[0] == "site" else ()
    assert main([*words, "--results", str(tmp_path / "results"), *more]) == (1 if more else 2)
    line, *rest = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out: {tmp_path / 'results' / 'run.jsonl'}: line 1: {problem}")
    assert line.endswith("; restore the file from git or delete the line")
    assert len(rest) == (0 if more else 1)


def test_free_parts_may_hold_anything_that_nobody_reads() -> None:
    value = json.loads(make_record().model_dump_json())
    value["settings"] = {"unheard_of": [1], "measure": {"other": {}}}
    value["machine"] = {"gpus": None, "rack": 7}
    assert store.parse(value).machine["rack"] == 7


@pytest.mark.parametrize("line", ["not json", '{"schema_version": 99}', '{"schema_version": 1, "key": "a"}', "[]"])
def test_a_message_names_file_and_line(tmp_path: Path, line: str) -> None:
    file = tmp_path / "run.jsonl"
    store.append(file, make_record())
    with file.open("a") as out:
        out.write(line + "\n")
    with pytest.raises(RecordError, match=r"run\.jsonl: line 2: "):
        list(store.read(tmp_path))


def test_a_figure_is_a_finite_number() -> None:
    with pytest.raises(ValidationError):
        Figure(value=float("nan"))
    with pytest.raises(ValidationError):
        Record.model_validate_json(make_record().model_dump_json().replace('"status":"ok"', '"status":"fine"'))


def test_a_file_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="cannot write the record"):
        store.append(tmp_path / "file" / "run.jsonl", make_record())


def test_the_newest_measured_record_of_a_key_wins_over_newer_failures() -> None:
    def record(record_id: str, day: int, status: str, key: str = "a") -> Record:
        return make_record(key=key, record_id=record_id, finished=f"2026-01-0{day}T00:00:00+00:00", status=status)

    records = [
        record("failed later", 4, "failed"),
        record("old", 1, "ok"),
        record("invalid", 3, "invalid"),
        record("skipped", 1, "skipped", "b"),
        record("failed", 2, "failed", "b"),
    ]
    newest = store.newest_by_key(records)
    assert {key: record.record_id for key, record in newest.items()} == {"a": "invalid", "b": "failed"}
    assert [record.measured for record in records] == [False, True, True, False, False]


@pytest.mark.parametrize(
    ("rules", "standing", "why"),
    [
        (["noisy"], "ok", ""),
        (["noisy", "disturbed", "noisy"], "invalid", "disturbed was found"),
        (["disturbed"], "invalid", "as written then"),
    ],
)
def test_a_record_that_was_only_noisy_is_good_today(rules: list[Rule], standing: str, why: str) -> None:
    found = [Finding(rule=rule, what=f"{rule} was found", measured="m", bound="b", remedy="r") for rule in rules]
    record = make_record(status="invalid", reason="as written then", findings=found)
    assert (record.standing, record.why, len(record.faults)) == (standing, why, rules.count("disturbed"))
    assert store.parse(json.loads(record.model_dump_json())) == record


def test_a_record_that_is_not_invalid_stands_as_it_says() -> None:
    for status in ("ok", "failed", "skipped", "invalid"):
        record = make_record(status=status, reason="why")
        assert (record.standing, record.why) == (status, "why")
