from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.machine import paths
from harness.suite.tables import (
    Suite,
)
from harness.suite.train import STAGES


def schema() -> dict[str, Any]:
    """JSON Schema of a suite file, for editors. Names complete but do not bind: installed packages may add some."""
    from backends import backend_names
    from backends.fake_quant.schemes import scheme_names
    from tasks import task_names

    found = Suite.model_json_schema()
    forms = found["$defs"]
    forms["BackendEntry"]["additionalProperties"] = True
    settings = {"properties": forms["TrainSettings"]["properties"], "additionalProperties": False}
    for form in ("TaskOverride", "StandIn"):
        forms[form]["properties"]["train"] |= settings
    for stage in STAGES:
        forms["Distill"]["properties"][stage]["anyOf"][0] |= settings
    tasks, backends, schemes = ({"enum": names} for names in (task_names(), backend_names(), scheme_names()))
    entry = forms["BackendEntry"]["properties"]
    entry["name"] = _or_any(entry["name"], backends)
    entry["scheme"] = _or_any(entry["scheme"], schemes)
    forms["Model"]["properties"]["scheme"] = _or_any(forms["Model"]["properties"]["scheme"], schemes)
    forms["Reference"]["properties"]["task"] = _or_any(forms["Reference"]["properties"]["task"], tasks)
    top = found["properties"]
    top["baseline"] = _or_any(top["baseline"], backends)
    top["tasks"]["items"] = _or_any(top["tasks"]["items"], tasks)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}


def _or_any(form: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: form[key] for key in ("title", "description") if key in form}
    return {**kept, "anyOf": [dict(names), {"type": "string"}]}


def main() -> None:
    import json

    target = paths.suites() / "schema.json"
    target.write_text(json.dumps(schema(), indent=2) + "\n")
    print(target)


if __name__ == "__main__":
    main()
