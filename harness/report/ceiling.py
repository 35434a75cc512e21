"""What pages say of a record's roofline: the share of what the processor can multiply."""

from __future__ import annotations

from collections.abc import Iterable

from harness.records.schema import Record
from harness.records.speed_schema import Roofline, RooflineShare

_NAMES = {"fp32": "FP32", "bf16": "BF16", "int8": "INT8"}


def ceiling_remark(record: Record) -> Iterable[str]:
    """How the ceiling was taken; nothing without one."""
    if record.roofline:
        yield _remark(record, record.roofline)


def _remark(record: Record, roofline: Roofline) -> str:
    taken = "; ".join(
        f"{_NAMES[one.precision]} {one.operations_a_second / 1e9:.0f} Gop/s ({one.how})" for one in roofline.ceilings
    )
    return f"Large products, timed in the same run: {taken}. This cell's ceiling: {_limit(record, roofline)}."


def _limit(record: Record, roofline: Roofline) -> str:
    """`150 Gop/s, FP32`, or with the shares of two precisions."""
    rate, floats = f"{roofline.operations_a_second / 1e9:.0f} Gop/s", _NAMES[roofline.floats]
    share = record.flops.int8_share if record.flops else 0.0
    if share in (0.0, 1.0):
        return f"{rate}, {'INT8' if share else floats}"
    return f"{rate}, {100 * share:.0f}% of the products in INT8 and {100 - 100 * share:.0f}% in {floats}"


def ceiling_fact(record: Record) -> str:
    """The largest batch's share, in a few words; empty without one. Interleaved where there is such a figure."""
    if record.roofline is None or not record.roofline.shares:
        return ""
    order = {"interleaved": 2, "offline": 1}

    def rank(one: RooflineShare) -> tuple[int, bool, int]:
        return order.get(one.scenario, 0), one.load == "real", one.batch_size

    best = max(record.roofline.shares, key=rank)
    reached = f"{100 * best.share:.0f}%, {best.operations_a_second / 1e9:.0f} of {_limit(record, record.roofline)}"
    return f"{reached}; {best.scenario}, batch {best.batch_size}"
