"""What a model family is: its own names of sizes, modules and classes, for the canonical ones of `backends.architecture`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from backends.architecture import TOKEN_CLASSIFIER, Activation

Part = Literal["question_answering", "classification", "token_classification", "masked_lm", "encoder"]
"""A model with one of these heads, or the encoder alone."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """An encoder architecture of transformers, as plain data.

    The canonical names of sizes are the keys of BERT's configuration: `num_hidden_layers`, `hidden_size`, `num_attention_heads`,
    `intermediate_size`, `vocab_size`, `max_position_embeddings`, `type_vocab_size`, `hidden_act`, `layer_norm_eps`; and
    `embedding_size`, the width of the embedding tables, `relative_buckets`, the rows of a table of biases by relative position, and
    `pooler_act`, the pooler's activation where the configuration says it.
    """

    model_type: str
    """`model_type` of its config.json."""
    classes: Mapping[Part, str]
    """transformers' class of each part, as named in `architectures` of config.json. That of token classification may be left out:
    see `class_of`."""
    modules: Mapping[str, str]
    """Canonical name of a module -> its path in a model with a head. An entry also holds for everything below that module, unless
    there is a longer entry; `*` is the number of a layer.

    Some modules have no tensors, but quantizers are put there. `attention.self` gets a layer's input and calls the attention
    function. `intermediate` returns the activation of the feed-forward part, `pooler` that of the pooler (no entry if no module
    does). `attention.output` and `output` hold the quantizers around their LayerNorm."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Canonical name of a size -> its key in config.json, if the key is different."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Sizes, by canonical name, for keys that config.json lacks: transformers leaves some defaults out. A `type_vocab_size` of 0
    means that there is no table of token types."""
    pooler: Activation | None = None
    """Activation between `pooler.dense` and `classifier`, unless config.json says it. None: there is no `pooler.dense`, the classifier
    reads the state of the first token."""
    pooler_of_every_head: bool = False
    """True: that linear layer also stands before the heads that answer for every token."""
    details: Callable[[Mapping[str, Any], Mapping[str, int]], dict[str, Any]] | None = None
    """Reads what only this family's config.json says: from it, and `layers`, `hidden`, `heads` and `positions`, more fields of the
    `Architecture`. Raises BackendError, naming the key, for what is not supported."""
    inherited: tuple[str, ...] = ()
    """Keys in config.json, beside sizes, that a student of random weights takes over from its teacher."""
    layers_alike: bool = True
    """False: layers are of several kinds, so that none can stand for another: no layer of a student learns from one of its teacher,
    and a student keeps all."""
    positions_after_padding: bool = False
    """True: the first token has position `pad_token_id` + 1, as in RoBERTa, so that some rows of the position table are not used."""
    first_position: int = 0
    """The first token's row of the position table, where that does not depend on the padding."""
    own_attention: bool = False
    """True: transformers computes the attention in the module itself, so that no other can be chosen in its registry."""
    masked_lm: tuple[str, ...] = ()
    """The modules of the masked language model's head, in the order in which they are called: from hidden states to logits."""
    unused: tuple[str, ...] = ()
    """Prefixes of tensor names, without the encoder's own prefix, that a file may hold although a task's model has no such tensors."""
    dropouts: tuple[str, ...] = ()
    """Keys in config.json of all dropout rates."""
    encoder_arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the constructor of transformers' encoder with which it has no pooler."""
    untyped_keys: frozenset[str] = frozenset()
    """A config.json without `model_type` is of this family if it has these keys; with no keys here, never. BERT's first
    repositories have such files."""
    generic: bool = False
    """True: only transformers knows the model, so that it has no canonical names; see `backends.families.generic`."""

    def class_of(self, part: Part) -> str:
        """transformers' class of a part; that of token classification is called alike in every family. Empty where transformers has
        none."""
        if self.generic:
            return self.classes.get(part, "")
        answers = self.classes["question_answering"]
        return self.classes.get(part) or answers.replace("ForQuestionAnswering", "ForTokenClassification")

    def path(self, name: str) -> str | None:
        """The family's own name of a module or tensor, in a model with a head, for its canonical name. None if it has no such part."""
        return _renamed(name, {TOKEN_CLASSIFIER: "classifier", **self.modules})

    def canonical(self, name: str) -> str | None:
        """The canonical name of a tensor in a file of a model with a head, or of an encoder alone. None if it has none.

        In files that were converted from TensorFlow, LayerNorm has gamma and beta instead of weight and bias.
        """
        if self.generic:
            return None
        if name.endswith((".gamma", ".beta")):
            name = name.replace(".gamma", ".weight").replace(".beta", ".bias")
        return _renamed(name, self._canonical) or _renamed(f"{self.prefix}.{name}", self._canonical)

    def key(self, size: str) -> str:
        """The key in config.json of a size, given by canonical name."""
        return self.keys.get(size, size)

    def may_be_unused(self, name: str) -> bool:
        """Whether a file may hold this tensor although a task's model does not have it."""
        return self.generic or name.removeprefix(f"{self.prefix}.").startswith(self.unused)

    def is_untyped(self, config: Mapping[str, Any]) -> bool:
        """Whether a configuration without `model_type` is of this family: it has `untyped_keys` and names no other family's classes."""
        own = self.classes["encoder"].removesuffix("Model")
        classes = config.get("architectures")
        named = not isinstance(classes, list) or all(str(name).startswith(own) for name in classes)
        return bool(self.untyped_keys) and named and self.untyped_keys <= set(config)

    @property
    def prefix(self) -> str:
        """Attribute of the encoder in a model with a head."""
        return self.modules["embeddings"].partition(".")[0]

    @cached_property
    def _canonical(self) -> dict[str, str]:
        return {path: name for name, path in self.modules.items()}


def _renamed(name: str, names: Mapping[str, str]) -> str | None:
    """Replace the longest prefix of `name` that `names` has; None if it has none. Prefixes end at dots."""
    parts = name.split(".")
    starred = ["*" if part.isdigit() else part for part in parts]
    for length in range(len(parts), 0, -1):
        if (start := names.get(".".join(starred[:length]))) is not None:
            numbers = iter([part for part in parts[:length] if part.isdigit()])
            return ".".join([*(next(numbers) if part == "*" else part for part in start.split(".")), *parts[length:]])
    return None
