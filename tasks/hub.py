"""Data sets from the Hugging Face Hub: whether it answers, and a download that happens once.

A downloaded data set is kept in the user's cache as a `save_to_disk` folder. From then on it is read like any other, without
the network and without importing `datasets`. The download uses the official client in a process of its own, because that
client waits for minutes on a server that stopped answering and offers no way to stop it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tasks.base import TaskError
from tasks.definitions import definition_of
from tasks.identity import cache_folder

PROBE_LIMIT = 5.0
"""Seconds after which a probe of the hub is given up."""
STALL_LIMIT = 60.0
"""Seconds without a byte after which a download is given up."""
FILTERED = (403, 407, 451)
"""HTTP status codes that a firewall answers in place of the hub."""
ORIGIN = "origin.json"
_probed: dict[str, bool] = {}


def endpoint() -> str:
    """The hub's address, without a slash at the end. `HF_ENDPOINT` changes it."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether the user told Hugging Face's libraries not to use the network."""
    names = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE")
    return any(os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE") for name in names)


def hub_reachable(timeout: float = 3.0) -> bool:
    """Whether the hub answers. Each process asks once. Gives up after `timeout` seconds (at most 5), whether the name service,
    the connection or the server's answer is slow."""
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


def _probe(url: str, timeout: float) -> bool:
    import http.client  # not with the module: a plan probes nothing, and does not wait for these imports
    import urllib.error
    import urllib.request

    class NoRedirects(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any, **__: Any) -> None:
            return None

    try:
        if urlsplit(url).scheme not in ("http", "https"):
            return False
        opener = urllib.request.build_opener(NoRedirects)
        with opener.open(urllib.request.Request(url + "/", method="HEAD"), timeout=timeout):
            return True
    except urllib.error.HTTPError as error:
        target = error.headers.get("Location") if 300 <= error.code < 400 else None
        if target:  # a captive portal redirects every request to its own host
            return urlsplit(target).hostname in (None, urlsplit(url).hostname)
        return error.code < 500 and error.code not in FILTERED
    except (OSError, ValueError, http.client.HTTPException):
        return False


def fetched(name: str) -> Path | None:
    """The folder of a task's data that was downloaded before, or None."""
    folder = _folder(name)
    return folder if (folder / ORIGIN).is_file() else None


def _folder(name: str) -> Path:
    return cache_folder() / "hub" / definition_of(name).name


def origin(folder: Path) -> str:
    """`repository@revision` of a downloaded folder; empty where that is not known."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        content = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
        return f"{content['repository']}@{content['revision']}"
    return ""


def fetch(name: str, stall: float = STALL_LIMIT) -> Path:
    """The task's data as a `save_to_disk` folder in the user's cache, downloaded if it is not there yet.

    Raises TaskError, saying what to do: no such repository, no access, a broken download, or no byte for `stall` seconds.
    """
    definition = definition_of(name)
    return _fetch(name, _folder(name), definition.hub, tuple(definition.splits), stall)


def fetch_dataset(repository: str, configuration: str | None = None, stall: float = STALL_LIMIT) -> Path:
    """Any data set of the hub, as `fetch` does it: all of its splits. `NAME/CONFIG` is tried where the hub has no `OWNER/NAME` of
    this name."""
    whole = "/".join(filter(None, (repository, configuration)))
    return _fetch(
        f"hub:{whole}",
        cache_folder() / "hub" / "datasets" / whole.replace("/", "--"),
        (repository, configuration),
        (),
        stall,
    )


def _fetch(name: str, target: Path, hub: tuple[str, str | None], splits: tuple[str, ...], stall: float) -> Path:
    if (target / ORIGIN).is_file():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
    except OSError as error:
        raise TaskError(
            f"{target.parent}: cannot be written: {error.strerror}; set QUANTBOARD_CACHE to another folder"
        ) from error
    try:
        result = _download(hub, splits, work, stall)
        if not result.get("error"):
            saved = work / "saved"
            (saved / ORIGIN).write_text(json.dumps(result) + "\n", encoding="utf-8")
            with contextlib.suppress(OSError):  # another process was faster
                saved.replace(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if (target / ORIGIN).is_file():
        return target
    repository = " ".join(part for part in hub if part)
    reason = result.get("error") or f"{target} could not be replaced; delete it"
    raise TaskError(f"{name}: {repository} at {endpoint()}: {reason}, or give the data with --data DIR")


def _download(hub: tuple[str, str | None], splits: tuple[str, ...], work: Path, stall: float) -> dict[str, Any]:
    """Run this module as a program, watch that bytes come in, and return what it wrote: repository and revision, or error."""
    caches = {} if offline() else {"HF_HUB_CACHE": str(work / "hub"), "HF_DATASETS_CACHE": str(work / "datasets")}
    environment = {
        **os.environ, **caches, "HF_HUB_DISABLE_XET": "1", "HF_HUB_VERBOSITY": "error", "DATASETS_VERBOSITY": "error",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).resolve().parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }  # fmt: skip
    log = work / "log.txt"
    show = sys.stderr.isatty()
    with log.open("wb") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "tasks.hub", hub[0], hub[1] or "", ",".join(splits), str(work)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=None if show else output,
            cwd=work,  # else a local folder with the repository's name would be loaded instead
            env=environment,
        )
        try:
            last_size, since = -1, time.monotonic()
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(0.2)
                size = _size(work, log)
                if size != last_size:
                    last_size, since = size, time.monotonic()
                elif time.monotonic() - since > stall:
                    return {"error": f"no data came for {stall:g} s; try again later"}
        finally:
            child.kill()
            child.wait()
            if child.stdin:
                child.stdin.close()
    try:
        result: dict[str, Any] = json.loads((work / ORIGIN).read_text(encoding="utf-8"))
        return result
    except (OSError, ValueError):
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        return {"error": f"the download ended with code {child.returncode} ({lines[-1][:200]}); try again"}


def _size(work: Path, log: Path) -> int:
    """Bytes below `work`, without the log: messages about retries are no progress."""
    total = 0
    for folder, _, files in os.walk(work):
        for file in files:
            path = Path(folder, file)
            if path != log:
                with contextlib.suppress(OSError):
                    total += path.lstat().st_size
    return total


def main(repository: str, configuration: str | None, wanted: tuple[str, ...], work: Path) -> None:
    """The child process: download with the official client, write the folder `saved`, and what it is to `origin.json`. wanted: the
    splits that must be there; empty: all that are."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C also reaches the parent, which ends this process without a traceback
    threading.Thread(target=_end_with_parent, daemon=True).start()
    result: dict[str, Any] = {"repository": repository}
    try:
        if not wanted and not configuration:
            repository, configuration = _with_configuration(repository)
        revision = _revision(repository)
        import datasets  # only now: the import takes a second or more, and the hub may have refused above

        loaded = datasets.load_dataset(repository, configuration, revision=revision)
        missing = [split for split in wanted if split not in loaded]
        if missing:
            raise ValueError(f"no split '{missing[0]}'; found: {', '.join(loaded)}")
        splits = {split: loaded[split] for split in wanted or loaded}
        datasets.DatasetDict(splits).save_to_disk(str(work / "saved"))
        result["revision"] = revision or "offline"
    except Exception as error:
        result["error"] = explain(error)
    (work / ORIGIN).write_text(json.dumps(result), encoding="utf-8")


def _with_configuration(name: str) -> tuple[str, str | None]:
    """`OWNER/NAME` as it is; `NAME/CONFIG` of a data set without an owner, where the hub has no data set of the whole name."""
    from huggingface_hub.errors import RepositoryNotFoundError

    if "/" not in name or offline():
        return name, None
    try:
        _revision(name)
    except RepositoryNotFoundError:
        repository, _, configuration = name.partition("/")
        with contextlib.suppress(RepositoryNotFoundError):
            _revision(repository)
            return repository, configuration
        raise
    return name, None


def _revision(repository: str) -> str | None:
    from huggingface_hub import HfApi

    return None if offline() else HfApi().dataset_info(repository, timeout=10).sha


def explain(error: BaseException) -> str:
    """What went wrong with the hub and what to do, from an exception of its client and the exceptions behind it."""
    causes: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in causes:
        causes.append(cause)
        cause = cause.__cause__ or cause.__context__
    names = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    codes = {getattr(getattr(cause, "response", None), "status_code", None) for cause in causes}
    code = next((code for code in codes if code), None)
    message = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
    if code in (401, 403):
        return f"no such data set or no access ({code}); set HF_TOKEN to a token that may read it"
    if code == 404:
        return "no such data set there (404); check HF_ENDPOINT"
    if code:
        return f"the server answered {code}; try again later"
    if any("Timeout" in name for name in names):
        return "the server stopped answering; try again later"
    if names & {"RemoteProtocolError", "ReadError", "IncompleteRead", "ChunkedEncodingError", "ProtocolError"}:
        return f"the download broke off ({message}); try again"
    if any(isinstance(cause, OSError) and cause.errno == errno.ENOSPC for cause in causes):
        return "no space left on the disk of the cache; free some space or set QUANTBOARD_CACHE to another folder"
    return f"{type(error).__name__}: {message}; try again"


def _end_with_parent() -> None:
    """End this process with its parent. The parent holds the other end of standard input and never writes to it, so reading
    returns only when the parent is gone."""
    sys.stdin.buffer.read()
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] or None, tuple(filter(None, sys.argv[3].split(","))), Path(sys.argv[4]))
