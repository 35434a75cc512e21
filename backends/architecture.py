"""The sizes of an encoder, and the canonical names of its modules, which all code but `backends/families/` uses.

Canonical names are those of BERT in transformers, without the prefix of the encoder: `embeddings.word_embeddings`,
`encoder.layer.0.attention.self.query`, `pooler.dense`, `classifier`, `token_classifier`, `qa_outputs`. The name of a tensor is that of its module and
`.weight` or `.bias`. `ranges.json` and exported graphs have these names for models of all families. Imports in milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "gelu_tanh", "relu", "tanh", "silu", "quick_gelu"]
Head = Literal["question_answering", "classification", "token_classification", "embedding"]
"""What a model computes from the encoder's states: start and end of an answer, a class of the sequence, a class of each token, or
one vector, which has no weights of its own."""
Pooling = Literal["mean", "cls"]
"""How states become one vector: their mean over real tokens, or the state of the first token."""

LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
"""A layer's linear layers, in order of execution."""
TOKEN_CLASSIFIER = "token_classifier"
"""The classifier of each token. `classifier` is that of a sequence, which some families keep elsewhere."""
RELATIVE_BIAS = "encoder.relative_attention_bias"
"""The table of biases by relative position, (buckets, heads)."""
PROJECTION = "embeddings.projection"
"""The linear layer from the width of the embedding tables to that of the encoder, in families in which they differ."""


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """What tasks and engines need to know of any encoder, of a known family or not.

    labels: outputs of the head; 2 (start, end) for question answering, the width of the states for an embedding.
    positions: tokens of the longest sequence.
    pooling: of an embedding; None with other heads.
    """

    positions: int
    head: Head
    labels: int
    pooling: Pooling | None = None


@dataclass(frozen=True, kw_only=True)
class Architecture(Encoder):
    """Sizes of an encoder of a known family, and its head.

    embedding: width of the embedding tables. If it is not `hidden`, the linear layer PROJECTION follows the embeddings.
    first_position: the first token's row of the position table.
    relative_buckets: rows of the table of biases by relative position that attention scores get, in all layers; 0 without a table.
    types: rows of the token type table, 0 without a table. With fewer than 2, token_type_ids are not read.
    pooler: activation of the linear layer before the classifier; None without that layer.
    """

    layers: int
    hidden: int
    heads: int
    intermediate: int
    vocabulary: int
    embedding: int
    first_position: int
    types: int
    epsilon: float
    activation: Activation
    pooler: Activation | None
    relative_buckets: int = 0

    @property
    def logits_shape(self) -> tuple[str | int, ...]:
        """The shape of the model's output, with names for the sizes that batches differ in."""
        per_token = self.head in ("question_answering", "token_classification")
        return ("batch", *(["sequence"] if per_token else []), self.labels)

    def linear_macs(self, name: str, length: int) -> int:
        """Multiply-accumulates of the linear layer `name` for one sequence of `length` tokens. Pooler and classifier read the first
        token only."""
        rows, columns = self.linears()[name]
        return rows * columns * (1 if name in ("pooler.dense", "classifier") else length)

    def total_macs(self, length: int) -> int:
        """Multiply-accumulates of all matrix products for one sequence: linear layers, the products of attention, the head.

        Of the encoder these are layers * (12 H^2 S + 2 S^2 H), if the intermediate size is 4 H.
        """
        linears = sum(self.linear_macs(name, length) for name in self.linears())
        return linears + self.layers * 2 * length * length * self.hidden

    def tables(self) -> list[str]:
        """Names of the embedding tables."""
        kinds = ["word", "position", *(["token_type"] if self.types else [])]
        return [f"embeddings.{kind}_embeddings" for kind in kinds]

    def linears(self) -> dict[str, tuple[int, int]]:
        """Name of every linear layer, head included -> (outputs, inputs), in order of execution."""
        hidden, wide = self.hidden, self.intermediate
        linears = {PROJECTION: (hidden, self.embedding)} if self.embedding != hidden else {}
        shapes = [(hidden, hidden)] * 4 + [(wide, hidden), (hidden, wide)]
        for layer in range(self.layers):
            linears |= {f"encoder.layer.{layer}.{name}": shape for name, shape in zip(LINEARS, shapes, strict=True)}
        if self.head == "question_answering":
            return linears | {"qa_outputs": (self.labels, hidden)}
        if self.head == "token_classification":
            return linears | {TOKEN_CLASSIFIER: (self.labels, hidden)}
        if self.head == "embedding":
            return linears
        pooler = {"pooler.dense": (hidden, hidden)} if self.pooler else {}
        return linears | pooler | {"classifier": (self.labels, hidden)}

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor that the architecture needs."""
        rows = (self.vocabulary, self.positions + self.first_position, self.types)
        shapes: dict[str, tuple[int, ...]] = {
            f"{table}.weight": (count, self.embedding) for table, count in zip(self.tables(), rows, strict=False)
        }
        if self.relative_buckets:
            shapes[f"{RELATIVE_BIAS}.weight"] = (self.relative_buckets, self.heads)
        norms = {"embeddings.LayerNorm": self.embedding}
        for layer in range(self.layers):
            norms |= {f"encoder.layer.{layer}.{part}.LayerNorm": self.hidden for part in ("attention.output", "output")}
        for name, width in norms.items():
            shapes |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
        for name, shape in self.linears().items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        return shapes
