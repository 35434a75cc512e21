"""Families that are not shipped, as another package would add them: two of transformers, DistilBERT, which is shipped, and `bare`, whose classifier has no
pooler (tests/backends/family_checkpoints.py has its model)."""

from __future__ import annotations

from backends.families import Family
from backends.families.distilbert import DISTILBERT

__all__ = ["BARE", "DISTILBERT", "ELECTRA", "ROBERTA"]

ROBERTA = Family(
    model_type="roberta",
    classes={
        "question_answering": "RobertaForQuestionAnswering",
        "classification": "RobertaForSequenceClassification",
        "masked_lm": "RobertaForMaskedLM",
        "encoder": "RobertaModel",
    },
    modules={
        "embeddings": "roberta.embeddings",
        "encoder": "roberta.encoder",
        "qa_outputs": "qa_outputs",
        "pooler.dense": "classifier.dense",
        "classifier": "classifier.out_proj",
    },
    defaults={"layer_norm_eps": 1e-5},
    pooler="tanh",
    positions_after_padding=True,
    masked_lm=("lm_head",),
    unused=("pooler.", "lm_head."),
    encoder_arguments={"add_pooling_layer": False},
)
ELECTRA = Family(
    model_type="electra",
    classes={
        "question_answering": "ElectraForQuestionAnswering",
        "classification": "ElectraForSequenceClassification",
        "masked_lm": "ElectraForMaskedLM",
        "encoder": "ElectraModel",
    },
    modules={
        "embeddings": "electra.embeddings",
        "embeddings.projection": "electra.embeddings_project",
        "encoder": "electra.encoder",
        "qa_outputs": "qa_outputs",
        "pooler.dense": "classifier.dense",
        "classifier": "classifier.out_proj",
    },
    defaults={"embedding_size": 128},
    pooler="gelu",
    masked_lm=("generator_predictions", "generator_lm_head"),
    unused=("discriminator_predictions.", "generator_"),
)
BARE = Family(
    model_type="bare",
    classes={
        "question_answering": "BareForQuestionAnswering",
        "classification": "BareForSequenceClassification",
        "masked_lm": "BareForMaskedLM",
        "encoder": "BareModel",
    },
    modules={"embeddings": "body.embeddings", "encoder": "body.encoder", "classifier": "last"},
)
