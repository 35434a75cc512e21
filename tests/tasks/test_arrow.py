"""Damaged Arrow and Parquet files end in a line, never in a traceback or in the end of the process."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from tasks import arrow
from tasks.base import TaskError
from tasks.tables import read_table

TEXTS = ["a text", "naïve ☕ " * 5, "x"] * 3


def arrow_file(folder: Path) -> tuple[Path, Path]:
    datasets.disable_progress_bars()
    rows = {"text": TEXTS, "label": [0, 1, 0] * 3, "nested": [[1, 2], [], [3]] * 3, "table": [{"a": "b"}] * 9}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder / "saved"))
    (file,) = (folder / "saved").glob("*.arrow")
    return file, folder / "saved"


def parquet_file(folder: Path) -> tuple[Path, Path]:
    file = folder / "rows.parquet"
    parquet.write_table(pa.table({"text": TEXTS, "label": [0, 1, 0] * 3}), file)
    return file, file


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Cut, one to four bits flipped, or a length replaced by 2^31 - 1."""
    if rng.random() < 0.3:
        return content[: rng.randrange(len(content))]
    changed = bytearray(content)
    if rng.random() < 0.3:
        at = rng.randrange(len(content) - 4)
        changed[at : at + 4] = b"\xff\xff\xff\x7f"
        return bytes(changed)
    for _ in range(rng.choice((1, 1, 1, 4))):
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def ends(path: Path) -> int:
    """How a child ends that reads the file: 0 it read rows, 1 a TaskError of one line, 2 anything else; below 0 a signal."""
    child = os.fork()
    if not child:
        code = 2
        arrow.try_in_child = lambda path: None  # type: ignore[assignment, misc]  # this child is one
        try:
            read_table(path)
            code = 0
        except TaskError as error:
            code = 2 if "\n" in str(error) else 1
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


@pytest.mark.parametrize("make", [arrow_file, parquet_file])
def test_damage_ends_in_a_line(tmp_path: Path, make: object) -> None:
    file, path = make(tmp_path)  # type: ignore[operator]
    content, rng = file.read_bytes(), random.Random(0)
    assert ends(path) == 0
    found = set()
    for _ in range(60):
        file.write_bytes(damaged(content, rng))
        code = ends(path)
        assert code in (0, 1), file.write_bytes
        found.add(code)
    assert 1 in found


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("make", [arrow_file, parquet_file])
def test_a_child_reads_a_file_once(tmp_path: Path, own_cache: Path, make: object) -> None:
    file, path = make(tmp_path)  # type: ignore[operator]
    rows = read_table(path)
    assert [values["text"] for _, values in rows] == TEXTS
    (known,) = (own_cache / "arrow").iterdir()
    first = known.stat().st_mtime_ns
    assert read_table(path) == rows and known.stat().st_mtime_ns == first
    time.sleep(0.01)
    file.write_bytes(file.read_bytes())
    assert read_table(path) == rows and len(list((own_cache / "arrow").iterdir())) == 2


def test_a_file_that_ends_its_reader_is_refused_each_time(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = parquet_file(tmp_path)
    dies = ("-c", "import os, signal; os.kill(os.getpid(), signal.SIGBUS)")
    for _ in range(2):
        with pytest.raises(TaskError, match=r"rows.parquet: the process that reads it ends by SIGBUS; it is damaged"):
            arrow.try_in_child(file, dies)
    monkeypatch.setattr(arrow, "CHILD_SECONDS", 0.5)
    with pytest.raises(TaskError, match="not read within"):
        arrow.try_in_child(file, ("-c", "import time; time.sleep(60)"))
    assert not own_cache.exists()
