"""Plans: which cells, what blocks them, and what their keys depend on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from harness.errors import QuantboardError
from harness.plan.plan import Plan, make_plan
from harness.plan.spec import Cell
from harness.run.executor import group_by_table
from harness.suite.load import load_suite
from harness.suite.measure import Measure
from tasks import DataIdentity, DataRef, SplitIdentity
from tests.machine.machines import GPU_MACHINE, MACHINE
from tests.suite.suite_mistakes import GOOD

ROOT = Path(__file__).resolve().parents[2]
REAL = {"squad_v1": DataRef("hub"), "glue/cola": DataRef("hub")}
SAMPLE = {"squad_v1": DataRef("sample"), "glue/cola": DataRef("sample")}


def identity(dev: str = "d", train: str = "t") -> dict[str, DataIdentity]:
    splits = {"train": SplitIdentity(9, 9, train, "official"), "validation": SplitIdentity(9, 9, dev, "official")}
    return {name: DataIdentity("raw", "official", splits) for name in REAL}


Make = Callable[..., Plan]


FROM_HUB = (
    'source = "scratch"\nrecipe = "finetune"\narchitecture = {',
    'source = "hub:owner/bert"\nrecipe = "finetune"\n#',
)


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """The plan of GOOD with replacements, where the hub answers unless `hub=False` is given."""
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)

    def plan(*changes: tuple[str, str], **parts: Any) -> Plan:
        text = GOOD
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new, 1)
        file = tmp_path / "one.toml"
        file.write_text(text)
        given: dict[str, Any] = {"data": REAL, "identities": identity(), "machine": MACHINE, "hub": True, **parts}
        return make_plan(load_suite(str(file)), **given)

    return plan


def find_cell(plan: Plan, model: str = "base", task: str = "squad_v1", index: int = 0, seed: int = 1) -> Cell:
    cells = [cell for cell in plan.cells if (cell.model, cell.task, cell.seed) == (model, task, seed)]
    return cells[index]


def test_models_of_one_task_and_seed_are_interleaved(make: Make) -> None:
    """In the plan the seeds of one model are adjacent, the models of one seed are not."""
    groups = group_by_table(make().cells)
    assert [{(cell.task, cell.seed) for cell in group} for group in groups] == [
        {(task, seed)} for task in make().suite.tasks for seed in (1, 2)
    ]
    assert all({cell.model for cell in group} == set(make().suite.models) for group in groups)
    assert sum(map(len, groups)) == len(make().cells)


def test_every_model_task_seed_and_backend_is_a_cell(make: Make) -> None:
    cells = make().cells
    assert len(cells) == 2 * 3 * 2 * 4
    assert len({cell.key for cell in cells}) == len(cells)
    cell = find_cell(make(), "tiny", "glue/cola", index=3, seed=2)
    assert (cell.suite, cell.backend, cell.scheme, cell.label) == (
        "one",
        "tensorrt_int8",
        "engine_int8",
        "TensorRT INT8",
    )
    assert (cell.shape.max_length, cell.shape.doc_stride, cell.batch_sizes, cell.padding) == (
        64,
        128,
        (1, 32),
        "longest",
    )
    assert (find_cell(make()).measure.rounds, cell.measure.rounds) == (5, 0)
    assert cell.measure.threads == MACHINE.cores
    assert [cell.baseline for cell in cells[:4]] == [True, False, False, False]


def test_speed_is_measured_for_the_first_seed_unless_the_suite_asks_for_all(make: Make) -> None:
    everyone = make(("[measure]", '[measure]\nseeds = "all"'))
    assert {(cell.seed, cell.measure.rounds) for cell in make().cells} == {(1, 5), (2, 0)}
    assert {(cell.seed, cell.measure.rounds) for cell in everyone.cells} == {(1, 5), (2, 5)}
    assert [cell.key for cell in everyone.cells if cell.seed == 1] == [
        cell.key for cell in make().cells if cell.seed == 1
    ]
    assert {cell.measure.rounds for cell in make(seeds=[2]).cells} == {0}
    longer = {cell.key for cell in make(("rounds = 5", "rounds = 5\nmin_duration = 9.5")).cells}
    assert {cell.seed for cell in make().cells if cell.key in longer} == {2}  # their speed is not measured


def test_data_without_a_train_split_blocks_what_is_trained_or_calibrated_on_it(make: Make) -> None:
    dev = SplitIdentity(9, 9, "d", "official")
    bare = {name: DataIdentity("raw", "official", {"validation": dev}) for name in REAL}
    reasons = {
        (cell.model, cell.label): cell.blocked and cell.blocked[0]
        for cell in make(FROM_HUB, identities=bare).cells
        if cell.task == "squad_v1" and cell.backend != "tensorrt_int8"
    }
    missing = "squad_v1: the data has no split 'train', which {} on"
    for model in ("tiny", "again"):
        assert reasons[model, "torch_fp32"] == missing.format(f"{model} is trained")
    assert reasons["base", "torch_fp32"] is None
    calibrated = [reason for (model, label), reason in reasons.items() if model == "base" and label != "torch_fp32"]
    assert calibrated == [missing.format("base is calibrated")] * 2
    assert not any(cell.blocked for cell in make(FROM_HUB).cells if cell.backend != "tensorrt_int8")


def test_data_without_rows_to_evaluate_on_blocks_every_cell(make: Make) -> None:
    train = SplitIdentity(3, 3, "a", "official")
    alone = {name: DataIdentity("raw", "official", {"train": train}) for name in REAL}
    assert {cell.blocked for cell in make(FROM_HUB, identities=alone).cells if cell.task == "squad_v1"} == {
        ("squad_v1: the data has no evaluation split", "add its dev file to the folder of --data")
    }


def test_a_cell_survives_json(make: Make) -> None:
    for cell in make().cells:
        assert Cell.from_json(json.loads(json.dumps(cell.to_json()))) == cell


def test_training_settings_are_written_out_with_the_tasks_own(make: Make) -> None:
    train = find_cell(make(), "tiny", "glue/cola").checkpoint.train
    assert train is not None
    assert (train["learning_rate"], train["epochs"], train["batch_size"], train["schedule"]) == (1e-3, 10, 16, "linear")
    plain = find_cell(make(), "tiny", "squad_v1").checkpoint
    assert plain.train is not None
    assert plain.train["epochs"] == 3
    assert plain.architecture is not None
    assert plain.architecture["hidden_size"] == 128


def test_a_post_training_scheme_is_calibrated_on_the_models_own_checkpoint(make: Make) -> None:
    plan = make()
    base, static, other = (find_cell(plan, "tiny", index=index).checkpoint for index in range(3))
    assert (static.recipe, static.scheme, static.calibration) == (
        "ptq",
        "engine_int8",
        {"samples": 128, "batch_size": 16},
    )
    assert static.parent == other.parent == base
    assert len({base.key, static.key, other.key}) == 3


def test_seeds_of_a_loaded_model_share_its_weights_and_calibrate_apart(make: Make) -> None:
    plan = make()
    assert find_cell(plan, seed=1).checkpoint.key == find_cell(plan, seed=2).checkpoint.key
    assert find_cell(plan, index=1, seed=1).checkpoint.key != find_cell(plan, index=1, seed=2).checkpoint.key
    assert find_cell(plan, "tiny", seed=1).checkpoint.key != find_cell(plan, "tiny", seed=2).checkpoint.key


def test_a_model_of_a_model_has_it_as_parent(make: Make) -> None:
    plan = make()
    again = find_cell(plan, "again", seed=2).checkpoint
    assert (again.recipe, again.source) == ("finetune", "model:tiny")
    assert again.parent == find_cell(plan, "tiny", seed=2).checkpoint
    renamed = make(("[models.tiny]", "[models.small]"), ("[models.tiny.train]", "[models.small.train]"),
                   ('[models.tiny.task."glue/cola"]', '[models.small.task."glue/cola"]'), ("model:tiny", "model:small"))  # fmt: skip
    assert find_cell(renamed, "again", seed=2).checkpoint.key == again.key


def test_selections(make: Make) -> None:
    plan = make(models=["tiny"], tasks=["glue/cola"], backends=["onnxruntime_int8", "TensorRT INT8"])
    assert [cell.label for cell in plan.cells if cell.seed == 1] == [
        "onnxruntime_int8 (engine_int8)",
        "onnxruntime_int8 (engine_int8_asymmetric)",
        "TensorRT INT8",
    ]
    assert {(cell.model, cell.task) for cell in plan.cells} == {("tiny", "glue/cola")}
    with pytest.raises(QuantboardError, match=r"^--model: 'tinny' is not in suite one; did you mean 'tiny'\?$"):
        make(models=["tinny"])
    with pytest.raises(QuantboardError, match=r"^--task: 'xyz' is not in suite one; it has squad_v1, glue/cola$"):
        make(tasks=["xyz"])


CHANGES: dict[str, tuple[tuple[tuple[str, str], ...], dict[str, Any], bool]] = {
    "nothing": ((), {}, False),
    "title": ((("A suite", "Another title"),), {}, False),
    "badge": ((("rounds = 5", "rounds = 5\nmin_accuracy = 0.5"),), {}, False),
    "other models' training": ((("epochs = 3", "epochs = 4"),), {}, False),
    "order of keys": ((("max_length = 384\ndoc_stride = 128", "doc_stride = 128\nmax_length = 384"),), {}, False),
    "place of the data": ((), {"data": {**REAL, "squad_v1": DataRef("hub", "elsewhere")}}, False),
    "training data of a loaded model": ((), {"identities": identity(train="x")}, False),
    "default threads written out": ((("rounds = 5", "rounds = 5\nthreads = 4"),), {}, False),
    "default profile written out": ((("rounds = 5", 'rounds = 5\nprofile = "quick"'),), {}, False),
    "profile": ((("rounds = 5", 'rounds = 5\nprofile = "mlperf"'),), {}, True),
    "scenario": ((("rounds = 5", 'rounds = 5\nscenarios = ["server"]'),), {}, True),
    "limit": ((), {"limit": 10}, True),
    "evaluated data": ((), {"identities": identity(dev="x")}, True),
    "unknown data": ((), {"identities": {}}, True),
    "revision": ((), {"revisions": {"hub:owner/name": "abc"}}, True),
    "cores": ((), {"machine": replace(MACHINE, cores=8)}, True),
    "processor": ((), {"machine": replace(MACHINE, cpu="Another")}, True),
    "stride": ((("doc_stride = 128", "doc_stride = 127"),), {}, True),
    "batch sizes": ((("[1, 32]", "[1, 16]"),), {}, True),
    "padding": ((("doc_stride = 128", 'doc_stride = 128\npadding = "max_length"'),), {}, True),
    "rounds": ((("rounds = 5", "rounds = 6"),), {}, True),
    "label": ((('name = "torch_fp32"', 'name = "torch_fp32"\nlabel = "x"'),), {}, True),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_key_changes_with_what_changes_the_result(make: Make, change: str) -> None:
    changes, parts, changed = CHANGES[change]
    assert (find_cell(make()).key != find_cell(make(*changes, **parts)).key) == changed


def test_training_data_belongs_to_what_is_trained_or_calibrated(make: Make) -> None:
    before, after = make(), make(identities=identity(train="x"))
    for model, index, changed in (("base", 0, False), ("base", 1, True), ("tiny", 0, True)):
        assert (find_cell(before, model, index=index).key != find_cell(after, model, index=index).key) == changed


def test_versions_belong_to_the_key(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    before = find_cell(make()).key
    monkeypatch.setattr("harness.plan.keys.MEASURE_VERSION", 999)
    assert find_cell(make()).key != before


def test_on_the_sample_every_model_is_the_stand_in(make: Make) -> None:
    plan = make(
        ("[sample.train]", "[sample.measure]\nrounds = 2\n[sample.calibration]\nsamples = 8\n[sample.train]"),
        (
            "doc_stride = 64",
            "doc_stride = 64\nbatch_sizes = [1, 4]\ntask.squad_v1 = { shape = { max_length = 96 } }",
        ),
        data=SAMPLE,
        tasks=["squad_v1"],
        hub=False,
    )
    for model in ("base", "tiny", "again"):
        spec = find_cell(plan, model).checkpoint
        assert (spec.recipe, spec.source, spec.parent) == ("finetune", "scratch", None)
        assert spec.architecture is not None
        assert spec.architecture["num_hidden_layers"] == 2
    cell = find_cell(plan, "base", index=1)
    assert cell.blocked is None
    assert (cell.shape.max_length, cell.shape.doc_stride, cell.batch_sizes) == (96, 64, (1, 4))
    assert (cell.measure.rounds, cell.measure.min_duration) == (2, Measure.min_duration)
    assert cell.checkpoint.calibration == {"samples": 8, "batch_size": 16}


def test_without_a_stand_in_a_real_model_does_not_run_on_the_sample(make: Make) -> None:
    plan = make((GOOD[GOOD.index("[sample]") :], ""), data=SAMPLE, tasks=["squad_v1"])
    blocked = find_cell(plan, "base").blocked
    assert blocked is not None
    assert "stand-in" in blocked[0]
    assert find_cell(plan, "tiny").blocked is None
    assert find_cell(plan, "again").blocked is None


def test_task_without_data_is_blocked(make: Make) -> None:
    plan = make(FROM_HUB, data={**REAL, "glue/cola": ("no data for glue/cola", "give --data DIR")})
    assert find_cell(plan, "tiny", "glue/cola").blocked == ("no data for glue/cola", "give --data DIR")
    assert find_cell(plan, "tiny").blocked is None


def test_a_gpu_backend_needs_a_gpu(make: Make) -> None:
    cell = find_cell(make(FROM_HUB), "tiny", index=3)
    assert cell.blocked is not None
    assert "no NVIDIA GPU" in cell.blocked[0]
    assert cell.device == "cpu"
    with_gpu = make(machine=GPU_MACHINE)
    expected = "cpu" if version("torch").endswith("+cpu") else "cuda"
    assert find_cell(with_gpu, "tiny").device == expected
    assert find_cell(with_gpu, "tiny").key != find_cell(make(), "tiny").key


def test_a_profile_brings_mlperfs_durations_and_bound(make: Make) -> None:
    quick = find_cell(make(("rounds = 5", ""))).measure
    assert (quick.profile, quick.rounds, quick.min_duration, quick.server_latency_ms) == ("quick", 9, 1.0, None)
    mlperf = find_cell(make(("rounds = 5", 'profile = "mlperf"\nscenarios = ["server", "multi_stream"]'))).measure
    assert (mlperf.profile, mlperf.rounds, mlperf.min_duration, mlperf.server_latency_ms) == ("mlperf", 9, 600.0, 130.0)
    assert find_cell(make(("rounds = 5", 'profile = "mlperf"\nrounds = 7'))).measure.rounds == 7
    bound = find_cell(make(("rounds = 5", 'scenarios = ["server"]\nserver_latency_ms = 12.5'))).measure
    assert (bound.profile, bound.server_latency_ms) == ("quick", 12.5)


def test_the_sample_is_always_measured_quickly(make: Make) -> None:
    found = find_cell(make(("rounds = 5", 'profile = "mlperf"'), data=SAMPLE, hub=False, tasks=["squad_v1"])).measure
    assert found.scenarios == Measure.scenarios
    assert (found.profile, found.min_duration, found.rounds) == ("quick", 1.0, 9)


def test_every_field_of_a_cell_is_in_its_key_or_changes_no_result(make: Make) -> None:
    """A new field of Cell needs a decision here."""
    free = {"data", "blocked", "key", "ancestor"}
    cell = find_cell(make(), "tiny")
    assert set(asdict(cell)) - free == {
        "suite", "model", "seed", "task", "backend", "scheme", "label", "options", "shape", "padding", "batch_sizes",
        "measure", "limit", "checkpoint", "device", "baseline",
    }  # fmt: skip
    assert replace(cell, data=DataRef("raw", "/data")).checkpoint.key == cell.checkpoint.key


def test_planning_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from harness.cli.main import main; main(['plan', 'squad_minilm', '--data', 'sample', '--json']);"
        "heavy = ('torch', 'transformers', 'onnx', 'onnxruntime', 'datasets', 'pandas', 'huggingface_hub', 'scipy');"
        "print([m for m in heavy if m in sys.modules], file=sys.stderr)"
    )
    environment: Mapping[str, str] = {"QUANTBOARD_CACHE": str(tmp_path), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
    )
    assert out.stderr.strip() == "[]"
    cells = json.loads(out.stdout)["cells"]
    assert len(cells) == 13
    assert all(cell["checkpoint"]["data"]["kind"] == "sample" for cell in cells)
