"""The model of a pick: a folder, a model of the hub or a package, or ONNX files that were made elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.cli.pick_data import content
from harness.errors import QuantboardError, nearest_path
from harness.suite.own import slug

LONGEST = 512
"""Tokens to which a sequence is cut at most, also where a model could take more."""
LONGEST_QUESTION = 384
"""The same for a window of a paragraph with its question, as published scripts for SQuAD have it."""
ONNX = "onnx:"
_NUMBERED = re.compile(r"(checkpoint|step|epoch|model|output|best|final|onnx)?[-_]?\d*")
"""Names of folders that do not tell models apart."""


@dataclass(frozen=True)
class Given:
    """What is picked for. name: of the model that others are compared with. source: as suites have it, with absolute folders and
    files. folder: with its configuration and tokenizer. files: ONNX files that are compared with it, by name."""

    name: str
    source: str
    folder: Path
    files: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def only_files(self) -> bool:
        """Whether there are no weights, so that other engines have nothing to run."""
        return self.source.startswith(ONNX)


def find_model(model: str, made_from: str | None) -> Given:
    """What MODEL and --made-from name. Raises QuantboardError, SourceUnavailable, CheckpointError."""
    from harness.checkpoints.hub import find_source

    files = _onnx_files(model)
    if not files:
        if made_from:
            raise QuantboardError(f"--made-from: names what an ONNX file came from, and {model} is none; leave it out")
        source = _source(model)
        folder = find_source(source)
        beside = sorted(path.relative_to(folder) for path in (*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")))
        notes = [
            f"Its ONNX files are not run; to compare one: quantboard pick {model}/{one} --data FILE"
            for one in beside[-1:]
        ]
        return Given(slug(_model_name(model)), source, folder, notes=tuple(notes) if source.startswith("/") else ())
    home = _home(files[0])
    if made_from is None and _has_weights(home):
        made_from = str(home)
    if made_from:
        source = _source(made_from)
        folder, name = find_source(source), slug(_model_name(made_from))
        return Given(name, source, folder, {_free(file.name, name): file for file in files})
    plain = next((file for file in files if file.name == "model.onnx"), files[0].with_name("model.onnx"))
    others = [file for file in files if file != plain]
    if not others or not plain.is_file():
        raise QuantboardError(
            f"{model}: nothing here says which FP32 model it came from, to compare it with; name it:"
            f" quantboard pick {model} --made-from MODEL --data FILE"
        )
    return Given(plain.name, f"{ONNX}{plain}", home, {_free(file.name, plain.name): file for file in others})


def _onnx_files(model: str) -> list[Path]:
    """The ONNX file, or those of a folder without other weights; empty for any other model."""
    path = Path(model.removeprefix(ONNX)).expanduser()
    if path.suffix == ".onnx" or model.startswith(ONNX):
        if not path.exists():
            raise QuantboardError(f"{model}: no such file; give an ONNX file, or the folder with it")
        if path.is_file():
            return [path.parent.resolve() / path.name]
    if not path.is_dir() or (_has_weights(path) and not model.startswith(ONNX)):
        return []
    folder = path.resolve()
    return sorted({*folder.glob("*.onnx"), *folder.glob("onnx/*.onnx")})


def _has_weights(folder: Path) -> bool:
    from backends import BackendError
    from backends.model_files import weight_files

    try:
        return bool(weight_files(folder))
    except BackendError:
        return True  # an index whose files are missing: the plan says it


def _home(file: Path) -> Path:
    from backends.onnx_file import folder_of_onnx

    home = folder_of_onnx(file)
    if home is None:
        raise QuantboardError(
            f"{file}: there is no config.json beside it; copy the model's config.json and tokenizer.json there"
        )
    return home


def _free(name: str, taken: str) -> str:
    """An ONNX file's name as a model may be called."""
    name = slug(name)
    return f"{name}-file" if name == taken else name


def _source(model: str) -> str:
    """A model as suites name it, a folder by its absolute path."""
    if model.partition(":")[0] in ("hub", "package"):
        return model
    folder = Path(model).expanduser()
    if not folder.is_dir():
        hint = nearest_path(folder)
        if not hint and re.fullmatch(r"[\w.-]+/[\w.-]+", model):
            hint = f"; a model of the hub is written hub:{model}"
        other = "; give a model folder, hub:OWNER/NAME, package:NAME/FOLDER or an ONNX file"
        raise QuantboardError(f"{model}: no such folder{hint or other}")
    return str(folder.resolve())


def _model_name(model: str) -> str:
    """The last part of a model's place that tells it from others."""
    place = (
        model.partition(":")[2] if model.startswith(("hub:", "package:")) else str(Path(model).expanduser().resolve())
    )
    parts = [part for part in place.split("/") if part]
    if len(parts) > 1 and _NUMBERED.fullmatch(parts[-1].lower()):
        return f"{parts[-2]}-{parts[-1]}" if any(map(str.isdigit, parts[-1])) else parts[-2]
    return parts[-1] if parts else "model"


def max_length(folder: Path, kind: str | None) -> int:
    """Tokens to which a sequence is cut: what the tokenizer says, what the model has positions for, or the longest of the kind."""
    from backends.checkpoint import longest_sequence, read_config, read_family

    cut, most = content(folder / "tokenizer.json").get("truncation"), content(folder / "tokenizer_config.json")
    said = [(cut or {}).get("max_length"), most.get("model_max_length")]
    lengths = [int(length) for length in said if isinstance(length, int | float) and 8 <= length < LONGEST]
    longest = LONGEST_QUESTION if kind == "question_answering" else LONGEST
    return min(longest, longest_sequence(read_config(folder), read_family(folder)), *lengths)


def backends_of(given: Given) -> list[dict[str, str]]:
    """Every backend that this machine has and that runs the model, with the first scheme that it can run; no simulations. The
    registry's first is the baseline. ONNX files run on a backend of their own."""
    from backends import FOR_ONNX_FILES, backend_names, get_backend, runs_any_family, runs_traced
    from backends.families.generic import why_no_graph
    from backends.schemes import scheme_names
    from harness.machine import hardware
    from harness.plan.fit import unknown_family
    from harness.suite.backend_checks import why_unsupported

    names: Sequence[str] = [name for name in backend_names() if name != FOR_ONNX_FILES]
    if given.only_files:
        names = [FOR_ONNX_FILES]
    elif given.files:
        names = [*names[:1], FOR_ONNX_FILES, *names[1:]]
    machine, entries, generic = hardware.describe().as_dict(), [], unknown_family(given.folder)
    untraced = bool(why_no_graph(generic))
    for number, name in enumerate(names):
        backend = get_backend(name)
        if number and (backend.simulated or not backend.availability(machine).available):
            continue
        if generic and (not runs_any_family(backend) or (untraced and runs_traced(backend))):
            continue
        entry = {"name": name}
        if backend.quantizes == "static":
            entry["scheme"] = next(scheme for scheme in scheme_names() if not why_unsupported(backend, scheme))
        entries.append(entry)
    return entries
