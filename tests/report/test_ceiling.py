"""What pages say of the share of the ceiling."""

from __future__ import annotations

from harness.records.schema import Record
from harness.records.speed_schema import Ceiling, Roofline, RooflineShare
from harness.report.ceiling import ceiling_fact, ceiling_remark
from tests.records.records import make_record


def with_roofline(int8_share: float) -> Record:
    record = make_record()
    assert record.flops is not None
    shares = [
        ("offline", "fixed", 16, 91e9),
        ("offline", "real", 16, 90e9),
        ("single_stream", "real", 1, 30e9),
        ("offline", "real", 1, 31e9),
    ]
    roofline = Roofline(
        floats="fp32",
        operations_a_second=150e9,
        ceilings=[Ceiling(precision="fp32", operations_a_second=150e9, how="PyTorch, 1 thread")],
        shares=[
            RooflineShare(scenario=scenario, load=load, batch_size=size, operations_a_second=rate, share=rate / 150e9)  # type: ignore[arg-type]
            for scenario, load, size, rate in shares
        ],
    )
    flops = record.flops.model_copy(update={"int8_share": int8_share})
    return record.model_copy(update={"roofline": roofline, "flops": flops})


def test_the_fact_is_of_the_largest_real_batch() -> None:
    assert ceiling_fact(with_roofline(0.0)) == "60%, 90 of 150 Gop/s, FP32; offline, batch 16"
    assert ceiling_fact(with_roofline(0.8)) == (
        "60%, 90 of 150 Gop/s, 80% of the products in INT8 and 20% in FP32; offline, batch 16"
    )
    assert ceiling_fact(make_record()) == ""


def test_the_remark_says_how_ceilings_were_taken() -> None:
    (remark,) = ceiling_remark(with_roofline(0.0))
    assert "FP32 150 Gop/s (PyTorch, 1 thread)" in remark
    assert list(ceiling_remark(make_record())) == []
