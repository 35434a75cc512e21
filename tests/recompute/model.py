"""FLOPs, INT8 shares and parameters by the arithmetic of BERT."""

from __future__ import annotations

from collections import Counter

from tests.recompute.tally import Record, Tally

PRODUCTS = {"MatMul", "FusedMatMul", "Gemm", "FusedGemm"}  # ONNX Runtime's matrix products in floating point
INTEGER_PRODUCTS = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"}


def products(record: Record) -> dict[str, int]:
    """Multiply-accumulates of one sequence by kind of product."""
    a = record["checkpoint"]["architecture"]
    h, i, o, s = a["hidden_size"], a["intermediate_size"], a.get("num_labels", 2), record["flops"]["sequence_length"]
    linear = dict.fromkeys(("query", "key", "value", "attention.output.dense"), h * h * s)
    return linear | {"intermediate.dense": h * i * s, "output.dense": h * i * s} | dict.fromkeys(
        ("attention.scores", "attention.context"), s * s * h
    ) | {"pooler.dense": h * h, "classifier": h * o, "qa_outputs": h * o * s}  # fmt: skip


def check_model(tally: Tally, record: Record) -> None:
    where, flops, placement = record["record_id"], record["flops"], record["placement"]
    a = record["checkpoint"]["architecture"]
    kinds = products(record)
    heads = {
        "squad_v1": ("qa_outputs",),
        "sts_b": (),
    }  # sts_b takes the cosine of means of the encoder's output: no head
    answers = heads.get(record["task"], ("pooler.dense", "classifier"))
    head = 2 * sum(kinds[name] for name in answers)
    encoder = (
        2
        * a["num_hidden_layers"]
        * sum(n for name, n in kinds.items() if name not in ("pooler.dense", "classifier", "qa_outputs"))
    )
    for name, ours in (("encoder", encoder), ("head", head), ("total", encoder + head)):
        tally.compare("FLOPs", f"{where} {name}", flops[name], ours)
    tally.compare("multiply-accumulates", where, placement["total_macs"], (encoder + head) // 2)
    tally.compare("INT8 shares", where, flops["int8_share"], placement["int8_macs"] / placement["total_macs"])
    counted: Counter[bool] = Counter()
    nodes: Counter[str] = Counter()
    openvino = placement["claimed"] == "CPU"  # names kernels, whose names end with their type, and counts types
    for name, operator, provider in placement["detail"]:
        nodes[f"CPU {provider.rpartition('_')[2]}" if openvino else provider] += 1
        if operator in PRODUCTS | INTEGER_PRODUCTS:
            # The longest kind that the node is named for: "attention.output.dense" before "output.dense".
            kind = max((k for k in kinds if k in name), key=len)
            counted[operator in INTEGER_PRODUCTS] += kinds[kind]
    stored = Counter({"CPU I8": placement["nodes"].get("CPU u8", 0) + placement["nodes"].get("CPU i8", 0)})
    stored += Counter({one: n for one, n in placement["nodes"].items() if one not in ("CPU u8", "CPU i8")})
    tally.compare("nodes by provider", where, stored == nodes, True)
    if any(
        provider.endswith("ExecutionProvider") for provider in nodes
    ):  # ONNX Runtime lists attention's products, too
        tally.compare("multiply-accumulates", where, placement["total_macs"], counted.total())
        tally.compare("multiply-accumulates in integers", where, placement["int8_macs"], counted[True])
    elif placement["int8_macs"]:
        tally.left_out["multiply-accumulates in integers, of other engines' nodes"] += 1
    else:
        tally.compare("multiply-accumulates in integers", where, placement["int8_macs"], counted[True])
    h, i = a["hidden_size"], a["intermediate_size"]
    layer = 4 * (h * h + h) + 2 * h * i + i + h + 4 * h
    outputs = a.get("num_labels", 2) * (h + 1) * bool(answers) + (h * h + h) * ("pooler.dense" in answers)
    embeddings = (a["vocab_size"] + 512 + 2 + 2) * h  # BERT's 512 positions, two segments, LayerNorm
    tally.compare(
        "parameters", where, record["checkpoint"]["parameters"], embeddings + a["num_hidden_layers"] * layer + outputs
    )
    if quantization := record["checkpoint"].get("quantization"):
        tally.compare(
            "quantized tensors", where, quantization["share"], quantization["quantized"] / quantization["tensors"]
        )
