"""Weights in PyTorch's own format to safetensors, in a process of its own: `python -m harness.checkpoints.unpickle OUTPUT FILE ...`.

The format is a pickle, which can run code when it is read. `torch.load(weights_only=True)` rebuilds tensors alone and refuses
every other object; this process does nothing else, so that a fault in that reader ends it and not the run.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backends.model_files import BROKEN_PICKLE, no_tensor

FIRST_SAFE = (2, 6)
"""PyTorch before 2.6 can be made to run code even so (CVE-2025-32434)."""
INNER = ("state_dict", "model_state_dict", "model")
"""Where training programs keep the weights among other things."""


def main(arguments: Sequence[str]) -> int:
    """Writes safetensors to the file OUTPUT. On a fault the last line of stdout is JSON with `error`, and the exit code 1."""
    import torch
    from safetensors.torch import save_file

    output, *files = map(Path, arguments)
    tensors: dict[str, torch.Tensor] = {}
    try:
        version = tuple(int(part) for part in torch.__version__.split(".")[:2])
        if version < FIRST_SAFE:
            raise ValueError(f"PyTorch {torch.__version__} cannot read it safely; install torch>=2.6")
        for file in files:
            for name, value in _named_tensors(file).items():
                tensors[name] = value.contiguous().clone()  # tied tensors share their memory, which safetensors refuses
        save_file(tensors, output, {"format": "pt"})
    except ValueError as error:
        print(json.dumps({"error": str(error)}))
        return 1
    return 0


def _named_tensors(file: Path) -> dict[str, Any]:
    """Raises ValueError where the file holds anything but tensors by name."""
    import torch

    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # what a broken file raises depends on where it breaks
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise ValueError(no_tensor(named[1])) from None
        raise ValueError(BROKEN_PICKLE) from None
    for name in INNER:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
    if not isinstance(content, dict) or not content:
        raise ValueError("it holds no tensors by name; save model.state_dict()")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ValueError(f"its entry {str(name)[:60]!r} is no tensor; save model.state_dict()")
    return content


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
