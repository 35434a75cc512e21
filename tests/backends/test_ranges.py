"""`ranges.json`: integers by hand, a bit-exact round trip, and one line of error for every way to break the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends import BackendError
from backends.ranges import Ranges, TensorRange, read_ranges, write_ranges
from backends.schemes import Quantizer, get_scheme
from tests.backends.checkpoints import add_ranges, make_checkpoint

QUERY = "encoder.layer.0.attention.self.query"
DENSE = "encoder.layer.1.output.dense"


def activation_range(scale: float, quantizer: Quantizer, zero_point: int = 0) -> TensorRange:
    return TensorRange("activation", np.array([scale], np.float32), np.array([zero_point], np.int32), None, quantizer)


@pytest.mark.parametrize(
    ("quantizer", "zero_point", "codes"),
    [
        (Quantizer(), 0, [-128, -2, -2, 0, 0, 2, 2, 127]),
        (Quantizer(narrow=True), 0, [-127, -2, -2, 0, 0, 2, 2, 127]),
        (Quantizer(rounding="half_up"), 0, [-128, -2, -1, 0, 1, 2, 3, 127]),
        (Quantizer(symmetric=False), -100, [-128, -102, -102, -100, -100, -98, -98, 127]),
        (Quantizer(bits=4), 0, [-8, -2, -2, 0, 0, 2, 2, 7]),
    ],
)
def test_codes_by_hand(quantizer: Quantizer, zero_point: int, codes: list[int]) -> None:
    """Scale 0.5, so that these values lie on ties: -1.25 is -2.5 steps, -0.75 is -1.5, 0.25 is 0.5, 1.25 is 2.5."""
    values = np.array([-1000, -1.25, -0.75, 0, 0.25, 0.75, 1.25, 1000], np.float32)
    tensor = activation_range(0.5, quantizer, zero_point)
    assert tensor.quantize(values).tolist() == codes
    assert tensor.dequantize(np.array(codes)).tolist() == [0.5 * (code - zero_point) for code in codes]


def test_channels_have_scales_of_their_own() -> None:
    tensor = TensorRange(
        "weight", np.array([1, 0.25], np.float32), np.zeros(2, np.int32), 0, get_scheme("engine_int8").weights
    )
    assert tensor.quantize(np.array([[1, 2, 3], [1, 2, 3]], np.float32)).tolist() == [[1, 2, 3], [4, 8, 12]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = make_checkpoint(tmp_path_factory.mktemp("model"))
    add_ranges(made)
    return made


def test_a_round_trip_to_the_bit(folder: Path, tmp_path: Path) -> None:
    first = read_ranges(folder)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    write_ranges(tmp_path, first)
    assert (tmp_path / "ranges.json").read_bytes() == (folder / "ranges.json").read_bytes()
    second = read_ranges(tmp_path)
    assert second.scheme == first.scheme == get_scheme("engine_int8")
    assert len(second.tensors) == 2 * 6 * 2
    for name, tensor in first.tensors.items():
        assert second.tensors[name].scale.tobytes() == tensor.scale.tobytes()
        assert second.tensors[name].axis == (0 if name.endswith(".weight") else None)
    assert len(second.tensors[f"{DENSE}.weight"].scale) == 64
    assert len(second.tensors["encoder.layer.0.intermediate.dense.weight"].scale) == 128
    assert [file.name for file in tmp_path.iterdir() if "partial" in file.name] == []


def set_(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    return lambda value: value["tensors"][name].update(changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (set_(f"{DENSE}.input", scale=[0.0]), f"'{DENSE}.input': scales must be positive"),
        (set_(f"{DENSE}.input", scale=[-0.1]), f"'{DENSE}.input': scales must be positive"),
        (set_(f"{DENSE}.input", scale=[float("nan")]), f"'{DENSE}.input': scales must be positive and finite"),
        (set_(f"{DENSE}.input", scale=[1e300]), f"'{DENSE}.input': scales must be positive and finite"),
        (set_(f"{DENSE}.input", scale=[1e-42]), f"'{DENSE}.input': scales must be positive"),
        (set_(f"{DENSE}.input", scale=[10**400]), f"'{DENSE}.input': a number is too large"),
        (set_(f"{DENSE}.input", scale=[0.1, 0.1]), f"'{DENSE}.input': scale must be a list of 1"),
        (set_(f"{DENSE}.input", scale=0.1), f"'{DENSE}.input': scale must be a list of 1"),
        (set_(f"{DENSE}.weight", scale=[0.1]), f"'{DENSE}.weight': scale must be a list of 64"),
        (set_(f"{DENSE}.weight", axis=1), f"'{DENSE}.weight': axis must be 0"),
        (set_(f"{DENSE}.input", zero_point=[3]), "zero point of a symmetric quantizer must be 0"),
        (set_(f"{DENSE}.input", zero_point=[0.0]), f"'{DENSE}.input': zero_point must be a list"),
        (set_(f"{DENSE}.input", zero_point=[2**40]), f"'{DENSE}.input'"),
        (set_(f"{DENSE}.input", bits=4), f"'{DENSE}.input': bits must be 8"),
        (set_(f"{DENSE}.input", symmetric=1), f"'{DENSE}.input': symmetric must be true"),
        (set_(f"{DENSE}.input", colour="red"), "must have exactly the keys"),
        (set_(f"{QUERY}.input", scale=[0.5]), "they are the same tensor"),
        (lambda value: value["tensors"].pop(f"{DENSE}.input"), f"no range for '{DENSE}.input'"),
        (lambda value: value["tensors"].update({"pooler.dense.weight": {}}), "unknown tensor 'pooler.dense.weight'"),
        (lambda value: value["tensors"].update({f"{DENSE}.input": None}), "must have exactly the keys"),
        (lambda value: value.update(format=2), "format 1"),
        (lambda value: value.update(tensors=[]), "must be objects"),
        (lambda value: value["scheme"].update(colour="red"), "not a quantization scheme"),
        (lambda value: value["scheme"]["weights"].update(bits=9), "bits must be"),
    ],
)
def test_a_spoilt_file_is_one_line(
    folder: Path, tmp_path: Path, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    value = json.loads((folder / "ranges.json").read_text())
    spoil(value)
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "ranges.json").write_text(json.dumps(value))
    with pytest.raises(BackendError) as raised:
        read_ranges(tmp_path)
    assert message in str(raised.value)
    assert str(tmp_path / "ranges.json") in str(raised.value)
    assert str(raised.value).endswith("; calibrate the checkpoint again")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"", b'{"format": 1, "tens', b"\xff\xfe", b"[]", b"[" * 100_000])
def test_no_json_is_one_line(folder: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    (tmp_path / "ranges.json").write_bytes(content)
    with pytest.raises(BackendError, match="calibrate the checkpoint again") as raised:
        read_ranges(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"ranges\.json is missing: calibrate"):
        read_ranges(tmp_path)


def test_zero_points_outside_the_grid_are_refused(tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "model")
    add_ranges(made, "engine_int8_asymmetric")
    value = json.loads((made / "ranges.json").read_text())
    assert value["tensors"][f"{DENSE}.input"]["zero_point"] != [0]
    value["tensors"][f"{DENSE}.input"]["zero_point"] = [128]
    (made / "ranges.json").write_text(json.dumps(value))
    with pytest.raises(BackendError, match=r"zero points must lie in -128\.\.127"):
        read_ranges(made)


def test_bad_ranges_are_not_written(folder: Path, tmp_path: Path) -> None:
    ranges = read_ranges(folder)
    bad = {**ranges.tensors, f"{DENSE}.input": activation_range(float("inf"), ranges.scheme.activations)}
    with pytest.raises(BackendError, match=rf"'{DENSE}\.input': scales must be positive and finite"):
        write_ranges(tmp_path, Ranges(ranges.scheme, bad))
    assert list(tmp_path.iterdir()) == []
