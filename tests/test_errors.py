"""Phrases that messages share."""

from __future__ import annotations

import errno
from pathlib import Path

from harness.errors import MOST_NAMES, MOVE_CACHE, cache_fault, did_you_mean, disk_fault


def test_an_unknown_name_gets_the_nearest_known_one_or_a_list() -> None:
    assert did_you_mean("lode", ["finetune", "load"]) == "; did you mean 'load'?"
    assert did_you_mean("x", ["finetune", "load"]) == "; known: finetune, load"
    assert did_you_mean("x", ["finetune"], "it has") == "; it has finetune"
    assert did_you_mean("x", []) == ""
    listed = did_you_mean("?", [f"name {number}" for number in range(MOST_NAMES + 1)])
    assert listed.count("name") == MOST_NAMES and listed.endswith(", ...")


def test_only_a_full_disk_is_told_to_free_space() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    denied = PermissionError(errno.EACCES, "Permission denied")
    assert disk_fault(full, "out", "name another folder", "cannot write the site") == (
        "out: cannot write the site: No space left on device; free some space or name another folder"
    )
    assert disk_fault(denied, "out", "name another folder") == "out: Permission denied; name another folder"


def test_the_cache_is_at_fault_only_where_it_cannot_be_written() -> None:
    folder = Path("cache")
    for error in (OSError(errno.ENOSPC, "No space left on device"), Exception("Error: I/O (os error 28)")):
        assert str(cache_fault(error, folder)) == f"cache: No space left on device; free some space or {MOVE_CACHE}"
    assert str(cache_fault(PermissionError(errno.EACCES, "Permission denied"), folder)).endswith(
        f"denied; {MOVE_CACHE}"
    )
    assert cache_fault(FileNotFoundError(errno.ENOENT, "No such file or directory"), folder) is None
    assert cache_fault(ValueError("a bug"), folder) is None
