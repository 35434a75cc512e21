"""MPNet (Song et al., arXiv 2004.09297): attention scores get a bias by relative position, which all layers share. Its positions start
after the padding's id, which is 1 in its code, there are no token types, and the classifier is RoBERTa's."""

from __future__ import annotations

from backends.families.base import Family

_LAYER = "encoder.layer.*"
MPNET = Family(
    model_type="mpnet",
    classes={
        "question_answering": "MPNetForQuestionAnswering",
        "classification": "MPNetForSequenceClassification",
        "masked_lm": "MPNetForMaskedLM",
        "encoder": "MPNetModel",
    },
    modules={
        "embeddings": "mpnet.embeddings",
        "encoder": "mpnet.encoder",
        f"{_LAYER}.attention.self": f"mpnet.{_LAYER}.attention.attn",
        f"{_LAYER}.attention.self.query": f"mpnet.{_LAYER}.attention.attn.q",
        f"{_LAYER}.attention.self.key": f"mpnet.{_LAYER}.attention.attn.k",
        f"{_LAYER}.attention.self.value": f"mpnet.{_LAYER}.attention.attn.v",
        f"{_LAYER}.attention.output": f"mpnet.{_LAYER}.attention",
        f"{_LAYER}.attention.output.dense": f"mpnet.{_LAYER}.attention.attn.o",
        f"{_LAYER}.attention.output.LayerNorm": f"mpnet.{_LAYER}.attention.LayerNorm",
        "qa_outputs": "qa_outputs",
        "pooler.dense": "classifier.dense",
        "classifier": "classifier.out_proj",
    },
    keys={"relative_buckets": "relative_attention_num_buckets"},
    defaults={
        "num_hidden_layers": 12,
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 30527,
        "max_position_embeddings": 512,
        "type_vocab_size": 0,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "relative_buckets": 32,
    },
    pooler="tanh",
    first_position=2,
    own_attention=True,
    masked_lm=("lm_head",),
    unused=("pooler.", "embeddings.position_ids", "lm_head."),
    dropouts=("hidden_dropout_prob", "attention_probs_dropout_prob"),
    encoder_arguments={"add_pooling_layer": False},
)
