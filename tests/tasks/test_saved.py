"""Folders of `datasets.save_to_disk`: `datasets` reads ours, we read those of `datasets`, and broken ones end in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tasks.base import DataRef, TaskError
from tasks.sources import detect, open_rows, write_saved
from tests.tasks.raw_files import GLUE, SQUAD_ROWS, Row, write_glue, write_squad

if TYPE_CHECKING:
    import datasets
else:  # where it is not installed, `pytest -m gpu` must still collect the other tests
    datasets = pytest.importorskip("datasets")

SQUAD_SPLITS = {"train": SQUAD_ROWS, "validation": SQUAD_ROWS[:2]}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


def save(folder: Path, splits: dict[str, list[Row]], features: datasets.Features | None = None) -> Path:
    """Save as a user does, without our writer."""
    saved = {split: datasets.Dataset.from_list(rows, features=features) for split, rows in splits.items()}
    datasets.DatasetDict(saved).save_to_disk(str(folder))
    return folder


@pytest.mark.parametrize("name", ["squad_v1", *GLUE])
def test_what_we_write_reads_back_the_same_here_and_in_datasets(tmp_path: Path, name: str) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    if name == "squad_v1":
        write_squad(raw)
    else:
        write_glue(raw, name)
    source = open_rows(name, detect(name, raw))
    (written,) = write_saved([name], detect(name, raw), out)
    assert written == out / name
    ours, theirs = open_rows(name, detect(name, out)), datasets.load_from_disk(str(written))
    assert ours.data == DataRef("saved", str(out))
    assert ours.splits == source.splits == tuple(theirs)
    for split in source.splits:
        assert ours.rows(split) == source.rows(split)
        if name != "glue/stsb":  # float32 there: 3.8 reads as 3.799999952316284
            assert theirs[split].to_list() == source.rows(split)
    assert ours.identity.digest == source.identity.digest
    assert {s: p.label for s, p in ours.identity.splits.items()} == {
        s: p.label for s, p in source.identity.splits.items()
    }
    assert [path.name for path in written.parent.iterdir()] == [written.name]  # nothing half-written is left


@pytest.mark.parametrize("place", ["squad_v1", "squad", "squad_offline", "."])
def test_squad_where_people_keep_it(tmp_path: Path, place: str) -> None:
    save(tmp_path / "data" / place, SQUAD_SPLITS)
    source = open_rows("squad_v1", detect("squad_v1", tmp_path / "data"))
    assert source.rows("train") == SQUAD_ROWS
    assert source.rows("validation") == SQUAD_ROWS[:2]


def test_splits_saved_side_by_side(tmp_path: Path) -> None:
    for split, rows in SQUAD_SPLITS.items():
        datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "squad_offline" / split))
    assert open_rows("squad_v1", detect("squad_v1", tmp_path)).rows("train") == SQUAD_ROWS


def test_several_files_a_split(tmp_path: Path) -> None:
    rows = [{"sentence": f"s {number}", "label": number % 2, "idx": number} for number in range(50)]
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "glue" / "sst2" / "train"), num_shards=3)
    assert open_rows("glue/sst2", detect("glue/sst2", tmp_path)).rows("train") == rows


def test_glue_in_the_folder_itself_only_under_its_own_name(tmp_path: Path) -> None:
    rows = GLUE["glue/rte"][2]
    save(tmp_path / "rte", {"train": rows})
    assert open_rows("glue/rte", detect("glue/rte", tmp_path / "rte")).rows("train") == rows
    with pytest.raises(TaskError, match="no data for glue/mrpc"):  # it has the same columns
        detect("glue/mrpc", tmp_path / "rte")


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    rows = GLUE["glue/mnli"][2]
    names = ["contradiction", "entailment", "neutral"]
    text = datasets.Value("string")
    features = datasets.Features(
        premise=text, hypothesis=text, label=datasets.ClassLabel(names=names), idx=datasets.Value("int32")
    )
    save(tmp_path / "mnli", {"train": [{**row, "label": (row["label"] + 1) % 3} for row in rows]}, features)
    assert open_rows("glue/mnli", detect("glue/mnli", tmp_path)).rows("train") == rows
    # labels that are text are class names
    classes = ("entailment", "neutral", "contradiction")
    save(tmp_path / "b" / "mnli", {"train": [{**row, "label": classes[row["label"]]} for row in rows]})
    assert open_rows("glue/mnli", detect("glue/mnli", tmp_path / "b")).rows("train") == rows


def test_reading_saved_folders_imports_neither_datasets_nor_torch(tmp_path: Path) -> None:
    save(tmp_path / "squad", SQUAD_SPLITS)
    code = (
        "import sys; from pathlib import Path; from tasks.sources import detect, open_rows\n"
        f"source = open_rows('squad_v1', detect('squad_v1', Path({str(tmp_path)!r}))); source.identity\n"
        "print([m for m in ('torch', 'datasets', 'pandas', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def edit(path: Path, **parts: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **parts}))


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "data cut off": (
        lambda split: (split / "data-00000-of-00001.arrow").write_bytes(
            (split / "data-00000-of-00001.arrow").read_bytes()[:-700]
        ),
        r"data-00000-of-00001\.arrow: not readable as an Arrow stream",
    ),
    "data empty": (
        lambda split: (split / "data-00000-of-00001.arrow").write_bytes(b""),
        r"data-00000-of-00001\.arrow: not readable as an Arrow stream",
    ),
    "data missing": (
        lambda split: (split / "data-00000-of-00001.arrow").unlink(),
        r"data-00000-of-00001\.arrow: missing",
    ),
    "information missing": (lambda split: (split / "dataset_info.json").unlink(), r"dataset_info\.json: missing"),
    "state cut off": (lambda split: (split / "state.json").write_text('{"_data'), r"state\.json: cannot be read"),
    "state of another folder": (
        lambda split: edit(split / "state.json", _data_files=[{"filename": "../../../secret.arrow"}]),
        r"state\.json: lists no data files of this folder",
    ),
    "an absolute path": (
        lambda split: edit(split / "state.json", _data_files=[{"filename": "/etc/passwd"}]),
        r"state\.json: lists no data files of this folder",
    ),
    "files that are no list": (
        lambda split: edit(split / "state.json", _data_files=3),
        r"state\.json: lists no data files of this folder; save the data set again",
    ),
    "features that are no table": (
        lambda split: edit(split / "dataset_info.json", features=["question", "context", "answers"]),
        r"dataset_info\.json: 'features' is not a table of columns; save the data set again",
    ),
    "an index": (
        lambda split: edit(split / "state.json", _indices_files=[{"filename": "indices.arrow"}]),
        "saved with an index",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders_end_in_one_line(tmp_path: Path, case: str) -> None:
    damage, wanted = BROKEN[case]
    damage(save(tmp_path / "squad", {"train": SQUAD_ROWS}) / "train")
    with pytest.raises(TaskError, match=wanted) as caught:
        _ = open_rows("squad_v1", detect("squad_v1", tmp_path)).identity
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("features", "wanted"),
    [
        (["sentence", "label"], r"dataset_info\.json: 'features' is not a table of columns; save the data set again"),
        (
            {"sentence": {}, "label": {"names": [["a"], {}]}},
            r"its classes are \['a'\], \{\}, but glue/sst2 has negative, positive",
        ),
    ],
)
def test_broken_features_of_glue_end_in_one_line(tmp_path: Path, features: object, wanted: str) -> None:
    save(tmp_path / "sst2", {"train": GLUE["glue/sst2"][2]})
    edit(tmp_path / "sst2" / "train" / "dataset_info.json", features=features)
    for folder in (tmp_path, tmp_path / "sst2"):
        with pytest.raises(TaskError, match=wanted):
            open_rows("glue/sst2", detect("glue/sst2", folder)).rows("train")


def test_wrong_rows_name_folder_and_row(tmp_path: Path) -> None:
    def message(task: str, folder: str, rows: list[Row]) -> str:
        save(tmp_path / folder / task, {"train": rows})
        with pytest.raises(TaskError) as caught:
            open_rows(task, detect(task, tmp_path / folder)).rows("train")
        return str(caught.value).removeprefix(str(tmp_path / folder / task / "train"))

    good = GLUE["glue/rte"][2]
    assert message("glue/rte", "a", [good[0], {**good[1], "label": -1}]).startswith(": row 1: unknown label -1")
    lists = [{**row, "label": [row["label"]]} for row in good]
    assert message("glue/rte", "e", lists).startswith(": row 0: unknown label [")
    assert message("glue/rte", "b", [{**good[0], "sentence2": None}, good[1]]) == (
        ": row 0: 'sentence2' is not text; correct the row and save the data set again, or leave such rows out with"
        " --skip-bad-rows"
    )
    assert message("glue/rte", "c", GLUE["glue/qnli"][2]).startswith(
        ": no column 'sentence1' for glue/rte; found: question"
    )
    assert message("glue/stsb", "d", [{**GLUE["glue/stsb"][2][0], "label": 7.0}]).startswith(
        ": row 0: the score must be"
    )
    shifted = {**SQUAD_ROWS[1], "answers": {"text": ["1911"], "answer_start": [3]}}
    assert message("squad_v1", "e", [SQUAD_ROWS[0], shifted]).startswith(
        ": row 1: answer '1911' is not at its offset 3"
    )
    assert message("squad_v1", "f", [SQUAD_ROWS[0], SQUAD_ROWS[0]]).startswith(": row 1: id 0000")


def test_what_is_not_official_stays_marked(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_glue(raw, "glue/qqp")
    (raw / "quantboard.json").write_text('{"glue/qqp": {"train": "subset"}}')
    write_saved(["glue/qqp"], detect("glue/qqp", raw), out)
    splits = open_rows("glue/qqp", detect("glue/qqp", out)).identity.splits
    assert {split: part.label for split, part in splits.items()} == {
        "train": "subset (2 of 363,846)",
        "validation": "substitute",
    }
    write_saved(["squad_v1"], DataRef("sample"), out)
    source = open_rows("squad_v1", detect("squad_v1", out))
    assert source.identity.kind == "saved"
    assert source.identity.label == "sample"


def test_existing_data_is_never_overwritten(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_squad(raw)
    (out / "squad_v1").mkdir(parents=True)
    write_saved(["squad_v1"], detect("squad_v1", raw), out)
    write_squad(raw, SQUAD_ROWS[:1])
    with pytest.raises(TaskError, match="out/squad_v1: already exists and is not empty"):
        write_saved(["squad_v1"], detect("squad_v1", raw), out)
    assert open_rows("squad_v1", detect("squad_v1", out)).rows("train") == SQUAD_ROWS
    precious = tmp_path / "mine" / "squad_v1" / "thesis.txt"
    precious.parent.mkdir(parents=True)
    precious.write_text("years of work")
    with pytest.raises(TaskError, match="mine/squad_v1: already exists and is not empty"):
        write_saved(["squad_v1"], detect("squad_v1", raw), tmp_path / "mine")
    assert precious.read_text() == "years of work"


def test_no_room_on_the_disk_ends_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    """The kernel's limit on file size plays the part of a full disk: both make a write fail with an OSError."""
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_squad(raw, [{**SQUAD_ROWS[0], "id": f"{n:024x}", "context": " Zoë " + "x" * 400} for n in range(500)])
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from tasks import TaskError; from tasks.sources import detect, write_saved; import datasets\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        f"try: write_saved(['squad_v1'], detect('squad_v1', Path({str(raw)!r})), Path({str(out)!r}))\n"
        "except TaskError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"{out / 'squad_v1'}: cannot be written: ")
    assert done.stdout.count("\n") == 1
    assert list(out.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    write_squad(tmp_path / "raw")
    (tmp_path / "file").write_text("x")
    with pytest.raises(TaskError, match="file/squad_v1: cannot be written: File exists"):
        write_saved(["squad_v1"], detect("squad_v1", tmp_path / "raw"), tmp_path / "file")
