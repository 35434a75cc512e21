"""A suite file -> Suite. Strict: the whole file, every name in it and every combination are checked before anything heavy is
imported, and every problem is told in one go: `FILE: key.path: what is wrong; did you mean ...`."""

from __future__ import annotations

import difflib
import json
import re
import sys
import tomllib
import types
import typing
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness import paths
from harness.errors import SuiteError

NAME = r"[a-z0-9][a-z0-9._-]*"
MAX_BYTES = 1_000_000


class Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ShapeTable(Table):
    """How examples become token sequences, and batches."""

    max_length: int = Field(ge=8, le=8192, description="tokens a sequence has at most, special tokens included")
    doc_stride: int | None = Field(None, ge=1, description="distance between the starts of two windows of a long context (SQuAD)")
    max_query_length: int | None = Field(None, ge=1, description="questions are cut to this many tokens (SQuAD); default 64")
    padding: Literal["longest", "max_length"] = Field("longest", description="how batches are padded when accuracy is measured")
    batch_sizes: list[int] = Field([1, 32], min_length=1, description="largest batch that offline load may form; one measurement each")


class TaskTable(Table):
    """What differs for one task."""

    train: dict[str, Any] = Field({}, description="settings of training, over the model's own")
    max_length: int | None = Field(None, ge=8, le=8192)


class ModelTable(Table):
    """An architecture, where its weights come from, and what is done to them."""

    source: str = Field(description="hub:ID, package:NAME/SUBDIR, model:NAME of this suite, scratch, or a folder relative to this file")
    recipe: Literal["load", "finetune"]
    scheme: str | None = Field(None, description="of quantization-aware training")
    architecture: dict[str, int] | None = Field(None, description="sizes, for source = 'scratch'")
    train: dict[str, Any] = Field({}, description="settings of training (harness.training.settings.TrainSettings)")
    task: dict[str, TaskTable] = Field({}, description="per-task overrides")


class BackendTable(BaseModel):
    """An engine at a precision; further keys are that backend's own options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    name: str
    scheme: str | None = Field(None, description="post-training scheme, for backends that quantize statically")
    label: str | None = Field(None, pattern=r"^[A-Za-z0-9._ -]{1,60}$", description="what the row is called; default: the name")


class MeasureTable(Table):
    """How speed is measured; durations in seconds."""

    scenarios: list[Literal["single_stream", "offline"]] | None = None
    loads: list[Literal["fixed", "real"]] | None = None
    rounds: int | None = Field(None, ge=1, le=100, description="fresh processes a cell's speed is measured in")
    min_duration: float | None = Field(None, gt=0, le=3600)
    min_queries: int | None = Field(None, ge=1, le=1_000_000)
    max_warmup: float | None = Field(None, gt=0, le=600)
    threads: int | None = Field(None, ge=1, le=1024)
    min_accuracy: float | None = Field(None, gt=0, le=1, description="of the baseline's: a badge, not a validity rule")


class CalibrationTable(Table):
    """Of post-training schemes; examples are drawn from train with the seed."""

    samples: int = Field(128, ge=1, le=1_000_000)
    batch_size: int = Field(16, ge=1, le=4096)


class ReferenceTable(Table):
    """A published figure from elsewhere: shown beside ours, never ranked with it."""

    system: str
    task: str | None = None
    hardware: str | None = None
    model: str | None = None
    precision: str | None = None
    batch_size: int | None = Field(None, ge=1)
    sequence_length: str | None = None
    qps: float | None = Field(None, gt=0)
    latency_ms: float | None = Field(None, gt=0)
    metrics: dict[str, float] = {}
    source: str
    notes: str = Field(description="what makes it incomparable with our figures")


class SampleTable(Table):
    """What stands in when the suite runs on the generated sample."""

    max_length: int = Field(128, ge=8, le=512)
    doc_stride: int = Field(64, ge=1)
    model: dict[str, int] = Field({}, description="sizes of the stand-in model")
    train: dict[str, Any] = Field({}, description="settings of its training")
    measure: MeasureTable = MeasureTable()
    calibration: CalibrationTable | None = None


class SuiteTable(Table):
    """A whole suite file."""

    title: str = Field(min_length=1, max_length=120)
    description: str = ""
    tasks: list[str] = Field(min_length=1)
    baseline: str = Field(description="the backend that baselines run on")
    seeds: list[int] = Field([1], min_length=1, description="of training and of calibration")
    data: Literal["sample"] | None = Field(None, description="'sample': this suite always runs on the generated sample")
    models: dict[str, ModelTable] = Field(min_length=1)
    shape: ShapeTable
    backends: list[BackendTable] = Field(min_length=1)
    measure: MeasureTable = MeasureTable()
    calibration: CalibrationTable = CalibrationTable()
    references: list[ReferenceTable] = []
    sample: SampleTable = SampleTable()


class Suite(SuiteTable):
    """A checked suite. `folder`: where relative sources start."""

    name: str
    folder: str


ARCHITECTURE = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")
Problems = list[tuple[str, str]]


def load_suite(given: str, folder: Path | None = None) -> Suite:
    """The suite of that name in suites/, or of that path. Raises SuiteError with all problems, a line each."""
    path = find_suite(given, folder or paths.home() / "suites")
    content = read_toml(path)
    problems: Problems = []
    table: SuiteTable | None = None
    try:
        table = SuiteTable.model_validate(content)
    except ValidationError as error:
        problems += [_told(entry, content) for entry in error.errors()]
    except RecursionError:
        problems.append(("", "nested too deeply"))
    from harness.suite_checks import check

    problems += check(content, table)
    if problems or table is None:
        raise SuiteError([f"{path}: {where + ': ' if where else ''}{_line(what)}" for where, what in dict.fromkeys(problems)])
    return Suite.model_construct(name=path.stem, folder=str(path.resolve().parent), **dict(table))


def _line(text: str) -> str:
    return " ".join(text.split())


def find_suite(given: str, folder: Path) -> Path:
    if given.endswith(".toml") or "/" in given or "\\" in given:
        return Path(given)
    path = folder / f"{given}.toml"
    if re.fullmatch(NAME.replace("a-z", "A-Za-z_"), given) and path.is_file():
        return path
    known = sorted(one.stem for one in folder.glob("*.toml"))
    near = difflib.get_close_matches(given, known, 1)
    raise SuiteError([f"{given}: no such suite; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}")])


def read_toml(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SuiteError([f"{path}: more than {MAX_BYTES:,} bytes: not a suite file"])
        return tomllib.loads(path.read_bytes().decode("utf-8"))
    except OSError as error:
        raise SuiteError([f"{path}: cannot be read: {error.strerror}; a suite is given by name or by the path of a TOML file"]) from None
    except UnicodeDecodeError as error:
        raise SuiteError([f"{path}: byte {error.start}: not UTF-8; save the file as UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise SuiteError([f"{path}: not TOML: {_line(str(error))}"]) from None
    except RecursionError:
        raise SuiteError([f"{path}: nested too deeply"]) from None


def dotted(parts: typing.Iterable[int | str]) -> str:
    """A key path as TOML writes it: `models.tiny.task."glue/cola".train`, `backends[2].name` (the first is 0)."""
    out = ""
    for part in parts:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += ("." if out else "") + (part if re.fullmatch(r"[A-Za-z0-9_-]+", part) else json.dumps(part))
    return out


def _told(entry: Any, content: Any) -> tuple[str, str]:
    """One of pydantic's errors in our words."""
    place, kind = entry["loc"], entry["type"]
    where = dotted(place)
    if kind == "extra_forbidden":
        known = fields_at(place[:-1])
        near = difflib.get_close_matches(str(place[-1]), known, 1)
        return where, "unknown key; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known)}")
    if kind == "missing":
        present = _at(content, place[:-1])
        near = [key for key in present if difflib.SequenceMatcher(None, str(place[-1]), str(key)).ratio() > 0.75] if isinstance(present, dict) else []
        return where, "is missing" + (f" (is '{near[0]}' meant to be it?)" if near else "")
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", entry["ctx"]["expected"])
        near = difflib.get_close_matches(str(entry["input"]), known, 1)
        return where, f"{_shown(entry['input'])} is not one of {', '.join(known)}" + (f"; did you mean '{near[0]}'?" if near else "")
    return where, f"{entry['msg'][0].lower()}{entry['msg'][1:]}, not {_shown(entry['input'])}"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool) or value is None else type(value).__name__
    return text if len(text) <= 60 else text[:57] + "..."


def _at(content: Any, place: typing.Iterable[int | str]) -> Any:
    for part in place:
        try:
            content = content[part]
        except (KeyError, IndexError, TypeError):
            return None
    return content


def fields_at(place: typing.Sequence[int | str]) -> list[str]:
    """Names of the keys that a table of the format has, found by walking the models' annotations."""
    here: Any = SuiteTable
    for part in place:
        if isinstance(here, type) and issubclass(here, BaseModel):
            here = here.model_fields[str(part)].annotation if str(part) in here.model_fields else None
        else:
            here = typing.get_args(here)[-1] if typing.get_origin(here) in (dict, list) else None
        if typing.get_origin(here) in (typing.Union, types.UnionType):
            here = next(one for one in typing.get_args(here) if one is not type(None))
    return list(here.model_fields) if isinstance(here, type) and issubclass(here, BaseModel) else []


def schema() -> str:
    """The JSON Schema that editors use, with the fields of training settings written out."""
    from harness.training.settings import TrainSettings

    found = SuiteTable.model_json_schema()
    train = TrainSettings.model_json_schema()
    train.pop("required", None)
    found["$defs"]["TrainSettings"] = train
    for name in ("ModelTable", "TaskTable", "SampleTable"):
        found["$defs"][name]["properties"]["train"] = {"$ref": "#/$defs/TrainSettings"}
    found["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    found["title"] = "Quantboard suite"
    return json.dumps(found, indent=1) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema())
