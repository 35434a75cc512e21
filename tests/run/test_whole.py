"""Folders that are written whole or not at all, and exports of checkpoints that are damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.artefacts import is_free, whole_folder


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path, exists: bool) -> None:
    target = tmp_path / "out"
    if exists:
        target.mkdir()
        (target / ".part-of-a-killed-export").mkdir()
    assert is_free(target)
    with pytest.raises(KeyboardInterrupt), whole_folder(target) as part:
        (part / "model.onnx").write_text("half")
        raise KeyboardInterrupt
    assert is_free(target)
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * exists
    with whole_folder(target) as part:
        (part / "1_Pooling").mkdir()
        (part / "1_Pooling" / "config.json").write_text("{}")
        (part / "model.onnx").write_text("whole")
        assert not target.exists() or is_free(target)
    assert {path.relative_to(target).as_posix() for path in target.rglob("*")} == {
        "model.onnx",
        "1_Pooling",
        "1_Pooling/config.json",
    }
    assert not is_free(target)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
