"""ELECTRA (Clark et al., arXiv 2003.10555): embedding tables may be narrower than the encoder, and are then followed by a linear
layer; the classifier has a dense layer with GELU on the state of the first token in the place of a pooler."""

from __future__ import annotations

from backends.families.base import Family

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
    defaults={
        "num_hidden_layers": 12,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
        "vocab_size": 30522,
        "embedding_size": 128,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
    },
    pooler="gelu",
    masked_lm=("generator_predictions", "generator_lm_head"),
    unused=("embeddings.position_ids", "discriminator_predictions.", "generator_"),
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
)
