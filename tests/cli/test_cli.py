"""What a user types, right and wrong: one clear line, the right exit code, nothing heavy imported."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends import backend_names
from harness.cli.main import main, parser
from harness.cli.plan_lines import plan_lines
from harness.cli.suites import RunOptions, command, plan_offline, run_options
from tests.tasks.raw_files import GLUE

ROOT = Path(__file__).resolve().parents[2]


def quantboard(*words: str, cwd: Path = ROOT, cache: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": "http://127.0.0.1:9"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    if cache:
        environment["QUANTBOARD_CACHE"] = str(cache)
    return subprocess.run(
        [sys.executable, "-m", "harness", *words], cwd=cwd, env=environment, text=True, capture_output=True, timeout=120
    )


@pytest.mark.parametrize("words", [("--help",), ("validate", "squad_int8"), ("plan", "squad_int8", "--data", "sample")])
def test_light_verbs_answer_at_once_without_an_engine(words: tuple[str, ...], tmp_path: Path) -> None:
    """Processor time, since the machine may be busy with other tests: 0.5 s on a fast one, twice that on a slow one."""
    quantboard(*words, cache=tmp_path)  # writes bytecode and hashes
    spent = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert quantboard(*words, cache=tmp_path).returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 1.0
    trace = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "harness", *words], cwd=ROOT, text=True, capture_output=True
    ).stderr
    imported = {line.rsplit("|", 1)[-1].strip() for line in trace.splitlines() if "|" in line}
    assert "harness.cli.main" in imported
    assert not imported & {"torch", "transformers", "onnx", "onnxruntime", "datasets", "pandas", "matplotlib", "numpy"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("validate", "squad_int9"), "did you mean 'squad_int8'"),
        (("validate", "no/such/file.toml"), "no such file"),
        (("run", "squad_int8", "--data", "/no/such/folder"), "no such folder"),
        (("run", "squad_int8", "--data", "sample", "--backend", "tensorrt_int9"), "tensorrt_int8"),
        (("run", "squad_int8", "--data", "sample", "--seed", "7"), "--seed: 7 is not in suite squad_int8; it has 1"),
        (("site", "--results", "/no/such/folder"), "/no/such/folder: no such folder"),
        (("score", "squad_v3", "predictions.json", "--data", "sample"), "did you mean 'squad_v2'?"),
        (("score", "squad_v1", "no-such.json", "--data", "sample"), "no-such.json"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    ended = quantboard(*words, cache=tmp_path)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("run", "squad_int8", "--limit", "few"), "'few' is not a whole number"),
        (("flops", "--layers", "0"), "must be at least 1"),
        (("plan", "squad_int8", "--data", ""), "is empty; name a folder"),
        (("pick", "model", "--labl", "topic"), "quantboard pick: '--labl' is not known here; did you mean '--label'?"),
        (("run", "sample", "twice"), "quantboard run: 'twice' is not known here"),
        (("run", "sample", "--until", "trian"), "--until: unknown value 'trian'; did you mean 'train'?"),
        (("pikc", "model"), "unknown value 'pikc'; did you mean 'pick'?"),
        (("plan",), "quantboard plan: this is missing: SUITE"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(
    words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    out, error = capsys.readouterr()
    assert (out, error.count("\n")) == ("", 1)
    assert message in error and error.endswith("--help)\n")
    assert main([*words, "--json"]) == 2
    assert message in json.loads(capsys.readouterr().out)["error"][0]


def test_without_a_word_it_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert "First try: `quantboard run sample`" in shown and "`quantboard pick MODEL --data FILE`" in shown


def test_a_file_of_rows_is_no_suite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("tickets.csv").write_text("text,label\n")
    assert main(["plan", "tickets.csv"]) == 2
    assert "quantboard pick MODEL --data tickets.csv" in capsys.readouterr().err


def test_data_writes_the_sample_only_when_asked_and_overwrites_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    ended = quantboard("data", "squad_int8", str(folder), cache=tmp_path)
    assert ended.returncode == 2 and "--data sample" in ended.stderr
    assert not folder.exists()
    words = ("data", "squad_int8", str(folder), "--data", "sample")
    assert quantboard(*words, cache=tmp_path).returncode == 0
    (folder / "squad_v1" / "notes.txt").write_text("mine")
    ended = quantboard(*words, cache=tmp_path)
    assert ended.returncode == 2 and "is not empty" in ended.stderr
    assert (folder / "squad_v1" / "notes.txt").exists()


@pytest.mark.slow
def test_data_takes_the_corpus_along_where_a_stage_reads_it(tmp_path: Path) -> None:
    """The written folder alone lets the student of minilm_distill be planned; minilm_glue reads no corpus."""
    given, corpus = tmp_path / "given", tmp_path / "given" / "corpus"
    corpus.mkdir(parents=True)
    (corpus / "a.txt").write_text("A line.\n")
    file, text, _ = GLUE["glue/sst2"]
    for split in ("train", "dev"):
        path = given / "glue" / file.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    out = tmp_path / "out"
    assert quantboard("data", "minilm_distill", str(out), "--data", str(given), cache=tmp_path).returncode == 0
    assert (out / "corpus" / "a.txt").read_text() == "A line.\n"
    planned = quantboard("plan", "minilm_distill", "--data", str(out), "--assume", "hub", "--json", cache=tmp_path)
    assert not [cell["blocked"] for cell in json.loads(planned.stdout)["cells"] if cell["blocked"]]


def test_only_the_data_of_chosen_tasks_is_needed(tmp_path: Path) -> None:
    file, text, _ = GLUE["glue/rte"]
    for split in ("train", "dev"):
        path = tmp_path / "given" / "glue" / file.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    words = ("plan", "minilm_glue", "--data", str(tmp_path / "given"), "--json")
    assert quantboard(*words, cache=tmp_path).returncode == 2
    planned = quantboard(*words, "--task", "glue/rte", cache=tmp_path)
    assert {cell["task"] for cell in json.loads(planned.stdout)["cells"]} == {"glue/rte"}


def test_a_cache_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = quantboard("run", "squad_int8", "--data", "sample", cache=tmp_path / "file")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith(f"QUANTBOARD_CACHE: {tmp_path / 'file'}: cannot be written to")
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_plan_on_the_sample_says_so(tmp_path: Path) -> None:
    assert "SAMPLE DATA" in quantboard("plan", "squad_int8", "--data", "sample", cache=tmp_path).stdout
    planned = quantboard("plan", "squad_int8", "--assume", "hub", "--assume", "gpu", cache=tmp_path).stdout
    assert "SAMPLE" not in planned
    assert quantboard("data", "squad_int8", str(tmp_path / "copy"), "--data", "sample", cache=tmp_path).returncode == 0
    planned = quantboard("plan", "squad_int8", "--data", str(tmp_path / "copy"), cache=tmp_path).stdout
    assert "SAMPLE DATA" in planned


@pytest.mark.slow
def test_json_is_json_and_nothing_else(tmp_path: Path) -> None:
    plan = json.loads(quantboard("plan", "squad_int8", "--data", "sample", "--json", cache=tmp_path).stdout)
    assert plan["cells"][0]["backend"] == "torch_fp32"
    assert json.loads(quantboard("validate", "squad_int8", "--json").stdout) == {"suite": "squad_int8", "problems": []}
    broken = json.loads(quantboard("validate", "squad_int9", "--json").stdout)
    assert "squad_int8" in broken["error"][0]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("squad_int8", "squad_int8"),
        ("suites/squad_int8.toml", "squad_int8"),
        (str(ROOT / "suites" / "squad_int8.toml"), "squad_int8"),
        ("my.toml", "./my.toml"),
        ("/home/me/secret project/my.toml", "./my.toml"),
        ("elsewhere/suites/squad_int8.toml", "./squad_int8.toml"),
    ],
)
def test_the_command_that_repeats_a_run_finds_its_suite(given: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    options = run_options(parser().parse_args(["run", given, "--data", "/home/me/data", "--seed", "2"]))
    assert command(options) == f"quantboard run {word} --data DIR --seed 2"


def test_flops_of_the_published_sizes() -> None:
    assert quantboard("flops", "--layers", "2", "--hidden", "128", "--sequence-length", "384").stdout.startswith(
        "453M (452.98M encoder"
    )
    assert quantboard("flops").stdout.startswith("70.67G")


NEEDS_MORE = (
    "there is no text corpus on the hub",
    "bert-tiny-qat: 'onnxruntime_int8' cannot run",
    "bert-tiny-qat: 'tensorrt_int8' cannot run",
    "this processor has no bfloat16 arithmetic",
)


@pytest.mark.parametrize(
    ("suite", "count"),
    [
        ("squad_tiny", 39),  # two entries that differ by a scheme are one for each seed of the trained model
        ("q8bert", 2 * 8 * 7 * 5),
        ("squad_int8", 8),
        ("tinybert", 5 * 8 * 4),
        ("glue_w8a8", 2 * 9 * 3 * 5),
        ("minilm_glue", 8 * 8),
        ("minilm_qat", 2 * 5 * 4 * 3),
    ],
)
def test_assumed_hardware_plans_every_cell(suite: str, count: int) -> None:
    cells = plan_offline(RunOptions(suite), ("gpu", "hub")).cells
    assert len(cells) == count
    assert {cell.data.kind for cell in cells} == {"hub"}
    on_cuda = {"torch_fp32", "torch_bf16", "fake_quant_w8a8", "onnxruntime_fp32", "tensorrt_fp16", "tensorrt_int8"}
    assert {cell.backend for cell in cells if cell.device == "cuda"} == {cell.backend for cell in cells} & on_cuda
    assert all(cell.blocked[0].startswith(NEEDS_MORE) for cell in cells if cell.blocked)


def test_the_plan_says_how_models_are_made() -> None:
    lines = plan_lines(plan_offline(RunOptions("tinybert", tasks=("glue/mrpc",)), ("gpu", "hub")))
    printed = " ".join(" ".join(lines).split())
    assert "distill prediction (learning rate 3e-05, epochs 3.0, batch size 32, warmup ratio 0.1" in printed
    assert "augment copies 30" in printed
    assert max(map(len, lines)) <= 80


def test_the_plan_tells_each_reason_once() -> None:
    lines = plan_lines(plan_offline(RunOptions("minilm_qat", data="sample")))
    assert max(map(len, lines)) <= 80
    plan = plan_offline(RunOptions("tinybert"))
    text = " ".join(" ".join(plan_lines(plan)).split())
    for reason in {cell.blocked[0] for cell in plan.cells if cell.blocked}:
        assert text.count(reason) == 1


def test_score_prints_percent_with_intervals(tmp_path: Path) -> None:
    from tasks.sample import sample_rows

    rows = sample_rows("squad_v1", "validation")
    right = {row["id"]: row["answers"]["text"][0] for row in rows}
    for key in list(right)[: len(right) // 4]:
        right[key] = "nothing of the kind"
    right["no-such-question"] = "an answer"
    (tmp_path / "p.json").write_text(json.dumps(right))
    done = quantboard("score", "squad_v1", str(tmp_path / "p.json"), "--data", "sample")
    assert "1 ids of" in done.stderr
    del right["no-such-question"]
    scored = json.loads(done.stdout)
    assert scored["unknown"] == 1
    refused = quantboard("score", "squad_v1", str(tmp_path / "p.json"), "--data", "sample", "--strict")
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "unknown id 'no-such-question'; remove them, or leave out --strict" in refused.stderr
    wrong = len(right) // 4
    assert scored["n"] == len(rows)
    assert scored["missing"] == 0
    assert scored["exact_match"] == pytest.approx(100 * (1 - wrong / len(rows)))
    assert (
        scored["intervals"]["exact_match"]["low"] < scored["exact_match"] < scored["intervals"]["exact_match"]["high"]
    )


@pytest.mark.slow
def test_score_of_glue_from_a_list_in_row_order(tmp_path: Path) -> None:
    from tasks.sample import sample_rows

    def scored(task: str, values: list[object], *words: str) -> dict[str, Any]:
        file = tmp_path / "p.json"
        file.write_text(json.dumps(values))
        done = quantboard("score", task, str(file), "--data", "sample", *words, cache=tmp_path)
        result: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr}
        return result

    labels = [row["label"] for row in sample_rows("glue/mrpc", "validation")]
    result = scored("glue/mrpc", [1] * len(labels))
    share = sum(labels) / len(labels)
    assert result["accuracy"] == pytest.approx(100 * share)
    assert result["f1"] == pytest.approx(100 * 2 * share / (1 + share))
    scores = [row["label"] for row in sample_rows("glue/stsb", "validation")]
    result = scored("glue/stsb", [5 - value for value in scores])
    assert (result["pearson"], result["spearman"]) == (pytest.approx(-100), pytest.approx(-100))
    names = ("entailment", "neutral", "contradiction")
    other = [names[row["label"]] for row in sample_rows("glue/mnli", "validation_mismatched")]
    result = scored("glue/mnli", list(other), "--split", "validation_mismatched")
    assert (result["accuracy"], result["split"], result["data"]) == (100.0, "validation_mismatched", "sample")
    assert scored("glue/mnli", list(other))["accuracy"] < 60
    message = scored("glue/rte", [0], "--split", "test")["error"]
    assert message == "glue/rte: no evaluation split 'test'; it has validation\n"


def test_the_doctor_names_every_backend_and_what_it_needs(tmp_path: Path) -> None:
    diagnosis = json.loads(quantboard("doctor", "--json", cache=tmp_path).stdout)
    assert set(diagnosis) == {"machine", "backends", "hub", "cache", "commit", "dirty"}
    assert diagnosis["hub"]["reachable"] is False and "--data DIR" in diagnosis["hub"]["remedy"]
    assert diagnosis["cache"] == diagnosis["cache"] | {"folder": str(tmp_path), "writable": True}
    assert set(diagnosis["backends"]) == set(backend_names())
    printed = quantboard("doctor", cache=tmp_path).stdout
    for name, state in diagnosis["backends"].items():
        (line,) = (line for line in printed.splitlines() if line.split()[0] == name)
        assert (f"runs on {state['device']}" if state["available"] else state["remedy"]) in line


PLUGINS = """
class Odd:
    distributions = ()
    def availability(self, machine):
        return 1 / 0
ODD = Odd()
"""


def test_broken_plugins_cost_their_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be imported, and one that cannot say whether it runs."""
    package = tmp_path / "plugins" / "odd-1.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1\n")
    points = "[quantboard.backends]\nodd_fp32 = odd:ODD\ngone_fp32 = no_such_module:GONE\n"
    families = "[quantboard.families]\ngone = no_such_module:GONE\n"
    (package / "entry_points.txt").write_text(points + families)
    (tmp_path / "plugins" / "odd.py").write_text(PLUGINS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plugins"))
    done = quantboard("doctor", "--json", cache=tmp_path)
    assert done.returncode == 0, done.stderr
    states = json.loads(done.stdout)["backends"]
    assert states["torch_fp32"]["available"]
    assert states["odd_fp32"]["reason"] == "it cannot say whether it runs (ZeroDivisionError: division by zero)"
    reason = "backend 'gone_fp32' of an installed package cannot be loaded (ModuleNotFoundError: No module named 'no_such_module')"
    assert states["gone_fp32"]["reason"] == reason
    assert states["gone_fp32"]["remedy"] == "mend or uninstall the package of no_such_module"


def test_the_doctor_ends_badly_where_a_required_backend_cannot_run(tmp_path: Path) -> None:
    fine = quantboard("doctor", "--require", "torch_fp32", cache=tmp_path)
    assert (fine.returncode, fine.stderr) == (0, "")
    lacking = quantboard("doctor", "--require", "torch_fp32,tensorrt_int8", "--json", cache=tmp_path)
    state = json.loads(lacking.stdout)["backends"]["tensorrt_int8"]
    if state["available"]:
        pytest.skip("this machine has TensorRT and a GPU")
    assert lacking.returncode == 1
    assert lacking.stderr == f"tensorrt_int8 is required and cannot run: {state['reason']}; {state['remedy']}\n"
    unknown = quantboard("doctor", "--require", "tensorrt_int9", cache=tmp_path)
    assert unknown.returncode == 2 and "did you mean 'tensorrt_int8'?" in unknown.stderr
