"""A suite on two nodes of a real Ray cluster on this machine, of which one is killed in mid-run; and what is said where there is no
cluster."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.errors import QuantboardError
from harness.run.nodes import connected
from tests.run.test_run import ROOT, Checkout

SUITE = """
title = "Two tables"
tasks = ["glue/rte"]
baseline = "torch_fp32"
seeds = [1, 2]
data = "sample"
[models.small]
source = "scratch"
recipe = "finetune"
[models.small.architecture]
num_hidden_layers = 1
hidden_size = 32
num_attention_heads = 2
intermediate_size = 64
[models.small.train]
learning_rate = 1e-3
epochs = 1
max_steps = 3
batch_size = 8
[shape]
max_length = 48
batch_sizes = [8]
[[backends]]
name = "torch_fp32"
[[backends]]
name = "onnxruntime_int8_dynamic"
[[backends]]
name = "tensorrt_fp16"
[measure]
threads = 1
loads = ["real"]
scenarios = ["interleaved"]
seeds = "first"
rounds = 1
min_duration = 0.05
min_queries = 4
max_warmup = 0.1
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    made = Checkout(tmp_path / "checkout")
    (made.folder / "suites" / "small.toml").write_text(SUITE)
    made.environment |= {"OMP_NUM_THREADS": "1"}
    return made


@contextmanager
def two_nodes(folder: Path) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A cluster whose head runs nothing, and its two nodes by the beginning of their ids. Each has a cache of its own."""
    from ray.cluster_utils import Cluster

    common = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"}
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "env_vars": common, "include_dashboard": False}
    )
    try:
        nodes = [
            cluster.add_node(num_cpus=1, env_vars=common | {"QUANTBOARD_CACHE": str(folder / name)})
            for name in ("first", "second")
        ]
        yield cluster, {node.node_id[:6]: node for node in nodes}
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_a_suite_on_two_nodes_of_which_one_is_killed(tmp_path: Path, checkout: Checkout) -> None:
    pytest.importorskip("ray")
    shared = tmp_path / "shared"
    with two_nodes(tmp_path) as (cluster, nodes):
        command = checkout.command("run", "small", "--executor", "ray", "--address", cluster.address, "--json")
        said, killed = [], ""
        with (
            (tmp_path / "printed").open("w") as output,
            subprocess.Popen(
                [*command, "--artefacts", str(shared)],
                cwd=checkout.folder,
                env=checkout.environment,
                text=True,
                stdout=output,
                stderr=subprocess.PIPE,
            ) as process,
        ):
            assert process.stderr
            for line in process.stderr:
                said.append(line)
                busy = re.match(r"\[.* (\w{6})\] small / glue/rte / onnx.*: accuracy", line)
                if busy and not killed:
                    killed = busy[1]
                    cluster.remove_node(nodes[killed], allow_graceful=False)
        text = "".join(said)
        assert process.returncode == 0, text
    printed = json.loads((tmp_path / "printed").read_text())
    assert killed and re.search(rf"{killed} was lost .*; glue/rte / seed \d runs elsewhere", text), text
    # complete, nothing doubled
    recorded = checkout.records()
    assert len(recorded) == len({record["record_id"] for record in recorded}) == 6
    planned = [cell["key"] for cell in json.loads(checkout.run("plan", "small", "--json").stdout)["cells"]]
    assert [record["key"] for record in printed] == planned
    assert Counter(record["status"].replace("invalid", "ok") for record in recorded) == {"ok": 4, "skipped": 2}, text
    assert {record["reason"] for record in recorded if record["status"] == "skipped"} == {
        record["reason"] for record in printed if record["label"] == "tensorrt_fp16"
    }
    assert [record["seed"] for record in printed if record["turns"]] == [1, 1]
    # a local run believes them, and their scores
    again = checkout.run("run", "small", "--json")
    assert again.stderr.count("finished earlier") == 4, again.stderr
    assert checkout.records() == recorded
    # the trained models and the ONNX files are in the store, sealed
    assert len(list(shared.glob("checkpoints/*.tar"))) == 2
    assert list(shared.glob("onnx/*.onnx.tar")) and list(shared.glob("features/*.npz.tar"))
    assert not list(shared.rglob("*.part"))


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nowhere", "'nowhere' is not HOST:PORT"),
        ("ray://head:10001", "is for Ray's client"),
        ("closed", r"nothing answers at 127.0.0.1:\d+ \(Connection refused\); start the head there"),
        ("other", r"what answers at 127.0.0.1:\d+ is no Ray head"),
    ],
)
def test_a_bad_address_is_one_line(address: str, words: str) -> None:
    pytest.importorskip("ray")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        if address == "other":
            other.listen()
        if address in ("closed", "other"):
            address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(QuantboardError, match=words) as caught, connected(address):
            pytest.fail("connected")
    assert "\n" not in str(caught.value)


def test_without_ray_the_fix_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(QuantboardError, match="Ray is not installed; python -m pip install 'ray"), connected(None):
        pytest.fail("connected")


def test_options_of_a_cluster_need_one(checkout: Checkout) -> None:
    ended = checkout.run("run", "small", "--address", "127.0.0.1:6379")
    assert (ended.returncode, ended.stderr) == (2, "--address: is for a cluster only; add --executor ray\n")
