"""How an encoder's states become one vector a text, as a folder in the layout of sentence-transformers says it.

`modules.json` lists the modules: a Transformer, a Pooling, and sometimes a Normalize, which changes no cosine. `1_Pooling/config.json`
says which pooling, in the form of version 2 (`pooling_mode_mean_tokens`) or that of version 6 (`pooling_mode`).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backends.architecture import Pooling
from backends.base import BackendError

if TYPE_CHECKING:
    import torch

MODULES = "modules.json"
CONFIG = "1_Pooling/config.json"
FILES = (MODULES, CONFIG)
_MODES = {"mean": "mean", "cls": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls"}
_KNOWN = ("Transformer", "Pooling", "Normalize")


def read_pooling(folder: Path) -> Pooling | None:
    """The pooling of a sentence encoder's folder; None for a folder that says of none. Raises BackendError, naming the file, for
    another pooling than mean and cls, and for modules that change the vector."""
    if not (folder / MODULES).is_file():
        return None
    modules = _read(folder / MODULES)
    entries = modules if isinstance(modules, list) else []
    kinds = {str(entry.get("type", "")).rpartition(".")[2]: entry for entry in entries if isinstance(entry, dict)}
    if unknown := [kind for kind in kinds if kind not in _KNOWN]:
        raise BackendError(
            f"{folder / MODULES}: module {unknown[0]!r} is not supported, only {', '.join(_KNOWN)}; use another sentence encoder"
        )
    if "Pooling" not in kinds:
        raise BackendError(f"{folder / MODULES}: names no Pooling; save the sentence encoder again")
    path = folder / str(kinds["Pooling"].get("path", "1_Pooling")) / "config.json"
    config = _read(path)
    modes: list[Any] = []
    if isinstance(config, dict) and "pooling_mode" in config:
        given = config["pooling_mode"]
        modes = given if isinstance(given, list) else [given]
    elif isinstance(config, dict):
        modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in _MODES:
        shown = " with ".join(str(mode).removeprefix("pooling_mode_") for mode in modes) or "none"
        raise BackendError(f"{path}: pooling {shown[:80]} is not supported; use a sentence encoder with mean or cls")
    return "mean" if _MODES[modes[0]] == "mean" else "cls"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BackendError(f"{path}: cannot be read ({error}); save the sentence encoder again") from None


def write_pooling(folder: Path, pooling: Pooling, width: int) -> None:
    """Make a model's folder one that sentence-transformers loads, of any version from 2. width: of the encoder's states."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    (folder / CONFIG).parent.mkdir(exist_ok=True)
    (folder / MODULES).write_text(json.dumps(listed, indent=2))
    modes = {"pooling_mode_cls_token": pooling == "cls", "pooling_mode_mean_tokens": pooling == "mean"}
    others = {"pooling_mode_max_tokens": False, "pooling_mode_mean_sqrt_len_tokens": False}
    (folder / CONFIG).write_text(json.dumps({"word_embedding_dimension": width, **modes, **others}, indent=2))


def pool(states: torch.Tensor, attention_mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """(batch, width) from states (batch, length, width): that of the first token, or the mean over real tokens, in float32."""
    if pooling == "cls":
        return states[:, 0]
    weights = attention_mask[:, :, None].float()
    return (states.float() * weights).sum(1) / weights.sum(1)
