"""The sizes of an encoder, and the canonical names of its modules, which all code but `backends/families/` uses.

Canonical names are those of BERT in transformers, without the prefix of the encoder: `embeddings.word_embeddings`,
`encoder.layer.0.attention.self.query`, `pooler.dense`, `classifier`, `token_classifier`, `qa_outputs`. The name of a tensor is that of its module and
`.weight` or `.bias`. `ranges.json` and exported graphs have these names for models of all families. Imports in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Activation = Literal["gelu", "gelu_tanh", "relu", "tanh", "silu", "quick_gelu"]
Head = Literal["question_answering", "classification", "token_classification", "embedding"]
"""What a model computes from the encoder's states: start and end of an answer, a class of the sequence, a class of each token, or
one vector, which has no weights of its own."""
Pooling = Literal["mean", "cls"]
"""How states become one vector: their mean over real tokens, or the state of the first token."""

Layout = Literal["bert", "modernbert"]
"""How a layer and a head are built, see `Architecture.layout`."""
Bias = Literal["attention", "feed_forward", "norm", "pooler", "projection"]
"""Parts of a model whose linear layers, or whose LayerNorms, may lack a bias."""

QUERY_KEY_VALUE = "attention.self.qkv"
"""The one linear layer of query, key and value in the layout of ModernBERT."""
_ATTENDING = ("attention.self.query", "attention.self.key", "attention.self.value")
LINEARS: Mapping[Layout, tuple[str, ...]] = {
    "bert": (*_ATTENDING, "attention.output.dense", "intermediate.dense", "output.dense"),
    "modernbert": (QUERY_KEY_VALUE, "attention.output.dense", "intermediate.dense", "output.dense"),
}
"""A layer's linear layers, in order of execution."""
TOKEN_CLASSIFIER = "token_classifier"
"""The classifier of each token. `classifier` is that of a sequence, which some families keep elsewhere."""
RELATIVE_BIAS = "encoder.relative_attention_bias"
"""The table of biases by relative position, (buckets, heads)."""
HEAD_LINEARS: Mapping[Head, str] = {
    "question_answering": "qa_outputs",
    "classification": "classifier",
    "token_classification": TOKEN_CLASSIFIER,
}
"""The linear layer of each head."""
RelativePart = Literal["content_to_position", "position_to_content"]
"""Scores of content with relative positions, and of relative positions with content."""
RELATIVE_EMBEDDINGS = "encoder.relative_embeddings"
"""The table of relative positions that attention multiplies with content, (rows, hidden size)."""
POSITION_LINEARS: Mapping[RelativePart, tuple[str, str]] = {
    "content_to_position": ("key", "position_key"),
    "position_to_content": ("query", "position_query"),
}
"""Which linear layer of `attention.self` projects that table: that of content, where it is shared, or one of its own. What it makes of
the table does not depend on a text, so that graphs hold it as a constant."""
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
class Rotary:
    """Positions as rotations of queries and keys (RoPE, Su et al., arXiv 2104.09864), and how far each layer sees.

    thetas: of each layer, the base of its wavelengths. windows: of each layer, the greatest distance of a token that is attended to;
    None where all are.
    """

    thetas: tuple[float, ...]
    windows: tuple[int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Disentangled:
    """Attention by content and by relative position (He et al., arXiv 2006.03654).

    parts: the scores that are added to those of content. summands: what scores are divided by the root of, times the width of a head.
    span: half of the rows of the table of positions, 0 without one. farthest: the distance that has the last row, where distances
    share rows by their logarithm; 0 where each has its own. shared: the table is projected by the layers of content. normed: it has a
    LayerNorm.
    """

    parts: tuple[RelativePart, ...]
    summands: int
    span: int
    farthest: int
    shared: bool
    normed: bool


@dataclass(frozen=True, kw_only=True)
class Architecture(Encoder):
    """Sizes of an encoder of a known family, and its head.

    layout: `bert`: LayerNorm after attention and after the feed-forward part. `modernbert` (Warner et al., arXiv 2412.13663): before
    them, but for the first layer's attention, and after the last layer; one linear layer for query, key and value; the feed-forward
    part multiplies the activation of the first half of `intermediate.dense` with the second (GeGLU); before every head, on each token
    that it reads, a linear layer with an activation and a LayerNorm.
    without_bias: parts that have none.
    position_table: whether the embeddings have one.
    rotary: positions by rotation.
    disentangled: attention by content and by relative position.
    head_pooling: of the states that a classifier of sequences reads.
    norm_after_projection: PROJECTION comes before the LayerNorm of the embeddings, not after it.
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
    layout: Layout = "bert"
    without_bias: frozenset[Bias] = frozenset()
    position_table: bool = True
    rotary: Rotary | None = None
    disentangled: Disentangled | None = None
    norm_after_projection: bool = False
    head_pooling: Pooling = "cls"

    @property
    def per_token(self) -> bool:
        """Whether the head answers for every token."""
        return self.head in ("question_answering", "token_classification")

    @property
    def logits_shape(self) -> tuple[str | int, ...]:
        """The shape of the model's output, with names for the sizes that batches differ in."""
        return ("batch", *(["sequence"] if self.per_token else []), self.labels)

    def linear_macs(self, name: str, length: int) -> int:
        """Multiply-accumulates of the linear layer `name` for one sequence of `length` tokens. The classifier of a sequence, and the
        pooler before it, read one state."""
        rows, columns = self.linears()[name]
        once = name == "classifier" or (name == "pooler.dense" and not self.per_token)
        return rows * columns * (1 if once else length)

    def attention_macs(self, length: int) -> dict[str, int]:
        """Multiply-accumulates of each product of a layer's attention for one sequence of `length` tokens, by name. Layers that see a
        window compute all scores, too, and mask some."""
        macs: dict[str, int] = dict.fromkeys(("scores", "context"), length * length * self.hidden)
        if self.disentangled:
            macs |= dict.fromkeys(self.disentangled.parts, length * 2 * self.disentangled.span * self.hidden)
        return macs

    def total_macs(self, length: int) -> int:
        """Multiply-accumulates of all matrix products for one sequence: linear layers, the products of attention, the head.

        Of a BERT's encoder these are layers * (12 H^2 S + 2 S^2 H), if the intermediate size is 4 H.
        """
        linears = sum(self.linear_macs(name, length) for name in self.linears())
        return linears + self.layers * sum(self.attention_macs(length).values())

    def tables(self) -> list[str]:
        """Names of the embedding tables."""
        kinds = ["word", *(["position"] if self.position_table else []), *(["token_type"] if self.types else [])]
        return [f"embeddings.{kind}_embeddings" for kind in kinds]

    def linears(self) -> dict[str, tuple[int, int]]:
        """Name of every linear layer, head included -> (outputs, inputs), in order of execution."""
        hidden, wide = self.hidden, self.intermediate
        linears = {PROJECTION: (hidden, self.embedding)} if self.embedding != hidden else {}
        shapes = [(hidden, hidden)] * 4 + [(wide, hidden), (hidden, wide)]
        if self.layout == "modernbert":
            shapes = [(3 * hidden, hidden), (hidden, hidden), (2 * wide, hidden), (hidden, wide)]
        for layer in range(self.layers):
            names = (f"encoder.layer.{layer}.{name}" for name in LINEARS[self.layout])
            linears |= dict(zip(names, shapes, strict=True))
        if self.head == "embedding":
            return linears
        if self.pooler:
            linears["pooler.dense"] = (hidden, hidden)
        return linears | {HEAD_LINEARS[self.head]: (self.labels, hidden)}

    def _position_linears(self) -> dict[str, tuple[int, int]]:
        """The linear layers of relative positions, as `linears` has the others."""
        if self.disentangled is None or self.disentangled.shared:
            return {}
        names = [POSITION_LINEARS[part][1] for part in self.disentangled.parts]
        at = [f"encoder.layer.{layer}.attention.self.{name}" for layer in range(self.layers) for name in names]
        return dict.fromkeys(at, (self.hidden, self.hidden))

    def norms(self) -> dict[str, int]:
        """Name of every LayerNorm -> its width, in order of execution."""
        norms = {"embeddings.LayerNorm": self.hidden if self.norm_after_projection else self.embedding}
        if self.disentangled and self.disentangled.span and self.disentangled.normed:
            norms[f"{RELATIVE_EMBEDDINGS}.LayerNorm"] = self.hidden
        parts = ("attention.output", "output") if self.layout == "bert" else ("attention", "intermediate")
        for layer in range(self.layers):
            norms |= {f"encoder.layer.{layer}.{part}.LayerNorm": self.hidden for part in parts}
        if self.layout == "modernbert":
            del norms["encoder.layer.0.attention.LayerNorm"]
            norms["encoder.LayerNorm"] = self.hidden
            if self.pooler:
                norms["pooler.LayerNorm"] = self.hidden
        return norms

    def has_bias(self, name: str) -> bool:
        """Whether a linear layer or LayerNorm has one."""
        if name.endswith("LayerNorm"):
            return "norm" not in self.without_bias
        if name in ("pooler.dense", PROJECTION):
            return ("pooler" if name == "pooler.dense" else "projection") not in self.without_bias
        part: Bias = "attention" if ".attention." in name else "feed_forward"
        return not (name.startswith("encoder.") and part in self.without_bias)

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every tensor that the architecture needs."""
        rows = {"word": self.vocabulary, "position": self.positions + self.first_position, "token_type": self.types}
        shapes: dict[str, tuple[int, ...]] = {
            f"{table}.weight": (rows[table.removeprefix("embeddings.").removesuffix("_embeddings")], self.embedding)
            for table in self.tables()
        }
        if self.relative_buckets:
            shapes[f"{RELATIVE_BIAS}.weight"] = (self.relative_buckets, self.heads)
        if self.disentangled and self.disentangled.span:
            shapes[f"{RELATIVE_EMBEDDINGS}.weight"] = (2 * self.disentangled.span, self.hidden)
        widths: dict[str, tuple[int, ...]] = {name: (width,) for name, width in self.norms().items()}
        for name, shape in (widths | self.linears() | self._position_linears()).items():
            shapes[f"{name}.weight"] = shape
            if self.has_bias(name):
                shapes[f"{name}.bias"] = shape[:1]
        return shapes
