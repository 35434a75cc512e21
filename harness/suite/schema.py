"""The JSON schema of a suite file, for editors: `python -m harness.suite.schema` writes `suites/schema.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.machine import paths
from harness.suite.tables import Suite
from harness.suite.train import STAGES


def schema() -> dict[str, Any]:
    """The JSON schema. Editors complete names of tasks, backends and schemes but accept others, which packages may add."""
    from backends import backend_names
    from backends.schemes import scheme_names
    from tasks import task_names

    suite = Suite.model_json_schema()
    tables = suite["$defs"]
    tables["BackendEntry"]["additionalProperties"] = True
    settings = {"properties": tables["TrainSettings"]["properties"], "additionalProperties": False}
    for name in ("TaskOverride", "StandIn"):
        tables[name]["properties"]["train"] |= settings
    for stage in STAGES:
        tables["Distill"]["properties"][stage]["anyOf"][0] |= settings
    tasks, backends, schemes = ({"enum": names} for names in (task_names(), backend_names(), scheme_names()))
    entry = tables["BackendEntry"]["properties"]
    entry["name"] = _or_any(entry["name"], backends)
    entry["scheme"] = _or_any(entry["scheme"], schemes)
    tables["Model"]["properties"]["scheme"] = _or_any(tables["Model"]["properties"]["scheme"], schemes)
    tables["Reference"]["properties"]["task"] = _or_any(tables["Reference"]["properties"]["task"], tasks)
    top = suite["properties"]
    top["baseline"] = _or_any(top["baseline"], backends)
    top["tasks"]["items"] = _or_any(top["tasks"]["items"], tasks)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **suite}


def _or_any(field: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    texts = {key: field[key] for key in ("title", "description") if key in field}
    return {**texts, "anyOf": [dict(names), {"type": "string"}]}


def main() -> None:
    import json

    target = paths.suites() / "schema.json"
    target.write_text(json.dumps(schema(), indent=2) + "\n")
    print(target)


if __name__ == "__main__":
    main()
