"""The inputs of each target: what is valid, and how it is damaged."""

from __future__ import annotations

import io
import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.inputs import as_json, damaged, edited, values
from tests.fuzz.targets import COLUMNS, CONFIG
from tests.suite.suite_mistakes import GOOD
from tests.suite.test_suite_fuzz import toml

ROOT = Path(__file__).resolve().parents[2]
Inputs = st.SearchStrategy[bytes]


def as_toml(content: Any) -> str:
    """Halves of surrogate pairs, which TOML cannot write, become escapes of the null character."""
    tables = content if isinstance(content, dict) else {"title": content}
    return "".join(f"{toml(str(key))} = {toml(_without_null(value))}\n" for key, value in tables.items())


def _without_null(value: Any) -> Any:
    """TOML has no null."""
    if isinstance(value, dict):
        return {str(key): _without_null(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_null(inner) for inner in value]
    return "" if value is None else value


def suites() -> Inputs:
    """The suite of the tests, and ours that use most keys."""
    texts = [GOOD]
    texts += [(ROOT / "suites" / f"{name}.toml").read_text() for name in ("tinybert", "minilm_distill", "glue_w8a8")]
    chosen = [st.one_of(edited(tomllib.loads(text), as_toml), damaged(text.encode())) for text in texts]
    return st.one_of(chosen)


def a_record() -> dict[str, Any]:
    """As JSON; with interleaved rounds, a finding and a note."""
    from harness.records.schema import Finding
    from tests.records.records import make_record
    from tests.report.stored_scores import interleaved

    finding = Finding(rule="too_short", what="too short", measured="1 s", bound="2 s", remedy="longer rounds")
    record = make_record(
        key="a",
        label="a",
        task="glue/rte",
        turns=[interleaved((1.0, 1.1, 1.2))],
        findings=[finding],
        status="invalid",
        reason="too short",
        notes=["a note"],
        log_tail=["a line"],
        remedy="a remedy",
    )
    content: dict[str, Any] = json.loads(record.model_dump_json())
    content["accuracy"][0] |= {"metrics": {"accuracy": content["accuracy"][0]["metrics"]["f1"]}, "primary": "accuracy"}
    return content


SHOWN = (
    "model",
    "label",
    "task",
    "suite_title",
    "notes",
    "reason",
    "remedy",
    "log_tail",
    "metrics",
    "machine",
    "settings",
)


def records() -> Inputs:
    """One line, damaged, alone or after a whole one."""
    content = a_record()
    line = as_json(content).encode()
    one = st.one_of(edited(content, as_json, ("accuracy", "speed", "turns", "settings", *SHOWN)), damaged(line))
    return st.builds(lambda first, last: first + last, st.sampled_from((b"", line + b"\n")), one)


def shown_records() -> Inputs:
    """Records that are mostly still read, so that pages show what was put into them."""
    return edited(a_record(), as_json, SHOWN)


ROWS = [{"text": "a text", "other": "b c", "label": 1}, {"text": "naïve ☕", "other": "d", "label": 0}] * 2
SENTENCES = [{"tokens": ["a", "b"], "ner_tags": ["O", "B-x"]}, {"tokens": ["c"], "ner_tags": ["O"]}]
CONLL = "-DOCSTART- O\n\na O\nb B-x\n\nc O\n"


def data() -> Inputs:
    from tests.tasks.raw_files import GLUE, SQUAD_ROWS, squad_json

    def of(form: str, inner: Inputs) -> Inputs:
        return inner.map(lambda content: form.encode() + b"\n" + content)

    forms = []
    for kind in COLUMNS:
        rows: list[dict[str, Any]] = SENTENCES if kind == "token_classification" else ROWS
        rows = SQUAD_ROWS if kind == "question_answering" else rows
        lines = "".join(as_json(row) + "\n" for row in rows)
        forms += [
            of(f"{kind} .json", st.one_of(edited(rows, as_json), damaged(as_json(rows).encode()))),
            of(f"{kind} .jsonl", damaged(lines.encode())),
            of(f"{kind} .parquet", damaged(_parquet(rows))),
        ]
    table = "text,other,label\n" + "".join(f'"{row["text"]}",{row["other"]},{row["label"]}\n' for row in ROWS)
    for kind in ("classification", "pair", "regression", "multi_label", "similarity"):
        forms += [
            of(f"{kind} .csv", damaged(table.encode())),
            of(f"{kind} .tsv", damaged(table.replace(",", "\t").encode())),
        ]
    forms.append(of("token_classification .conll", damaged(CONLL.encode())))
    nested = squad_json(SQUAD_ROWS)
    forms += [of(form, st.one_of(edited(nested, as_json), damaged(as_json(nested).encode()))) for form in ("squad_v1",)]
    forms.append(of("question_answering .json", edited(nested, as_json)))
    forms += [of(task, damaged(content.encode())) for task, (_, content, _) in GLUE.items()]
    return st.one_of(forms)


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    file = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


def predictions() -> Inputs:
    """In the forms that other tools write, for a task of each kind."""
    answers: list[Any] = [
        {"q1": "an answer", "q2": ""},
        [
            {"id": "q1", "prediction_text": "an answer"},
            {"id": "q2", "prediction_text": "b", "no_answer_probability": 0.1},
        ],
        {"predictions": [0, 1, 1]},
        [0, 1, 0.5, None, "acceptable"],
        [{"label": "LABEL_1", "score": 0.9}, {"label": "acceptable", "score": 0.8}],
        {"0": 1, "1": 0},
    ]
    lines = b"index\tprediction\n0\t1\n1\tacceptable\n2\t3.5\n"
    tasks = ("squad_v1", "glue/cola", "glue/stsb", "glue/mnli")
    content = st.one_of(
        *(edited(one, as_json) for one in answers), damaged(lines), values.map(lambda v: as_json(v).encode())
    )
    return st.builds(lambda task, rest: task.encode() + b"\n" + rest, st.sampled_from(tasks), content)


def config() -> Inputs:
    """config.json mostly; the tokenizer's files, and the weights' header."""
    tokenizer = {
        "tokenizer_class": "BertTokenizer",
        "model_max_length": 64,
        "do_lower_case": True,
        "pad_token": "[PAD]",
    }
    header = {"bert.embeddings.word_embeddings.weight": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}

    def of(name: str, inner: Inputs) -> Inputs:
        return inner.map(lambda content: name.encode() + b"\n" + content)

    def weights(content: Any) -> str:
        text = as_json(content)
        return len(text).to_bytes(8, "little").decode("latin-1") + text + 16 * "\0"

    ranges = {"scheme": "engine_int8", "version": 1, "tensors": {"a": {"low": -1.0, "high": 1.0, "scale": 0.1}}}
    return st.one_of(
        of("config.json", edited(CONFIG, as_json)),
        of("config.json", edited(CONFIG, as_json)),
        of("config.json", damaged(as_json(CONFIG).encode())),
        of("tokenizer_config.json", edited(tokenizer, as_json)),
        of("tokenizer.json", edited({"version": "1.0", "model": {"type": "WordPiece", "vocab": {"a": 0}}}, as_json)),
        of("ranges.json", edited(ranges, as_json)),
        of("model.safetensors", edited(header, weights)),
    )


def scores() -> Inputs:
    """Damaged archives, and whole ones with other columns."""
    good = {"validation/id": np.arange(40).astype(str), "validation/correct": np.ones(40)}

    def packed(columns: dict[str, Any]) -> bytes:
        file = io.BytesIO()
        np.savez_compressed(file, **columns)
        return file.getvalue()

    odd = st.sampled_from(
        [
            np.full(40, np.nan),
            np.ones(39),
            np.ones((40, 2)),
            np.array(1.0),
            np.arange(40).astype(str),
            np.ones(40, np.complex128),
            np.ones(40, np.int8),
            np.full(40, 1e308),
            np.zeros(0),
            np.zeros(40, "datetime64[s]"),
            np.zeros(40, [("a", "f8")]),
        ]
    )
    names = st.sampled_from(
        ["validation/id", "validation/correct", "validation/group", "validation/prediction", "../x", ""]
    )
    changed = st.dictionaries(names, odd, min_size=1, max_size=3).map(lambda columns: packed(good | columns))
    return st.one_of(damaged(packed(good)), changed)


INPUTS = {
    "suite": suites,
    "records": records,
    "data": data,
    "predictions": predictions,
    "config": config,
    "scores": scores,
    "site": shown_records,
}
