"""What the processor's products can do, where engines differ in what they do without it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def multiplies_bfloat16(machine: Mapping[str, Any]) -> bool:
    """Whether a machine's processor has products of bfloat16. A machine described without `flags` counts as having them."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(machine.get("flags", ["bf16"])))


def saturates_integer_products() -> bool:
    """True on x86 processors without VNNI: they add pairs of unsigned by signed products in 16 bits, which can saturate."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return flags is not None and not {"avx512_vnni", "avx_vnni"} & set(flags[1].split())
