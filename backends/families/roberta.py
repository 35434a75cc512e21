"""RoBERTa (Liu et al., arXiv 1907.11692), and two models that differ from it in names only: XLM-RoBERTa (Conneau et al., arXiv
1911.02116) and CamemBERT (Martin et al., arXiv 1911.03894).

Positions start after the padding's id. There is one token type. The classifier has a dense layer with tanh on the state of `<s>`
in the place of a pooler.
"""

from __future__ import annotations

from backends.families.base import Family


def _family(model_type: str, prefix: str, vocabulary: int) -> Family:
    """prefix: of the classes in transformers."""
    return Family(
        model_type=model_type,
        classes={
            "question_answering": f"{prefix}ForQuestionAnswering",
            "classification": f"{prefix}ForSequenceClassification",
            "masked_lm": f"{prefix}ForMaskedLM",
            "encoder": f"{prefix}Model",
        },
        modules={
            "embeddings": "roberta.embeddings",
            "encoder": "roberta.encoder",
            "qa_outputs": "qa_outputs",
            "pooler.dense": "classifier.dense",
            "classifier": "classifier.out_proj",
        },
        defaults={
            "num_hidden_layers": 12,
            "hidden_size": 768,
            "num_attention_heads": 12,
            "intermediate_size": 3072,
            "vocab_size": vocabulary,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-12,
            "pad_token_id": 1,
        },
        pooler="tanh",
        positions_after_padding=True,
        masked_lm=("lm_head",),
        unused=("pooler.", "embeddings.position_ids", "lm_head."),
        dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout"),
        encoder_arguments={"add_pooling_layer": False},
    )


ROBERTA = _family("roberta", "Roberta", 50265)
XLM_ROBERTA = _family("xlm-roberta", "XLMRoberta", 30522)
CAMEMBERT = _family("camembert", "Camembert", 30522)
