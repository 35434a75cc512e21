"""The errors that end a command with a message, and the phrases that messages share.

    QuantboardError          wrong input or a fault of this machine: printed as one line, exit code 2
      SuiteError             a suite file with problems: one line for each
      CheckpointError        a checkpoint that cannot be made: its cells fail
        SourceUnavailable    its source cannot be reached here (no network, no package): its cells are skipped
        WorkerFailed         one of several training processes failed
      RecordError            a results file that cannot be read or written

`tasks.TaskError` and `backends.BackendError` are their counterparts in those packages. Anything else is a bug and ends in a
traceback.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path


class QuantboardError(Exception):
    """One clear line: what is wrong, where, and a fix."""


class SuiteError(QuantboardError):
    """All problems of one suite file. Each line of `problems` reads `FILE: key.path: what is wrong; did you mean ...`."""

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
    """A training process failed. log: its last lines, where it wrote to a file of its own."""

    def __init__(self, reason: str, log: Sequence[str]) -> None:
        super().__init__(reason)
        self.log = tuple(log)


class RecordError(QuantboardError):
    """A results file that cannot be read or written."""


Tell = Callable[[str], None]
"""Called with a line about a part of what is read that is left out because it is damaged."""


def refuse(fault: str) -> None:
    """The `Tell` of callers that need all of it: raises RecordError."""
    raise RecordError(fault)


_FULL = (errno.ENOSPC, errno.EDQUOT)
_UNWRITABLE = (*_FULL, errno.EROFS, errno.EACCES, errno.EPERM)

MOVE_CACHE = "move the cache with QUANTBOARD_CACHE"
"""The fix where the cache cannot be written to."""


def disk_fault(error: OSError, path: Path | str, fix: str, what: str = "") -> str:
    """One line about a file or folder that cannot be written: `PATH: WHAT: REASON; FIX`. On a full disk the fix begins
    with freeing some space."""
    reason = error.strerror or str(error)
    return f"{path}: {what}{': ' if what else ''}{reason}; {'free some space or ' if error.errno in _FULL else ''}{fix}"


def cache_fault(error: Exception, folder: Path) -> CheckpointError | None:
    """The error to raise for a cache that is full or cannot be written to; None for any other error."""
    if not isinstance(error, OSError):
        if "os error 28" not in str(error):  # how safetensors' own exception reports a full disk
            return None
        error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return CheckpointError(disk_fault(error, folder, MOVE_CACHE)) if error.errno in _UNWRITABLE else None


MOST_NAMES = 12
"""How many known names a message lists."""


def did_you_mean(word: str, known: Iterable[str], intro: str = "known:") -> str:
    """How a message about an unknown name ends: `; did you mean 'NEAREST'?`, or a list of the known names after `intro`
    where none is near. Empty where no name is known."""
    names = list(known)
    if nearest := difflib.get_close_matches(word[:80], names, 1, 0.5):
        return f"; did you mean '{nearest[0]}'?"
    more = ", ..." if len(names) > MOST_NAMES else ""
    return f"; {intro} {', '.join(names[:MOST_NAMES])}{more}" if names else ""


def nearest_path(path: Path) -> str:
    """How a message about a path that is not there ends: `; did you mean PATH?`, with what lies beside it. Empty where nothing
    is near."""
    try:
        names = [beside.name for beside in path.parent.iterdir()]
    except OSError:
        return ""
    near = [name for name in names if difflib.SequenceMatcher(None, path.stem, Path(name).stem).ratio() >= 0.75]
    nearest = difflib.get_close_matches(path.name, near, 1)
    return f"; did you mean {path.with_name(nearest[0])}?" if nearest else ""


KeyPath = tuple[str | int, ...]
"""Keys and list positions that lead from the top of a file to a value."""


_BARE = re.compile(r"[A-Za-z0-9_-]+")


def key_path(keys: KeyPath) -> str:
    """A key path as users write it: `models.bert.task."glue/cola".train`, `backends[1].name`."""
    text = ""
    for part in keys:
        if isinstance(part, int):
            text += f"[{part}]"
            continue
        short = part if len(part) <= 60 else part[:60] + "..."
        text += ("." if text else "") + (short if _BARE.fullmatch(short) else json.dumps(short, ensure_ascii=False))
    return text


def printable(text: str) -> str:
    """The text with line breaks, control characters and lone surrogates written as escapes."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )


_COMMANDS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060\u2066-\u2069\ufeff\ud800-\udfff]"
)
"""Characters that terminals, browsers and editors obey: control characters, which begin escape sequences, marks that turn the
direction of what follows (CVE-2021-42574), marks without width, and halves of characters."""

_COMMON = b"\t\n" + bytes(range(32, 127))
"""Characters that nearly all text is of, none of them in _COMMANDS."""


def visible(text: str) -> str:
    """Text of a log, a record or data, so that whoever shows it obeys nothing in it. Line breaks and tabs stay."""
    rare = text.encode(errors="surrogatepass").translate(None, _COMMON)
    if not _COMMANDS.search(rare.decode(errors="surrogatepass")):
        return text
    return _COMMANDS.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def markdown(text: str) -> str:
    """Text on one line of Markdown, without links, images, code, HTML or columns of a table."""
    line = " ".join(visible(text).split()).replace("\\", "\\\\")
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([`*|])", r"\\\1", line)
    line = re.sub(r"\](?=[(\[:])|~(?=~)|(?<!\w)_|_(?!\w)", lambda found: "\\" + found[0], line)
    return line.replace("://", ":\\//").replace("www.", "www\\.")
