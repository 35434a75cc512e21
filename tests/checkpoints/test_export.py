"""`quantboard export`: plain transformers and ONNX Runtime load what it writes, and compute what the checkpoint computes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

from backends import BackendError, Settings, get_backend, tensor_rt
from backends.tensor_rt import TensorRT
from harness.checkpoints.export import export as write
from harness.checkpoints.export import find_checkpoint
from harness.checkpoints.make import ensure
from harness.checkpoints.origin import describe_checkpoint
from harness.cli.main import main, parser
from harness.errors import QuantboardError
from harness.plan.spec import CheckpointSpec
from harness.records import store
from harness.records.schema import Checkpoint
from tests.records.records import make_record
from tests.run.small import ptq, sample_spec

SPEC = sample_spec()
STATIC = ptq(SPEC)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache, and the records of a model on two engines."""
    folder = tmp_path_factory.mktemp("place")
    rows: tuple[tuple[str, CheckpointSpec, dict[str, Any]], ...] = (
        ("torch_fp32", SPEC, {"baseline": True}),
        ("onnxruntime_int8", STATIC, {}),
        ("tensorrt_int8", STATIC, {}),
    )
    for backend, spec, more in rows:
        checkpoint = describe_checkpoint(ensure(spec, folder / "cache"))
        record = make_record(key=backend, backend=backend, label=backend, checkpoint=checkpoint, **more)
        store.append(folder / "results" / "squad" / "run.jsonl", record)
    return folder


@pytest.fixture
def export(place: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(place / "cache"))

    def run(*words: str) -> int:
        return main(["export", *words, "--results", str(place / "results")])

    return run


def inputs(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    tokens = AutoTokenizer.from_pretrained(folder)(
        ["Who founded the museum?", "Where?"], ["It was founded by a merchant.", "In the old town."], padding=True
    )
    return {name: np.array(tokens[name], np.int64) for name in ("input_ids", "attention_mask", "token_type_ids")}


def reference(place: Path) -> np.ndarray[Any, Any]:
    folder = place / "cache" / "checkpoints" / SPEC.key
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    with torch.no_grad():
        out = model(**{name: torch.from_numpy(values) for name, values in inputs(folder).items()})
    return torch.stack([out.start_logits, out.end_logits], -1).numpy()


@pytest.mark.slow
def test_plain_transformers_loads_safetensors(place: Path, export: Any, tmp_path: Path) -> None:
    assert export("tiny", "--format", "safetensors", str(tmp_path / "out")) == 0
    assert not (tmp_path / "out" / "ranges.json").exists()  # a model's name stands for its weights before quantization
    model, report = AutoModelForQuestionAnswering.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    given = {name: torch.from_numpy(values) for name, values in inputs(tmp_path / "out").items()}
    with torch.no_grad():
        assert np.array_equal(model.eval()(**given).start_logits.numpy(), reference(place)[..., 0])


def test_plain_onnx_runtime_runs_onnx(place: Path, export: Any, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    assert export("tiny", "--format", "onnx", str(out)) == 0
    session = onnxruntime.InferenceSession(out / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, inputs(out))
    inside = inputs(out)["attention_mask"] == 1
    assert np.allclose(logits[inside], reference(place)[inside], atol=1e-4)
    assert not (out / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("cell", "grid"), [("tiny/onnxruntime_int8", onnx.TensorProto.UINT8), ("tiny/tensorrt_int8", onnx.TensorProto.INT8)]
)
def test_a_quantized_cell_is_exported_with_its_ranges(
    place: Path, export: Any, tmp_path: Path, cell: str, grid: int, capsys: Any
) -> None:
    assert export(cell, "--format", "onnx", str(tmp_path / "out"), "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["checkpoint"] == STATIC.key
    assert sorted(printed["files"]) == sorted(map(str, (tmp_path / "out").iterdir()))
    graph = onnx.load(tmp_path / "out" / "model.onnx").graph
    types = {initializer.name: initializer.data_type for initializer in graph.initializer}
    activations = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert activations
    assert {types[node.input[2]] for node in activations} == {grid}
    (logits,) = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").run(None, inputs(tmp_path / "out"))
    assert np.isfinite(logits).all()
    ranges = place / "cache" / "checkpoints" / STATIC.key / "ranges.json"
    assert (tmp_path / "out" / "ranges.json").read_bytes() == ranges.read_bytes()


@pytest.mark.parametrize(
    "name",
    ["onnxruntime_fp32", "onnxruntime_int8", "onnxruntime_int8_dynamic", "tensorrt_fp16", "tensorrt_int8"],
)
def test_a_cell_is_exported_as_the_graph_that_its_engine_ran(place: Path, tmp_path: Path, name: str) -> None:
    checkpoint = place / "cache" / "checkpoints" / STATIC.key
    record = make_record(key=name, backend=name, label=name, checkpoint=describe_checkpoint(checkpoint))
    write(checkpoint, record, f"tiny/{name}", "onnx", tmp_path / "out")
    backend, settings = get_backend(name), Settings(96, 4, 1, tmp_path / "engines")
    if isinstance(backend, TensorRT):
        given = tensor_rt.export(backend, checkpoint, settings)
    else:
        backend.prepare(checkpoint, settings, "cpu").close()
        (given,) = (tmp_path / "engines" / "onnx").glob("*.onnx")
    assert (tmp_path / "out" / "model.onnx").read_bytes() == given.read_bytes()
    assert (tmp_path / "out" / "ranges.json").exists() == name.endswith("_int8")


def test_a_float_cell_of_pytorch_is_exported_in_float(place: Path, tmp_path: Path) -> None:
    """A QAT checkpoint has ranges, which torch_fp32 ignores."""
    checkpoint = place / "cache" / "checkpoints" / STATIC.key
    record = make_record(
        key="float", backend="torch_fp32", label="torch_fp32", checkpoint=describe_checkpoint(checkpoint)
    )
    quantizers = {}
    for name in ("tiny/torch_fp32", record.record_id, "torch_fp32", "tiny"):
        out = tmp_path / name.replace("/", "-")
        write(checkpoint, record, name, "onnx", out)
        quantizers[name] = sum("QuantizeLinear" in node.op_type for node in onnx.load(out / "model.onnx").graph.node)
        assert (out / "ranges.json").exists() == (name == "tiny")
    assert quantizers.pop("tiny") > 0  # with the checkpoint's ranges
    assert set(quantizers.values()) == {0}


def test_a_bfloat16_cell_cannot_be_exported_to_onnx(place: Path, tmp_path: Path) -> None:
    checkpoint = place / "cache" / "checkpoints" / SPEC.key
    record = make_record(
        key="half", backend="torch_bf16", label="torch_bf16", checkpoint=describe_checkpoint(checkpoint)
    )
    with pytest.raises(QuantboardError) as caught:
        write(checkpoint, record, "tiny/torch_bf16", "onnx", tmp_path / "out")
    assert str(caught.value) == (
        "run-half: torch_bf16 cannot be exported to ONNX; export 'tiny' or a record of another backend, or use"
        " --format safetensors"
    )
    assert not (tmp_path / "out").exists()
    assert write(checkpoint, record, "tiny/torch_bf16", "safetensors", tmp_path / "out")


def test_a_scheme_that_no_engine_computes_is_refused_before_anything_is_written(place: Path, tmp_path: Path) -> None:
    checkpoint = ensure(ptq(SPEC, scheme="vitis_pof2"), place / "cache")
    record = make_record(
        key="vitis", backend="fake_quant_w8a8", label="vitis", checkpoint=describe_checkpoint(checkpoint)
    )
    with pytest.raises(QuantboardError) as caught:
        write(checkpoint, record, "tiny/vitis", "onnx", tmp_path / "out")
    assert str(caught.value).startswith("tiny/vitis: its scheme 'vitis_pof2' can only be simulated (it rounds")
    assert not (tmp_path / "out").exists()
    assert tmp_path / "out" / "ranges.json" in write(checkpoint, record, "tiny/vitis", "safetensors", tmp_path / "out")


def test_a_refused_graph_leaves_no_folder(place: Path, tmp_path: Path) -> None:
    """An asymmetric scheme on an engine that computes symmetric ones only; no suite can pair them."""
    checkpoint = ensure(ptq(SPEC, scheme="engine_int8_asymmetric"), place / "cache")
    record = make_record(key="skew", backend="tensorrt_int8", label="skew", checkpoint=describe_checkpoint(checkpoint))
    with pytest.raises(BackendError, match="asymmetric"):
        write(checkpoint, record, "tiny/skew", "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_name_or_folder_that_cannot_be_used_is_one_line(
    place: Path, export: Any, tmp_path: Path, capsys: Any
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("")
    for words, line in (
        (("tinny", "--format", "onnx", str(tmp_path / "a")), "no record is called 'tinny'; did you mean 'tiny'?"),
        (("tiny", "--format", "onnx", str(tmp_path / "full")), f"{tmp_path / 'full'}: is not empty; name a new folder"),
        (
            ("tiny", "--format", "onnx", str(tmp_path / "a"), "--task", "glue/rte"),
            "--task: no record of 'glue/rte'; there are squad_v1",
        ),
    ):
        assert export(*words) == 2
        assert capsys.readouterr().err.strip() == line
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("command", "again"),
    [
        ("quantboard run squad --data sample", "quantboard run squad --data sample --until quantize"),
        ("quantboard rerun run-k --data DIR", "quantboard rerun run-k --data DIR"),
    ],
)
def test_the_command_that_makes_a_missing_checkpoint_exists(tmp_path: Path, command: str, again: str) -> None:
    sizes = {"num_hidden_layers": 1}
    checkpoint = Checkpoint(key="c", recipe="load", source="s", architecture=sizes, parameters=1, weights_bytes=4)
    record = make_record(command=command, checkpoint=checkpoint)
    with pytest.raises(QuantboardError) as caught:
        find_checkpoint([record], "run-k", [], tmp_path)
    assert str(caught.value) == f"run-k: its checkpoint is not in the cache; make it again: {again}"
    parser().parse_args(again.split()[1:])


@pytest.mark.parametrize("name", ["run-no", "none", "tiny/none"])
def test_a_cell_that_was_not_measured_has_no_checkpoint(tmp_path: Path, capsys: Any, name: str) -> None:
    record = make_record(
        key="no", label="none", accuracy=[], speed=[], status="skipped", reason="no GPU", remedy="use one that has"
    )
    store.append(tmp_path / "run.jsonl", record)
    assert main(["export", name, "--format", "onnx", str(tmp_path / "out"), "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "run-no is skipped (no GPU) and has no checkpoint; use one that has\n"


def test_a_name_of_several_checkpoints_is_refused(place: Path) -> None:
    records = [record for _, record in store.read(place / "results")]
    other = make_record(
        key="rte", task="glue/rte", checkpoint=describe_checkpoint(place / "cache" / "checkpoints" / STATIC.key)
    )
    with pytest.raises(QuantboardError) as caught:
        find_checkpoint([*records, other], "tiny/torch_fp32", [], place / "cache")
    assert str(caught.value) == (
        "'tiny/torch_fp32' is 2 checkpoints: run-torch_fp32 (tiny / squad_v1 / torch_fp32 / seed 1),"
        " run-rte (tiny / glue/rte / torch_fp32 / seed 1); name one of these records, or give --task"
    )
    assert find_checkpoint([*records, other], "tiny/torch_fp32", ["glue/rte"], place / "cache")[1] is other
    of_model = find_checkpoint(records, "tiny", [], place / "cache")[1]
    assert of_model is not None
    with pytest.raises(
        QuantboardError, match="its checkpoint is not in the cache; make it again: quantboard run squad"
    ):
        find_checkpoint([of_model], "tiny", [], place / "elsewhere")


def test_weights_that_a_record_did_not_run_are_not_exported(place: Path) -> None:
    kept = describe_checkpoint(place / "cache" / "checkpoints" / STATIC.key)
    record = make_record(key="old", checkpoint=kept)
    assert find_checkpoint([record], "run-old", [], place / "cache")[1] is record
    record = make_record(
        key="old", checkpoint=kept.model_copy(update={"lineage": dict.fromkeys(kept.lineage, "others")})
    )
    with pytest.raises(
        QuantboardError, match="run-old: its checkpoint has been trained again since, so the cache holds other weights"
    ):
        find_checkpoint([record], "run-old", [], place / "cache")


def test_an_unrecorded_checkpoint_is_exported_by_its_model_or_key(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(place / "cache"))

    def call(name: str, form: str = "onnx", *more: str) -> int:
        words = ["export", name, "--format", form, str(tmp_path / f"{name}-{form}"), *more]
        return main([*words, "--results", str(tmp_path / "nothing")])

    assert call("tiny") == call(STATIC.key) == call("tiny", "safetensors") == 0
    plain, quantized = (tmp_path / f"{name}-onnx" for name in ("tiny", STATIC.key))
    assert ((plain / "ranges.json").exists(), (quantized / "ranges.json").exists()) == (False, True)
    kinds = {node.op_type for node in onnx.load(quantized / "model.onnx").graph.node}
    assert "QuantizeLinear" in kinds
    assert not {"QuantizeLinear"} & {node.op_type for node in onnx.load(plain / "model.onnx").graph.node}
    capsys.readouterr()
    assert call("another") == 2
    assert capsys.readouterr().err == "no record is called 'another'; there are no records yet\n"
    ensure(replace(SPEC, seed=SPEC.seed + 1), place / "cache")
    assert call("tiny", "safetensors") == 2
    printed = capsys.readouterr().err
    for words in ("'tiny' is 2 checkpoints in the cache: ", SPEC.key, "name one of these keys"):
        assert words in printed
