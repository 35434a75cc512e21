"""BERT (Devlin et al., arXiv 1810.04805), whose names are the canonical ones."""

from __future__ import annotations

from backends.families.base import Family

BERT = Family(
    model_type="bert",
    classes={
        "question_answering": "BertForQuestionAnswering",
        "classification": "BertForSequenceClassification",
        "masked_lm": "BertForMaskedLM",
        "encoder": "BertModel",
    },
    modules={
        "embeddings": "bert.embeddings",
        "encoder": "bert.encoder",
        "pooler": "bert.pooler",
        "qa_outputs": "qa_outputs",
        "classifier": "classifier",
    },
    defaults={
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    },
    pooler="tanh",
    masked_lm=("cls",),
    unused=("pooler.", "embeddings.position_ids", "cls."),
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
    encoder_arguments={"add_pooling_layer": False},
    untyped_keys=frozenset({"hidden_size", "num_hidden_layers", "type_vocab_size"}),
)
