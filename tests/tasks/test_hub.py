"""The hub with the official client, against a server on the loopback interface."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks import hub
from tasks.base import DataRef, TaskError
from tasks.hub import fetch, hub_reachable
from tasks.identity import cache_folder
from tasks.sources import open_rows, resolve
from tests.tasks.loopback_hub import Fault, LoopbackHub, commit
from tests.tasks.raw_files import GLUE, SQUAD_ROWS, Row

SQUAD_CARD = """---
configs:
- config_name: plain_text
  data_files:
  - {split: train, path: plain_text/train-*}
  - {split: validation, path: plain_text/validation-*}
---
"""
GLUE_CARD = """---
configs:
- config_name: cola
  data_files:
  - {split: train, path: cola/train-*}
- config_name: mnli
  data_files:
  - {split: train, path: mnli/train-*}
  - {split: validation_matched, path: mnli/validation_matched-*}
  - {split: validation_mismatched, path: mnli/validation_mismatched-*}
  - {split: test_matched, path: mnli/test_matched-*}
---
"""


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's settings and caches, and no earlier probe."""
    for name in (
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "HF_DATASETS_OFFLINE",
        "HF_TOKEN",
        "http_proxy",
        "HTTP_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setattr(hub, "_probed", {})


def parquet(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def repositories(tmp_path: Path) -> Path:
    squad = tmp_path / "served" / "datasets" / "rajpurkar" / "squad"
    parquet(squad / "plain_text" / "train-00000-of-00001.parquet", SQUAD_ROWS)
    parquet(squad / "plain_text" / "validation-00000-of-00001.parquet", SQUAD_ROWS[:2])
    (squad / "README.md").write_text(SQUAD_CARD)
    glue = tmp_path / "served" / "datasets" / "nyu-mll" / "glue"
    for split in ("train", "validation_matched", "validation_mismatched"):
        parquet(glue / "mnli" / f"{split}-00000-of-00001.parquet", GLUE["glue/mnli"][2])
    parquet(glue / "mnli" / "test_matched-00000-of-00001.parquet", [{**GLUE["glue/mnli"][2][0], "label": -1}])
    parquet(glue / "cola" / "train-00000-of-00001.parquet", GLUE["glue/cola"][2])
    (glue / "README.md").write_text(GLUE_CARD)
    return tmp_path / "served"


@pytest.fixture
def served(repositories: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    with LoopbackHub(repositories) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


# --- loading ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_squad_is_fetched_once_and_read_without_the_network(
    served: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoy = tmp_path / "work" / "rajpurkar" / "squad" / "train.csv"  # the client prefers a local folder of that name
    decoy.parent.mkdir(parents=True)
    decoy.write_text("a,b\n1,2\n")
    monkeypatch.chdir(tmp_path / "work")
    assert hub_reachable()
    source = open_rows("squad_v1", DataRef("hub"))
    assert not source.ready
    assert source.splits == ("train", "validation")
    assert source.rows("train") == SQUAD_ROWS
    assert source.ready
    identity = source.identity
    assert (identity.kind, identity.splits["train"].label) == ("hub", "subset (3 of 87,599)")
    revision = commit(served.root / "datasets" / "rajpurkar" / "squad")
    assert identity.origin == f"rajpurkar/squad@{revision}"
    # the client asked for this revision of every file
    assert {line.split("/resolve/")[1].split("/")[0] for line in served.requests if "/resolve/" in line} == {revision}
    count = len(served.requests)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    again = open_rows("squad_v1", DataRef("hub"))
    assert (again.rows("validation"), again.identity) == (SQUAD_ROWS[:2], identity)
    assert resolve("squad_v1", "real", hub_reachable()) == DataRef("hub")
    assert len(served.requests) == count
    # the user's own cache is untouched and no half-written folder is left
    assert not (tmp_path / "hf" / "hub").exists()
    assert [path.name for path in (tmp_path / "cache" / "hub").iterdir()] == ["squad_v1"]


@pytest.mark.slow
def test_glue_takes_its_configuration_and_leaves_the_test_split(served: LoopbackHub) -> None:
    source = open_rows("glue/mnli", DataRef("hub"))
    assert source.splits == ("train", "validation_matched", "validation_mismatched")
    assert source.rows("validation_mismatched") == GLUE["glue/mnli"][2]
    assert source.identity.label == "substitute"  # two rows: whatever this server has, it is not MNLI
    assert not any("/cola/" in line for line in served.requests)


# --- what goes wrong --------------------------------------------------------------------------------------------------


def refused(name: str, stall: float = 20.0) -> str:
    with pytest.raises(TaskError) as caught:
        fetch(name, stall=stall)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith("or give the data with --data DIR")
    left = list((cache_folder() / "hub").rglob("*"))
    assert [path for path in left if path.is_file()] == []
    return text


def test_not_found(served: LoopbackHub) -> None:
    served.faults.append(Fault("/api/datasets", status=404))
    text = refused("squad_v1")
    assert text.startswith(
        f"squad_v1: rajpurkar/squad at {served.url}: no such data set there (404); check HF_ENDPOINT"
    )


def test_no_access(served: LoopbackHub) -> None:
    served.faults.append(Fault("/api/datasets", status=401))
    assert "no such data set or no access (401); set HF_TOKEN to a token that may read it" in refused("squad_v1")


@pytest.mark.slow
def test_files_refused_where_the_repository_is_not(served: LoopbackHub) -> None:
    served.faults.append(Fault(r"\.parquet$", status=403))
    assert "no access (403); set HF_TOKEN" in refused("squad_v1")


@pytest.mark.slow
def test_a_download_cut_off(served: LoopbackHub) -> None:
    served.faults.append(Fault(r"train-.*\.parquet$", cut=100))
    assert "the download broke off" in refused("squad_v1")


@pytest.mark.slow
def test_a_missing_split(served: LoopbackHub) -> None:
    assert "no split 'validation'; found: train" in refused("glue/cola")


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/api/datasets", r"train-.*\.parquet$"])
def test_a_server_that_stops_answering(served: LoopbackHub, path: str) -> None:
    served.faults.append(Fault(path, silent=True))
    start = time.monotonic()
    assert "no data came for 3 s; try again later" in refused("squad_v1", stall=3.0)
    assert time.monotonic() - start < 15  # without our limit the client tries for minutes


@pytest.mark.slow
def test_broken_rows_name_their_place(repositories: Path, served: LoopbackHub) -> None:
    shifted = {**SQUAD_ROWS[1], "answers": {"text": ["1911"], "answer_start": [3]}}
    squad = repositories / "datasets" / "rajpurkar" / "squad" / "plain_text"
    parquet(squad / "train-00000-of-00001.parquet", [SQUAD_ROWS[0], shifted])
    with pytest.raises(TaskError, match=r"squad_v1/train: row 1: answer '1911' is not at its offset 3"):
        open_rows("squad_v1", DataRef("hub")).rows("train")


# --- the probe --------------------------------------------------------------------------------------------------------


def probe_seconds(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[bool, float]:
    monkeypatch.setenv("HF_ENDPOINT", url)
    start = time.monotonic()
    return hub_reachable(), time.monotonic() - start


def test_the_probe_asks_once(served: LoopbackHub) -> None:
    assert hub_reachable()
    assert hub_reachable()
    assert served.requests == ["HEAD /"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", [Fault("", silent=True), Fault("", dribble=0.5)])
def test_the_probe_gives_up(repositories: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault) -> None:
    with LoopbackHub(repositories, [fault]) as server:
        answer, seconds = probe_seconds(server.url, monkeypatch)
    assert not answer
    assert seconds < 4


@pytest.mark.slow
def test_the_probe_gives_up_on_a_name_service_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()

    def hang(*_: object, **__: object) -> None:
        hold.wait()
        raise socket.gaierror("gave up")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    answer, seconds = probe_seconds("http://hub.invalid", monkeypatch)
    hold.set()
    assert not answer
    assert seconds < 4


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "http://hub.invalid", "file:///etc", "nonsense", "http://["])
def test_the_probe_without_a_server(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    assert probe_seconds(url, monkeypatch)[0] is False


def test_the_probe_of_another_kind_of_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        threading.Thread(target=answer, daemon=True).start()
        assert probe_seconds(f"http://127.0.0.1:{port}", monkeypatch)[0] is False


@pytest.mark.parametrize(("status", "wanted"), [(404, True), (401, True), (403, False), (407, False), (503, False)])
def test_what_counts_as_the_hub(repositories: Path, monkeypatch: pytest.MonkeyPatch, status: int, wanted: bool) -> None:
    with LoopbackHub(repositories, [Fault("", status=status)]) as server:
        assert probe_seconds(server.url, monkeypatch)[0] is wanted


@pytest.mark.parametrize(("target", "wanted"), [("/home", True), ("http://portal.invalid/login", False)])
def test_a_captive_portal_is_not_the_hub(monkeypatch: pytest.MonkeyPatch, target: str, wanted: bool) -> None:
    class Portal(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(302)
            self.send_header("Location", target)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Portal)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    assert probe_seconds(f"http://127.0.0.1:{server.server_port}", monkeypatch)[0] is wanted
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE"])
def test_offline_by_setting(served: LoopbackHub, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "1")
    assert not hub_reachable()
    assert served.requests == []
    assert resolve("squad_v1", None, hub_reachable()) == DataRef("sample")
