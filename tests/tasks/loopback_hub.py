"""A small Hugging Face Hub on the loopback interface: the official client talks to it through `HF_ENDPOINT`.

Repositories are folders: `ROOT/models/ORG/NAME/FILE...` and `ROOT/datasets/ORG/NAME/FILE...`; each has the one revision
`main`. It serves the calls that huggingface_hub, transformers and datasets make to look at a repository and to download its
files: info, tree, paths-info, refs, and resolve with HEAD, GET and ranges. LFS, Xet and uploads are left out.

    with LoopbackHub(root) as hub:
        subprocess.run([...], env=hub.environment(tmp_path / "hf_home"))
        assert hub.requests

The client reads `HF_ENDPOINT` when it is imported, so set it in a process of its own. `faults` says what goes wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

INFO = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)(?:/revision/([^/]+))?")
TREE = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)/tree/([^/]+)(?:/(.*))?")
PATHS_INFO = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)/paths-info/([^/]+)")
REFS = re.compile(r"/api/(models|datasets)/([^/]+/[^/]+?)/refs")
RESOLVE = re.compile(r"/(?:(datasets)/)?([^/]+/[^/]+?)/resolve/([^/]+)/(.+)")


@dataclass(frozen=True)
class Fault:
    """What goes wrong for requests whose path matches `path`, a regular expression that is searched for.

    status: the answer's status. cut: a file's bytes from this offset on are not sent, though its full length is announced.
    silent: nothing is answered. dribble: the headers are sent one byte every so many seconds."""

    path: str
    status: int | None = None
    cut: int | None = None
    silent: bool = False
    dribble: float | None = None


class LoopbackHub:
    """The server; a context manager. `requests`: every request so far, as "GET /path"."""

    def __init__(self, root: Path, faults: Sequence[Fault] = ()) -> None:
        self.root = root
        self.faults = list(faults)
        self.requests: list[str] = []
        self.closing = threading.Event()
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def environment(self, hf_home: Path) -> dict[str, str]:
        """This process's environment, with this hub as the endpoint and caches of its own."""
        dropped = ("HF_", "HUGGING", "TRANSFORMERS_OFFLINE")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        own = {"HF_ENDPOINT": self.url, "HF_HOME": str(hf_home), "QUANTBOARD_CACHE": str(hf_home / "quantboard")}
        return {**kept, **own, "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}

    def fault(self, path: str) -> Fault | None:
        return next((fault for fault in self.faults if re.search(fault.path, path)), None)

    def repository(self, kind: str, repo: str) -> Path | None:
        folder = self.root / kind / repo
        return folder if folder.is_dir() and ".." not in repo else None

    def __enter__(self) -> LoopbackHub:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()


def commit(folder: Path) -> str:
    """The revision of a repository: 40 hex digits over its files' names and bytes."""
    state = hashlib.sha1()
    for path in files(folder):
        state.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return state.hexdigest()


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _entry(folder: Path, path: Path) -> dict[str, Any]:
    name = path.relative_to(folder).as_posix()
    if path.is_dir():
        return {"type": "directory", "oid": hashlib.sha1(name.encode()).hexdigest(), "size": 0, "path": name}
    return {"type": "file", "oid": _etag(path), "size": path.stat().st_size, "path": name}


def _etag(path: Path) -> str:
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, hub: LoopbackHub) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.hub = hub


class _Handler(BaseHTTPRequestHandler):
    """Answers one connection. The hub is the server's."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_GET  # noqa: N815

    def _answer(self) -> None:
        self.server.hub.requests.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode()
        path = unquote(urlsplit(self.path).path)
        fault = self.server.hub.fault(path)
        if fault and fault.silent:
            self.server.hub.closing.wait()
            self.close_connection = True
        elif fault and fault.dribble is not None:
            self._dribble(fault.dribble)
        elif fault and fault.status is not None:
            self._json({"error": "as the test wants it"}, fault.status)
        elif path == "/":
            self._send(b"", 200, {})
        else:
            self._route(path, body, fault)

    def _route(self, path: str, body: str, fault: Fault | None) -> None:
        routes: list[tuple[re.Pattern[str], Callable[..., None]]] = [
            (TREE, self._tree), (PATHS_INFO, self._paths_info), (REFS, self._refs), (INFO, self._info),
        ]  # fmt: skip
        for pattern, answer in routes:
            if match := pattern.fullmatch(path):
                kind, repo, *rest = match.groups()
                folder = self.server.hub.repository(kind, repo)
                return answer(folder, repo, *rest, body) if folder else self._missing("RepoNotFound")
        if match := RESOLVE.fullmatch(path):
            kind, repo, revision, name = match.groups()
            folder = self.server.hub.repository(kind or "models", repo)
            return self._resolve(folder, revision, name, fault) if folder else self._missing("RepoNotFound")
        self._missing("EntryNotFound")

    def _known(self, folder: Path, revision: str | None) -> bool:
        if revision in (None, "main", commit(folder)):
            return True
        self._missing("RevisionNotFound")
        return False

    def _info(self, folder: Path, repo: str, revision: str | None, _: str) -> None:
        if self._known(folder, revision):
            siblings = [
                {"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size}
                for path in files(folder)
            ]
            self._json(
                {
                    "_id": hashlib.md5(repo.encode()).hexdigest()[:24], "id": repo, "modelId": repo,
                    "author": repo.split("/")[0], "sha": commit(folder), "lastModified": "2024-01-01T00:00:00.000Z",
                    "createdAt": "2024-01-01T00:00:00.000Z", "private": False, "gated": False, "disabled": False,
                    "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
                }
            )  # fmt: skip

    def _tree(self, folder: Path, _: str, revision: str, below: str | None, __: str) -> None:
        start = folder / (below or "")
        if ".." in (below or "") or not start.is_dir():
            self._missing("EntryNotFound")
        elif self._known(folder, revision):
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", ["false"])[0].lower() in ("true", "1")
            paths = sorted(start.rglob("*") if recursive else start.iterdir())
            self._json([_entry(folder, path) for path in paths])

    def _paths_info(self, folder: Path, _: str, revision: str, body: str) -> None:
        if self._known(folder, revision):
            query = json.loads(body) if body.startswith("{") else parse_qs(body)
            paths = [folder / name for name in query.get("paths", []) if ".." not in name]
            self._json([_entry(folder, path) for path in paths if path.exists()])

    def _refs(self, folder: Path, _: str, __: str) -> None:
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": commit(folder)}
        self._json({"branches": [main], "tags": [], "converts": []})

    def _resolve(self, folder: Path, revision: str, name: str, fault: Fault | None) -> None:
        path = folder / name
        if ".." in name or not path.is_file():
            self._missing("EntryNotFound", {"X-Repo-Commit": commit(folder)})
            return
        if not self._known(folder, revision):
            return
        data = path.read_bytes()
        headers = {
            "ETag": f'"{_etag(path)}"', "X-Repo-Commit": commit(folder), "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }  # fmt: skip
        start, end, status = 0, len(data), 200
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end, status = int(match[1]), min(int(match[2] or len(data) - 1) + 1, len(data)), 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
        self._send(
            data[start:end],
            status,
            headers,
            None if fault is None or fault.cut is None else max(fault.cut - start, 0),
        )

    def _missing(self, code: str, headers: dict[str, str] | None = None) -> None:
        status = 401 if code == "RepoNotFound" and not self.headers.get("Authorization") else 404
        self._json({"error": code}, status, {"X-Error-Code": code, "X-Error-Message": code, **(headers or {})})

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, data: bytes, status: int, headers: dict[str, str], cut: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[:cut])
        if cut is not None and cut < len(data):
            self.close_connection = True

    def _dribble(self, seconds: float) -> None:
        self.close_connection = True
        try:
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 1000:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                if self.server.hub.closing.wait(seconds):
                    return
        except OSError:
            time.sleep(0)
