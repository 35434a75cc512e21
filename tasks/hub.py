"""Data sets from the Hugging Face Hub: is it there, and fetch once.

What is fetched is kept in the user's cache as a `save_to_disk` folder; from then on it is read like any other, without the
network and without importing `datasets`. The download runs in a process of its own with the real client, since the client
retries a server that went silent for minutes and cannot be told to stop.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.base import TaskError
from tasks.forms import form_of
from tasks.identity import cache_folder

PROBE_LIMIT = 5.0
STALL_LIMIT = 60.0
"""Seconds without a byte after which a download is given up."""
FILTERED = (403, 407, 451)
"""What a firewall answers in place of the hub."""
ORIGIN = "origin.json"
_probed: dict[str, bool] = {}


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether the user told Hugging Face's libraries to stay off the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


def hub_reachable(timeout: float = 3.0) -> bool:
    """Whether the hub answers. Asked once in a process; gives up after `timeout` seconds (at most 5), whatever hangs: the
    name service, the connection, or a server that sends nothing or next to nothing."""
    url = endpoint()
    if offline():
        return False
    if url not in _probed:
        answers: list[bool] = []
        thread = threading.Thread(target=lambda: answers.append(_probe(url, timeout)), daemon=True)
        thread.start()
        thread.join(min(timeout, PROBE_LIMIT))
        _probed[url] = bool(answers and answers[0])
    return _probed[url]


class _StayHere(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _probe(url: str, timeout: float) -> bool:
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            return False
        opener = urllib.request.build_opener(_StayHere)
        with opener.open(urllib.request.Request(url + "/", method="HEAD"), timeout=timeout):
            return True
    except urllib.error.HTTPError as error:
        moved = error.headers.get("Location") if 300 <= error.code < 400 else None
        if moved:  # a captive portal sends every request to its own host
            return urlsplit(moved).hostname in (None, urlsplit(url).hostname)
        return error.code < 500 and error.code not in FILTERED
    except (OSError, ValueError, http.client.HTTPException):
        return False


def fetched(name: str) -> Path | None:
    """The folder of what was fetched before, or None."""
    folder = _folder(name)
    return folder if (folder / ORIGIN).is_file() else None


def _folder(name: str) -> Path:
    return cache_folder() / "hub" / form_of(name).name


def origin(folder: Path) -> str:
    """Repository and revision of a fetched folder."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        said = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        return f"{said['repository']}@{said['revision']}"
    return ""


def fetch(name: str, stall: float = STALL_LIMIT) -> Path:
    """The task's data as a `save_to_disk` folder in the user's cache, downloaded if it is not there yet.

    Raises TaskError with a remedy: no such repository, no access, a broken download, a server silent for `stall` seconds.
    """
    if folder := fetched(name):
        return folder
    target = _folder(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    except OSError as error:
        raise TaskError(f"{target.parent}: cannot be written: {error.strerror}; set QUANTBOARD_CACHE") from error
    try:
        said = _download(name, work, stall)
        if not said.get("error"):
            new = work / "saved"
            (new / ORIGIN).write_text(json.dumps(said) + "\n", encoding="utf-8")
            with contextlib.suppress(OSError):  # another process was faster
                new.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if folder := fetched(name):
        return folder
    repository = " ".join(part for part in form_of(name).hub if part)
    why = said.get("error") or f"{target} could not be replaced; delete it"
    raise TaskError(f"{name}: {repository} at {endpoint()}: {why}, or give the data with --data DIR")


def _download(name: str, work: Path, stall: float) -> dict[str, Any]:
    """Run this module as a program and watch that bytes come in; yields what it says."""
    home = {} if offline() else {"HF_HUB_CACHE": str(work / "hub"), "HF_DATASETS_CACHE": str(work / "datasets")}
    environment = {
        **os.environ, **home, "HF_HUB_DISABLE_XET": "1", "HF_HUB_VERBOSITY": "error", "DATASETS_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }  # fmt: skip
    log = work / "log.txt"
    show = sys.stderr.isatty()
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "tasks.hub", name, str(work)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=None if show else output,
            cwd=work,  # a local folder called like the repository would be taken for it
            env=environment,
        )
        try:
            before, since = -1, time.monotonic()
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.2)
                size = _size(work, log)
                if size != before:
                    before, since = size, time.monotonic()
                elif time.monotonic() - since > stall:
                    return {"error": f"no byte came for {stall:g} s; try again later"}
        finally:
            child.kill()
            child.wait()
            if child.stdin:
                child.stdin.close()
    try:
        said: dict[str, Any] = json.loads((work / ORIGIN).read_text(encoding="utf-8"))
        return said
    except (OSError, ValueError):
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        return {"error": f"the download ended with code {child.returncode} ({lines[-1][:200]}); try again"}


def _size(work: Path, log: Path) -> int:
    """Bytes below `work`; retry messages in the log are no progress."""
    total = 0
    for folder, _, files in os.walk(work):
        for file in files:
            path = Path(folder, file)
            if path != log:
                with contextlib.suppress(OSError):
                    total += path.lstat().st_size
    return total


def main(name: str, work: Path) -> None:
    """In the child: load with the real client, write `saved` and what it is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, and it ends us without a traceback
    threading.Thread(target=_end_with_parent, daemon=True).start()
    repository, configuration = form_of(name).hub
    said: dict[str, Any] = {"repository": repository}
    try:
        from huggingface_hub import HfApi

        revision = None if offline() else HfApi().dataset_info(repository, timeout=10).sha
        import datasets  # only now: it takes a second or more, and the hub may have refused

        loaded = datasets.load_dataset(repository, configuration, revision=revision)
        missing = [split for split in form_of(name).splits if split not in loaded]
        if missing:
            raise ValueError(f"no split '{missing[0]}'; found: {', '.join(loaded)}")
        kept = {split: loaded[split] for split in form_of(name).splits}
        datasets.DatasetDict(kept).save_to_disk(str(work / "saved"))
        said["revision"] = revision or "offline"
    except Exception as error:
        said["error"] = explain(error)
    (work / ORIGIN).write_text(json.dumps(said), encoding="utf-8")


def explain(error: BaseException) -> str:
    """What went wrong with the hub and what to do, from what its client raises."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    names = {kind.__name__ for link in chain for kind in type(link).__mro__}
    codes = {getattr(getattr(link, "response", None), "status_code", None) for link in chain}
    code = next((code for code in codes if code), None)
    first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    if code in (401, 403):
        return f"no such data set or no access ({code}); set HF_TOKEN to a token that may read it"
    if code == 404:
        return "no such data set there (404); check HF_ENDPOINT"
    if code:
        return f"the server answered {code}; try again later"
    if any("Timeout" in name for name in names):
        return "the server went silent; try again later"
    if names & {"RemoteProtocolError", "ReadError", "IncompleteRead", "ChunkedEncodingError", "ProtocolError"}:
        return f"the download broke off ({first}); try again"
    if any(isinstance(link, OSError) and link.errno == 28 for link in chain):
        return "no space left on the disk of the cache; free some or set QUANTBOARD_CACHE"
    return f"{type(error).__name__}: {first}; try again"


def _end_with_parent() -> None:
    """The parent holds the other end of standard input and never writes: its end is the parent's end."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
