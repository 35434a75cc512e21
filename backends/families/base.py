"""What a model family is: where its configuration and its tensors say what the canonical ones say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from backends.architecture import Activation

Part = Literal["question_answering", "classification", "masked_lm", "encoder"]
"""A model with one of the heads, or the encoder alone."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """An encoder architecture of transformers, as plain data.

    Sizes have canonical names, too: those of BERT's configuration (`num_hidden_layers`, `hidden_size`, `num_attention_heads`,
    `intermediate_size`, `vocab_size`, `max_position_embeddings`, `type_vocab_size`, `hidden_act`, `layer_norm_eps`, and
    `embedding_size` for the width of the tables).
    """

    model_type: str
    """`model_type` of its config.json."""
    classes: Mapping[Part, str]
    """transformers' class of each part, as `architectures` in config.json names it."""
    modules: Mapping[str, str]
    """Canonical name of a module -> its path in a model with a head. A name stands for all that lies below it, unless a longer
    one is there too; `*` stands for the number of a layer. Where quantizers are put, modules matter that have no tensors:
    `attention.self` is what is called with a layer's input and calls the attention function, `intermediate` is what puts out
    the activation, `pooler` what puts out the pooler's (left out where no module does), `attention.output` and `output` hold
    the quantizers around their LayerNorm."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Canonical name of a size -> its key in config.json, where that is another."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Sizes, by canonical name, that hold where config.json leaves them out, as transformers does with defaults. A
    `type_vocab_size` of 0 says that there is no table of token types."""
    pooler: Activation | None = None
    """Activation between `pooler.dense` and `classifier`; None where the classifier reads the first token's state itself."""
    positions_after_padding: bool = False
    """Positions start behind `pad_token_id`, as RoBERTa's do, so that the table has more rows than a sequence has tokens."""
    masked_lm: tuple[str, ...] = ()
    """Modules beside the encoder that turn its states into logits of words, in the order in which they are called."""
    unused: tuple[str, ...] = ()
    """Beginnings of tensor names, without the encoder's own prefix, that a checkpoint may hold and a task's model leaves out."""
    dropouts: tuple[str, ...] = ()
    """Keys in config.json of dropout rates: all that a training sets."""
    encoder_arguments: Mapping[str, Any] = field(default_factory=dict)
    """For the constructor of transformers' encoder, so that it has no pooler."""
    untyped_keys: frozenset[str] = frozenset()
    """A config.json that has these keys and no `model_type` is of this family, as of BERT's first repositories; without any,
    none is."""

    def path(self, name: str) -> str | None:
        """A canonical name of a module or tensor -> its own, in a model with a head. None where the family has no such part."""
        return _renamed(name, self.modules)

    def canonical(self, name: str) -> str | None:
        """The canonical name of a tensor in a file, which may be that of an encoder alone. None for one that has no canonical name.

        Files that were converted from TensorFlow call a LayerNorm's weight gamma and its bias beta, as transformers knows."""
        if name.endswith((".gamma", ".beta")):
            name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
        return _renamed(name, self._canonical) or _renamed(f"{self.prefix}.{name}", self._canonical)

    def key(self, size: str) -> str:
        """The key in config.json of a size."""
        return self.keys.get(size, size)

    def may_be_unused(self, name: str) -> bool:
        """Whether a task's model may leave out this tensor of a file."""
        return name.removeprefix(f"{self.prefix}.").startswith(self.unused)

    def is_untyped(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration without `model_type` is of this family: it has its sizes and names no other's classes."""
        own = self.classes["encoder"].removesuffix("Model")
        named = all(str(name).startswith(own) for name in config.get("architectures") or [])
        return bool(self.untyped_keys) and named and self.untyped_keys <= set(config)

    @property
    def prefix(self) -> str:
        """Where the encoder lies in a model with a head."""
        return self.modules["embeddings"].partition(".")[0]

    @cached_property
    def _canonical(self) -> dict[str, str]:
        return {path: name for name, path in self.modules.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str | None:
    """`name` with its longest beginning that `names` has exchanged; None where it has none."""
    parts = name.split(".")
    starred = ["*" if part.isdigit() else part for part in parts]
    for length in range(len(parts), 0, -1):
        if (start := names.get(".".join(starred[:length]))) is not None:
            numbers = iter([part for part in parts[:length] if part.isdigit()])
            return ".".join([*(next(numbers) if part == "*" else part for part in start.split(".")), *parts[length:]])
    return None
