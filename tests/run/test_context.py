"""The folders that a run writes its records to."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from harness.machine.hardware import describe
from harness.plan.plan import make_plan
from harness.run.context import new_run
from harness.suite.load import load_suite
from tasks import DataIdentity, DataRef
from tests.tasks.raw_files import GLUE


def test_records_of_the_sample_have_a_folder_of_their_own_where_another_task_has_real_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUANTBOARD_CACHE", str(tmp_path / "cache"))
    suite = load_suite("minilm_glue")
    file, text, _ = GLUE["glue/rte"]
    for split in ("train", "dev"):
        (tmp_path / "glue" / file.format(split)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "glue" / file.format(split)).write_text(text)
    data = {task: DataRef("sample") for task in suite.tasks} | {"glue/rte": DataRef("raw", str(tmp_path))}
    run = new_run(
        suite.name, suite.title, command="", machine=describe(), identities={}, say=print, show_progress=False
    )
    run = replace(run, results=tmp_path)
    plan = make_plan(
        suite, data=data, identities={}, machine=describe(), tasks=["glue/rte", "glue/sst2"], backends=["torch_fp32"]
    )
    assert [run.record_file(cell).relative_to(tmp_path).parent.as_posix() for cell in plan.cells] == [
        "sample/minilm_glue",
        "minilm_glue",
    ]
    saved = {"glue/rte": DataIdentity("saved", "sample", {})}
    assert replace(run, identities=saved).record_file(plan.cells[0]).parent == tmp_path / "sample" / "minilm_glue"
