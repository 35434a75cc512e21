"""The weight files of a model folder: one safetensors file, several with an index, or PyTorch's own format.

Reads headers with the standard library alone, so that a plan can check a model's tensors without an engine, and within milliseconds.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.base import BackendError

if TYPE_CHECKING:
    import numpy as np

SAFETENSORS, PICKLED = "model.safetensors", "pytorch_model.bin"
PATTERNS = (SAFETENSORS, "model-*-of-*.safetensors", f"{SAFETENSORS}.index.json")
PICKLED_PATTERNS = (PICKLED, "pytorch_model-*-of-*.bin", f"{PICKLED}.index.json")
FLOATS: Mapping[str, str] = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""safetensors' names of floating-point types, and NumPy's; bfloat16, which NumPy lacks, is read as its bits."""

BROKEN_PICKLE = "it is broken or no file of weights; download or save it again"
_PLAIN_GLOBALS = frozenset(
    [
        "_codecs.encode",
        *(f"{of}.{name}" for of in ("builtins", "__builtin__") for name in ("bytearray", "set", "complex")),
    ]
)
"""What PyTorch rebuilds beside its own objects and those of `collections` with `weights_only=True`."""
_MOST_PICKLED = 1 << 26
"""Bytes of a pickle that are looked at: it holds names and sizes, the numbers lie elsewhere."""
_LONGEST_HEADER = 100_000_000
"""Bytes; safetensors has the same limit."""


def weight_files(folder: Path) -> list[Path]:
    """The files with a model's weights, as transformers finds them: `model.safetensors`, the files that its index names, or the
    same of `pytorch_model.bin`. Empty where there are none. Raises BackendError for an index that is broken or names a missing
    file."""
    for single in (SAFETENSORS, PICKLED):
        if (folder / single).is_file():
            return [folder / single]
        index = folder / f"{single}.index.json"
        if index.is_file():
            return _indexed(index)
    return []


def is_pickled(file: Path) -> bool:
    return file.suffix == ".bin"


def pickle_fault(file: Path) -> str:
    """Why weights in PyTorch's own format will not be read, as far as the names in the pickle tell; empty where they tell nothing.
    Nothing is unpickled."""
    import zipfile

    try:
        with file.open("rb") as stream:
            if stream.read(1) == b"\x80":  # before PyTorch 1.6: several pickles, of which the first is a number
                return _foreign(b"\x80" + stream.read(1 << 16))
        with zipfile.ZipFile(file) as archive:
            inner = next(entry for entry in archive.infolist() if entry.filename.endswith("data.pkl"))
            return _foreign(archive.read(inner)) if inner.file_size <= _MOST_PICKLED else ""
    except (OSError, StopIteration, zipfile.BadZipFile):
        return BROKEN_PICKLE


def _foreign(content: bytes) -> str:
    from pickletools import genops

    try:
        names = [str(argument).replace(" ", ".") for code, argument, _ in genops(content) if code.name == "GLOBAL"]
    except ValueError:  # it is cut short here, or broken: reading it tells
        return ""
    others = [name for name in names if not name.startswith(("torch.", "collections.")) and name not in _PLAIN_GLOBALS]
    return no_tensor(others[0]) if others else ""


def no_tensor(name: str) -> str:
    return f"it holds {name}, which is no tensor and could run code, so it was not read; ask its author for model.safetensors"


def _indexed(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BackendError(f"{index}: is no index of weight files; save the model again") from None
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise BackendError(f"{index}: names {name!r}, which is no file beside it; save the model again")
        if not (index.parent / name).is_file():
            raise BackendError(f"{index}: {name} is missing; copy all files of the model")
    return [index.parent / name for name in names]


def tensor_headers(file: Path) -> dict[str, dict[str, Any]]:
    """For each tensor of a safetensors file its `dtype`, `shape` and `data_offsets` from the end of the header. Raises
    BackendError."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                raise ValueError("the header is too long")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = file.stat().st_size - 8 - length
        for entry in header.values():
            first, last = entry["data_offsets"]
            if not 0 <= first <= last <= end or not isinstance(entry["dtype"], str):
                raise ValueError("the file is cut short")
            entry["shape"] = [int(size) for size in entry["shape"]]
            kind = FLOATS.get(entry["dtype"])
            if kind and prod(entry["shape"]) * int(kind[-1]) != last - first:
                raise ValueError("a tensor's size is not that of its shape")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error) as error:
        raise BackendError(f"{file}: cannot be read ({error}); save or copy the model again") from None
    return dict(header)


def stored_shapes(files: Sequence[Path]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of safetensors files, by stored name. Raises BackendError."""
    return {name: tuple(entry["shape"]) for file in files for name, entry in tensor_headers(file).items()}


def clean_names(names: Iterable[str]) -> dict[str, str]:
    """Stored name -> name in transformers: without the `module.` of a model that was trained in parallel or `_orig_mod.` of a
    compiled one, where every name has it, and with LayerNorm's weight and bias for gamma and beta."""
    names = list(names)
    prefix = ""
    for part in ("module.", "_orig_mod.", "module."):
        if names and all(name.startswith(prefix + part) for name in names):
            prefix += part
    return {name: _new_norm(name.removeprefix(prefix)) for name in names}


def _new_norm(name: str) -> str:
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(f"LayerNorm{old}"):
            return name.removesuffix(old) + new
    return name


def read_float(file: Path, entry: Mapping[str, Any], start: int) -> np.ndarray[Any, Any]:
    """A tensor of one of FLOATS as float32; values too large for it become infinite. entry: of `tensor_headers`. start: the
    first byte after the header."""
    import numpy as np

    first, last = entry["data_offsets"]
    kind = np.dtype(FLOATS[entry["dtype"]])
    values = np.fromfile(file, kind, (last - first) // kind.itemsize, offset=start + first)
    if entry["dtype"] == "BF16":
        values = (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return values.astype(np.float32, copy=False).reshape(entry["shape"])


def data_start(file: Path) -> int:
    """The first byte after a safetensors file's header."""
    with file.open("rb") as stream:
        return 8 + int(struct.unpack("<Q", stream.read(8))[0])


def first_not_finite(file: Path) -> str | None:
    """The first float tensor of a safetensors file with a value that is not finite, or too large for float32. Raises
    BackendError."""
    import numpy as np

    start = data_start(file)
    for name, entry in tensor_headers(file).items():
        if entry["dtype"] in FLOATS and not np.isfinite(read_float(file, entry, start)).all():
            return name
    return None
