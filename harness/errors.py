"""What can end a command early.

    QuantboardError          a fault of the user's input or of this machine: printed as one line, exit code 2
      SuiteError             a suite file with problems: every one of them, a line each
      CheckpointError        a source that cannot be had, or a recipe that cannot be followed: its cells are failed or skipped
        SourceUnavailable    the source is not reachable here (no network, no package): its cells are skipped, with the remedy
        WorkerFailed         one of several processes of a training ended badly
      RecordError            a results file that cannot be read or written

`tasks.TaskError` and `backends.BackendError` are the same kind of thing in their rooms. Anything else is a bug and ends in a traceback.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)


def disk_fault(error: Exception, folder: Path) -> CheckpointError | None:
    """What to say of a disk that is full or cannot be written; None for any other error."""
    number = getattr(error, "errno", None)
    if not isinstance(error, OSError) and "os error 28" in str(error):  # safetensors' own exception
        number = errno.ENOSPC
    if number not in _DISK:
        return None
    return CheckpointError(f"{folder}: {os.strerror(number)}; free some space or move the cache with QUANTBOARD_CACHE")


class QuantboardError(Exception):
    """One clear line: what is wrong, where, and the remedy."""


class SuiteError(QuantboardError):
    """All problems of one suite file; `problems` has a line each: `FILE: key.path: what is wrong; did you mean ...`."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class CheckpointError(QuantboardError):
    """A checkpoint that cannot be made."""


class SourceUnavailable(CheckpointError):
    """A checkpoint's source that this machine cannot reach."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(f"{reason}; {remedy}")
        self.reason = reason
        self.remedy = remedy


class WorkerFailed(CheckpointError):
    """A process of a training ended badly; `log` has the last lines that it wrote, where it wrote to a file of its own."""

    def __init__(self, reason: str, log: Sequence[str]) -> None:
        super().__init__(reason)
        self.log = tuple(log)


class RecordError(QuantboardError):
    """A results file that cannot be read or written."""


Where = tuple[str | int, ...]
"""Keys and list positions from the top of the file."""


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def path(where: Where) -> str:
    """`models.bert.task."glue/cola".train`, `backends[1].name`."""
    text = ""
    for part in where:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        short = part if len(part) <= 60 else part[:60] + "..."
        text += ("." if text else "") + (short if _BARE.fullmatch(short) else json.dumps(short, ensure_ascii=False))
    return text


def printable(text: str) -> str:
    """The same with line breaks, control characters and lone surrogates written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
