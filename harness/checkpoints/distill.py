"""Recipe `distill`, one stage at a time, and the recipes on plain text that its stages need: `pretrained`, `masked_lm`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checkpoints.base_model import copy_model, load_config, source_folder, write_tokenizer
from harness.checkpoints.labels import class_columns
from harness.checkpoints.training.devices import prepare_training
from harness.checkpoints.training.states import state_folder
from harness.errors import CheckpointError
from harness.plan.spec import CheckpointSpec, folder_of
from harness.suite.train import TrainSettings, head_mismatch, unlike_layers
from tasks import Features, Task
from tasks.tokens import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer

STAGE_FIELDS = ("train_seconds", "train_device", "train_windows", "train_steps", "train_precision")
"""What origin.json keeps of the training of each stage."""


def pretrained(spec: CheckpointSpec, cache: Path, output: Path) -> dict[str, Any]:
    """Recipe `pretrained`: the source as it is, whatever its head."""
    from backends.checkpoint import check_finite

    source = source_folder(spec, cache)
    assert source is not None, "recipe 'pretrained' needs pretrained weights"
    check_finite(source)
    write_tokenizer(spec, source, load_config(spec, source), output)
    copy_model(source, output)
    return {}


def masked_lm(spec: CheckpointSpec, cache: Path, output: Path) -> dict[str, Any]:
    """Recipe `masked_lm`: a source, or random weights, trained to predict masked tokens of the text corpus."""
    from backends.families import get_family
    from harness.checkpoints.training.corpus import describe_corpus, text_features
    from harness.checkpoints.training.finetune import build_model, set_dropout, train_model
    from harness.checkpoints.training.masked_lm import MaskedLM, masked_lm_loss

    source = source_folder(spec, cache)
    device = prepare_training()
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    config = load_config(spec, source)
    config.architectures = [get_family(config.model_type).classes["masked_lm"]]
    set_dropout(config, settings)
    tokenizer = write_tokenizer(spec, source, config, output)
    features = text_features(spec, tokenizer, cache)
    model = build_model("masked_lm", source, config, spec.seed, device)
    loss = masked_lm_loss(tokenizer)
    facts = train_model(MaskedLM(model), features, spec, settings, state_folder(spec, cache), device, loss)
    model.cpu().save_pretrained(output, max_shard_size="1TB")
    return facts | {"corpus": describe_corpus(spec, features)}


def distill_on_text(spec: CheckpointSpec, cache: Path, output: Path) -> dict[str, Any]:
    """Recipe `distill`, stage `general`: an encoder without a head learns on the text corpus from the pretrained
    teacher."""
    from backends.families import get_family
    from harness.checkpoints.training.corpus import describe_corpus, text_features
    from harness.checkpoints.training.finetune import build_model, set_dropout

    stage = _Stage(spec, cache)
    config = stage.config
    config.architectures = [get_family(config.model_type).classes["encoder"]]
    set_dropout(config, stage.settings)
    tokenizer = stage.write_tokenizer(output)
    features = text_features(spec, tokenizer, cache)
    attention = _scores_attention()
    model = build_model("encoder", stage.source, config, spec.seed, stage.device, attention=attention)
    keep_layers(spec, model)
    facts = stage.train_intermediate(model, features)
    model.cpu().save_pretrained(output, max_shard_size="1TB")
    return _with_earlier_stages(spec, cache, facts | {"corpus": describe_corpus(spec, features)})


def distill_on_task(spec: CheckpointSpec, task: Task, cache: Path, output: Path) -> dict[str, Any]:
    """Recipe `distill`, stage `intermediate`, `prediction` or `labels`: a model with the task's head."""
    from backends import BackendError
    from harness.checkpoints.training.augment import augmented
    from harness.checkpoints.training.finetune import (
        build_model,
        configure_for_task,
        head_of,
        training_features,
    )

    stage = _Stage(spec, cache)
    tokenizer = stage.write_tokenizer(output)
    try:
        configure_for_task(stage.config, task, stage.settings, output)
    except BackendError as error:
        reason = str(error).removeprefix(f"{output / 'config.json'}: ")
        raise CheckpointError(f"{spec.model}: {spec.root.source}: {reason}") from None
    features, examples = training_features(task, tokenizer, spec)
    if spec.masked_lm and task.kind != "question_answering":
        features = augmented(features, spec, tokenizer, cache, stage.device)
    attention = _scores_attention() if stage.name == "intermediate" else None
    model = build_model(head_of(task), stage.source, stage.config, spec.seed, stage.device, attention=attention)
    keep_layers(spec, model)
    if stage.name == "intermediate":
        facts = stage.train_intermediate(model.base_model, features)
    elif stage.name == "prediction":
        facts = stage.train_prediction(model, features, task)
    else:
        facts = stage.train(model, features, None)
    model.cpu().save_pretrained(output, max_shard_size="1TB")
    return _with_earlier_stages(spec, cache, {"train_examples": examples, **facts})


class _Stage:
    """What every stage starts with: teacher, source, settings, the student's configuration, the device."""

    def __init__(self, spec: CheckpointSpec, cache: Path) -> None:
        if spec.teacher is None or spec.distill is None:
            raise ValueError("a distillation needs a teacher and a stage")
        self.spec, self.cache = spec, cache
        self.name = str(spec.distill["stage"])
        self.teacher = folder_of(spec.teacher, cache)
        self.source = source_folder(spec, cache)
        self.settings = TrainSettings.model_validate(dict(spec.train or {}))
        self.config = self._student_config()
        self.device = prepare_training()

    def _student_config(self) -> Any:
        """A student of random weights takes over its teacher's vocabulary, positions and activation."""
        if self.source is not None:
            return load_config(self.spec, self.source)
        from backends.families import get_family
        from backends.torch_models import new_config

        teacher_config = load_config(self.spec, self.teacher)
        family = get_family(teacher_config.model_type)
        inherited = (
            "vocab_size",
            "embedding_size",
            "max_position_embeddings",
            "type_vocab_size",
            "hidden_act",
            "layer_norm_eps",
            "pad_token_id",
        )
        teacher_values = teacher_config.to_dict()
        names = (*inherited, *family.inherited)
        sizes = {name: teacher_values[family.key(name)] for name in names if family.key(name) in teacher_values}
        return new_config(family, sizes | dict(self.spec.architecture or {}))

    def write_tokenizer(self, output: Path) -> Tokenizer:
        tokenizer = write_tokenizer(self.spec, self.source or self.teacher, self.config, output)
        if tokenizer.get_vocab() != load_tokenizer(self.teacher).get_vocab():
            raise CheckpointError(
                f"{self.spec.model}: its tokenizer is not that of its teacher; start it from a model with the same"
                " vocabulary, or from 'scratch'"
            )
        return tokenizer

    def train_intermediate(self, encoder: Any, features: Features) -> dict[str, Any]:
        """Train an encoder towards its teacher's attention scores and hidden states. The projection of the hidden states
        is dropped afterwards."""
        import torch
        from transformers import AutoConfig

        from harness.checkpoints.training.distill_losses import StudentWithProjection, intermediate_loss, layer_map
        from harness.checkpoints.training.finetune import build_model

        teacher_config = AutoConfig.from_pretrained(self.teacher, local_files_only=True)
        student_config, heads = encoder.config, teacher_config.num_attention_heads
        layers = layer_map(self.spec.model, student_config.num_hidden_layers, teacher_config.num_hidden_layers)
        if student_config.num_attention_heads != heads:
            reason, remedy = head_mismatch(self.spec.model, student_config.num_attention_heads, heads)
            raise CheckpointError(f"{reason}; {remedy}")
        attention = _scores_attention()
        teacher = build_model("encoder", self.teacher, teacher_config, 0, self.device, attention=attention)
        torch.manual_seed(self.spec.seed)  # building the teacher set another seed; the projection starts at random
        student = StudentWithProjection(encoder, teacher_config.hidden_size, layers)
        return self.train(student, features, intermediate_loss(_frozen(teacher, self.device)))

    def train_prediction(self, model: Any, features: Features, task: Task) -> dict[str, Any]:
        """Train a model towards its teacher's outputs."""
        from transformers import AutoConfig

        from harness.checkpoints.training.distill_losses import prediction_loss
        from harness.checkpoints.training.finetune import build_model, head_of

        teacher_config = AutoConfig.from_pretrained(self.teacher, local_files_only=True)
        teacher = build_model(head_of(task), self.teacher, teacher_config, 0, self.device)
        temperature = float((self.spec.distill or {}).get("temperature", 1.0))
        columns = class_columns(self.teacher, task)
        loss = prediction_loss(_frozen(teacher, self.device), task, columns, temperature)
        return self.train(model, features, loss)

    def train(self, model: Any, features: Features, loss: Any) -> dict[str, Any]:
        from harness.checkpoints.training.finetune import train_model

        states = state_folder(self.spec, self.cache)
        return train_model(model, features, self.spec, self.settings, states, self.device, loss)


def keep_layers(spec: CheckpointSpec, model: Any) -> None:
    """Keep as many layers of a model as the distill setting `layers` says, evenly spaced: those that a student with that many
    layers would learn from. Without the setting all stay."""
    from torch import nn

    from backends.torch_models import family_of, find_module, module_path
    from harness.checkpoints.training.distill_losses import layer_map

    if kept := (spec.distill or {}).get("layers"):
        if not family_of(model).layers_alike:
            raise CheckpointError(f"{spec.model}: {'; '.join(unlike_layers(model.config.model_type, kept=True))}")
        layers = find_module(model, "encoder.layer")
        numbers = layer_map(spec.model, kept, len(layers), "its source's")
        owner, _, attribute = (module_path(model, "encoder.layer") or "").rpartition(".")
        setattr(model.get_submodule(owner), attribute, nn.ModuleList(layers[number - 1] for number in numbers))
        model.config.num_hidden_layers = kept


def _scores_attention() -> str:
    from harness.checkpoints.training.distill_losses import register_scores_attention

    return register_scores_attention()


def _frozen(teacher: Any, device: str) -> Any:
    return teacher.to(device).eval().requires_grad_(False)


def _with_earlier_stages(spec: CheckpointSpec, cache: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """`facts` of this stage with those of the stages before it: a student's training is that of all its stages."""
    this_stage = {name: facts[name] for name in STAGE_FIELDS if name in facts}
    stages = [{"stage": (spec.distill or {})["stage"], **this_stage}]
    if spec.parent and spec.parent.recipe == "distill" and spec.parent.model == spec.model:
        parent_origin = json.loads((folder_of(spec.parent, cache) / "origin.json").read_text())
        stages = [*parent_origin["stages"], *stages]
        if "corpus" in parent_origin:
            facts = {"corpus": parent_origin["corpus"]} | facts
    return facts | {"stages": stages, "train_seconds": sum(stage["train_seconds"] for stage in stages)}
