"""The verb `flops`: floating-point operations of one sequence."""

from __future__ import annotations

import argparse
import json

from harness.cli.arguments import Verbs, add_verb, positive


def add_verbs(verbs: Verbs) -> None:
    parser = add_verb(verbs, "flops", flops, "count the floating-point operations of one sequence of a BERT encoder")
    for name, default in (("layers", 12), ("hidden", 768), ("sequence-length", 384)):
        parser.add_argument(f"--{name}", type=positive, default=default, metavar="N", help=f"default: {default}")
    parser.add_argument("--intermediate", type=positive, metavar="N", help="default: 4 x hidden")


def flops(options: argparse.Namespace) -> int:
    from harness.measure.flops import encoder_flops, format_flops

    count = encoder_flops(
        layers=options.layers,
        hidden=options.hidden,
        intermediate=options.intermediate or 4 * options.hidden,
        sequence_length=options.sequence_length,
        head_outputs=2,
        head="token",
    )
    if options.json:
        print(json.dumps({"total": count.total, "encoder": count.encoder, "head": count.head}))
    else:
        parts = f"{count.encoder / 1e6:.2f}M encoder, {count.head / 1e6:.2f}M question answering head"
        print(f"{format_flops(count.total)} ({parts})")
    return 0
