"""Plans of models from the hub, from folders and from packages: what blocks them, and what identifies them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.backends.checkpoints import make_checkpoint
from tests.plan.test_plan import Make, find_cell, make

__all__ = ["make"]  # the fixture


def test_a_hub_model_is_blocked_unless_the_hub_or_its_cache_has_it(make: Make, tmp_path: Path) -> None:
    blocked = find_cell(make(hub=False)).blocked
    assert blocked == ("hub:owner/name: the hub does not answer", "go online, or set HF_ENDPOINT to a mirror")
    assert find_cell(make(hub=False), index=1).blocked == blocked
    tiny = find_cell(make(hub=False), "tiny").blocked
    assert tiny is not None
    assert tiny[0] == "tiny: source 'scratch' has the sample's vocabulary, which holds few words of real data"
    assert find_cell(make()).checkpoint.identity == {"revision": "unresolved"}
    folder = tmp_path / "hf" / "hub" / "models--owner--name"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc123\n")
    assert find_cell(make(hub=False)).blocked == blocked  # the reference alone is no copy
    (folder / "snapshots" / "abc123").mkdir(parents=True)
    (folder / "snapshots" / "abc123" / "model.safetensors").write_bytes(b"")
    cell = find_cell(make(hub=False))
    assert cell.blocked is None
    assert cell.checkpoint.identity == {"revision": "abc123"}
    (folder / "refs" / "quantboard").write_text("0ld")  # fetched last, for example by `rerun` of an older record
    assert find_cell(make(hub=False)).checkpoint.identity == {"revision": "abc123"}
    (folder / "refs" / "main").write_text("newer, not copied")
    assert find_cell(make(hub=False)).checkpoint.identity == {"revision": "0ld"}


def test_a_local_folder_is_known_by_its_content(make: Make, tmp_path: Path) -> None:
    change = ("hub:owner/name", "models/mine")
    blocked = find_cell(make(change)).blocked
    assert blocked is not None
    assert "there is no such folder" in blocked[0]
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        (folder / name).write_text("one")
    cell = find_cell(make(change))
    assert cell.checkpoint.source == str(folder)
    keys = {cell.checkpoint.key}
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        (folder / name).write_text(f"two {name}")
        keys.add(find_cell(make(change)).checkpoint.key)
    assert len(keys) == 4
    moved = tmp_path / "models" / "moved"
    folder.rename(moved)
    assert find_cell(make(("hub:owner/name", "models/moved"))).checkpoint.key in keys


def test_a_loaded_model_has_its_own_ranges(make: Make, tmp_path: Path) -> None:
    """No entry's scheme calibrates it, and weights with other ranges are another checkpoint."""
    change = ("hub:owner/name", "models/mine")
    folder = make_checkpoint(tmp_path / "models" / "mine", max_position_embeddings=512)
    (folder / "vocab.txt").write_text("[PAD]")
    before = find_cell(make(change), index=1)
    assert (before.checkpoint.recipe, before.scheme) == ("ptq", "engine_int8")
    (folder / "ranges.json").write_text(json.dumps({"scheme": {"name": "q8bert"}}))
    plain, quantized = (find_cell(make(change), index=index) for index in range(2))
    assert plain.checkpoint == quantized.checkpoint
    assert (quantized.checkpoint.recipe, quantized.scheme, plain.scheme) == ("load", "q8bert", None)
    (folder / "ranges.json").write_text(json.dumps({"scheme": {"name": "q8bert"}, "tensors": {}}))
    assert find_cell(make(change)).checkpoint.key != plain.checkpoint.key
    (folder / "ranges.json").write_text("{")
    blocked = find_cell(make(change)).blocked
    assert blocked is not None and "ranges.json: names no scheme" in blocked[0]


def test_a_missing_package_is_reported_with_how_to_install_it(make: Make) -> None:
    assert find_cell(make(("hub:owner/name", "package:no_such_package_x/model"))).blocked == (
        "package:no_such_package_x/model: package no_such_package_x is not installed",
        "python -m pip install no-such-package-x",
    )
    blocked = find_cell(make(("hub:owner/name", "package:json/model"))).blocked
    assert blocked is not None
    assert blocked[0] == "package:json/model: there is no such folder"
