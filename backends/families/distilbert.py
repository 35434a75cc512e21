"""DistilBERT (Sanh et al. 2019): no token types, and a dense layer with ReLU before the classifier in the place of a pooler."""

from __future__ import annotations

from backends.families.base import Family

_LAYER, _DISTILBERT_LAYER = "encoder.layer.*", "distilbert.transformer.layer.*"
DISTILBERT = Family(
    model_type="distilbert",
    classes={
        "question_answering": "DistilBertForQuestionAnswering",
        "classification": "DistilBertForSequenceClassification",
        "masked_lm": "DistilBertForMaskedLM",
        "encoder": "DistilBertModel",
    },
    modules={
        "embeddings": "distilbert.embeddings",
        "encoder.layer": "distilbert.transformer.layer",
        f"{_LAYER}.attention.self": f"{_DISTILBERT_LAYER}.attention",
        f"{_LAYER}.attention.self.query": f"{_DISTILBERT_LAYER}.attention.q_lin",
        f"{_LAYER}.attention.self.key": f"{_DISTILBERT_LAYER}.attention.k_lin",
        f"{_LAYER}.attention.self.value": f"{_DISTILBERT_LAYER}.attention.v_lin",
        f"{_LAYER}.attention.output": f"{_DISTILBERT_LAYER}.attention",
        f"{_LAYER}.attention.output.dense": f"{_DISTILBERT_LAYER}.attention.out_lin",
        f"{_LAYER}.attention.output.LayerNorm": f"{_DISTILBERT_LAYER}.sa_layer_norm",
        f"{_LAYER}.intermediate": f"{_DISTILBERT_LAYER}.ffn.activation",
        f"{_LAYER}.intermediate.dense": f"{_DISTILBERT_LAYER}.ffn.lin1",
        f"{_LAYER}.output": f"{_DISTILBERT_LAYER}.ffn",
        f"{_LAYER}.output.dense": f"{_DISTILBERT_LAYER}.ffn.lin2",
        f"{_LAYER}.output.LayerNorm": f"{_DISTILBERT_LAYER}.output_layer_norm",
        "qa_outputs": "qa_outputs",
        "pooler.dense": "pre_classifier",
        "classifier": "classifier",
    },
    keys={
        "num_hidden_layers": "n_layers",
        "hidden_size": "dim",
        "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim",
        "hidden_act": "activation",
    },
    defaults={"type_vocab_size": 0, "layer_norm_eps": 1e-12},
    pooler="relu",
    dropouts=("dropout", "attention_dropout", "seq_classif_dropout", "qa_dropout"),
    masked_lm=("vocab_transform", "activation", "vocab_layer_norm", "vocab_projector"),
    unused=("vocab_",),
)
