"""Recipe `distill`: one stage of making a student; and the checkpoints on plain text that its stages need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.checkpoints.base_model import config_of, copy_model, source_of, write_tokenizer
from harness.checkpoints.labels import columns_of
from harness.checkpoints.origin import root
from harness.checkpoints.training.devices import begin_training
from harness.checkpoints.training.states import state_of
from harness.errors import CheckpointError
from harness.plan.spec import CheckpointSpec, folder_of
from harness.suite.train import TrainSettings
from tasks import Features, Task
from tasks.tokens import load_tokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def pretrained(spec: CheckpointSpec, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `pretrained`: the source as it is, whatever its head."""
    from backends.bert import check_finite

    source = source_of(spec, cache)
    assert source is not None, "random weights are nothing that was pretrained"
    check_finite(source)
    write_tokenizer(spec, source, config_of(spec, source), part)
    copy_model(source, part)
    return {}


def masked_lm(spec: CheckpointSpec, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `masked_lm`: a source, or random weights, trained to fill in words of the text corpus."""
    from transformers import BertForMaskedLM

    from harness.checkpoints.training.corpus import about_text, text_features
    from harness.checkpoints.training.finetune import begin, run, set_dropout
    from harness.checkpoints.training.masked_lm import Blanks, blanks_loss

    source = source_of(spec, cache)
    device = begin_training()
    settings = TrainSettings.model_validate(dict(spec.train or {}))
    config = config_of(spec, source)
    config.architectures = ["BertForMaskedLM"]
    set_dropout(config, settings)
    tokenizer = write_tokenizer(spec, source, config, part)
    features = text_features(spec, tokenizer, cache)
    model = begin(BertForMaskedLM, source, config, spec.seed, device, heads=("cls.",))
    facts = run(Blanks(model), features, spec, settings, state_of(spec, cache), device, blanks_loss(tokenizer))
    model.cpu().save_pretrained(part, max_shard_size="1TB")
    return facts | {"corpus": about_text(spec, features)}


def general(spec: CheckpointSpec, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `distill`, stage `general`: an encoder without a head, made on the text corpus like its teacher as it was
    pretrained."""
    from transformers import BertModel

    from harness.checkpoints.training.corpus import about_text, text_features
    from harness.checkpoints.training.finetune import begin, set_dropout

    student = _Student(spec, cache)
    config = student.config
    config.architectures = ["BertModel"]
    set_dropout(config, student.settings)
    tokenizer = student.write_tokenizer(part)
    features = text_features(spec, tokenizer, cache)
    model = begin(
        BertModel, student.source, config, spec.seed, student.device, attention=_scores(), add_pooling_layer=False
    )
    keep_layers(spec, model)
    facts = student.mimic(model, features)
    model.cpu().save_pretrained(part, max_shard_size="1TB")
    return _with_earlier(spec, cache, facts | {"corpus": about_text(spec, features)})


def distill(spec: CheckpointSpec, task: Task, cache: Path, part: Path) -> dict[str, Any]:
    """Recipe `distill`, a stage on a task: a model with the task's head."""
    from backends import BackendError
    from harness.checkpoints.training.augment import augmented
    from harness.checkpoints.training.finetune import begin, fit_to_task, model_class, training_features

    student = _Student(spec, cache)
    tokenizer = student.write_tokenizer(part)
    try:
        fit_to_task(student.config, task, student.settings, part)
    except BackendError as error:
        why = str(error).removeprefix(f"{part / 'config.json'}: ")
        raise CheckpointError(f"{spec.model}: {root(spec).source}: {why}") from None
    features, examples = training_features(task, tokenizer, spec)
    if spec.masked_lm and task.kind != "question_answering":
        features = augmented(features, spec, tokenizer, cache, student.device)
    inside = student.stage == "intermediate"
    model = begin(
        model_class(task),
        student.source,
        student.config,
        spec.seed,
        student.device,
        attention=_scores() if inside else None,
    )
    keep_layers(spec, model)
    if inside:
        facts = student.mimic(model.base_model, features)
    elif student.stage == "prediction":
        facts = student.predict(model, features, task)
    else:
        facts = student.train(model, features, None)
    model.cpu().save_pretrained(part, max_shard_size="1TB")
    return _with_earlier(spec, cache, {"train_examples": examples, **facts})


class _Student:
    """What every stage begins with."""

    def __init__(self, spec: CheckpointSpec, cache: Path) -> None:
        if spec.teacher is None or spec.distill is None:
            raise ValueError("a student has a teacher and a stage")
        self.spec, self.cache = spec, cache
        self.stage = str(spec.distill["stage"])
        self.teacher = folder_of(spec.teacher, cache)
        self.source = source_of(spec, cache)
        self.settings = TrainSettings.model_validate(dict(spec.train or {}))
        self.config = self._config()
        self.device = begin_training()

    def _config(self) -> Any:
        """A student of random weights reads the words of its teacher."""
        if self.source is not None:
            return config_of(self.spec, self.source)
        from transformers import BertConfig

        theirs = config_of(self.spec, self.teacher)
        same = (
            "vocab_size",
            "max_position_embeddings",
            "type_vocab_size",
            "hidden_act",
            "layer_norm_eps",
            "pad_token_id",
        )
        sizes: dict[str, Any] = {name: getattr(theirs, name) for name in same} | dict(self.spec.architecture or {})
        return BertConfig(**sizes)

    def write_tokenizer(self, part: Path) -> Tokenizer:
        tokenizer = write_tokenizer(self.spec, self.source or self.teacher, self.config, part)
        if tokenizer.get_vocab() != load_tokenizer(self.teacher).get_vocab():
            raise CheckpointError(
                f"{self.spec.model}: its tokenizer is not that of its teacher; start it from a model with the same"
                " vocabulary, or from 'scratch'"
            )
        return tokenizer

    def mimic(self, encoder: Any, features: Features) -> dict[str, Any]:
        """Train an encoder to be like its teacher inside. The projection ends with the stage."""
        import torch
        from transformers import AutoConfig, BertModel

        from harness.checkpoints.training.distill_losses import Mimic, intermediate, layer_map
        from harness.checkpoints.training.finetune import begin

        theirs = AutoConfig.from_pretrained(self.teacher, local_files_only=True)
        mine, heads = encoder.config, theirs.num_attention_heads
        layers = layer_map(self.spec.model, mine.num_hidden_layers, theirs.num_hidden_layers)
        if mine.num_attention_heads != heads:
            raise CheckpointError(
                f"{self.spec.model}: it has {mine.num_attention_heads} attention heads and its teacher {heads}, whose scores"
                f" are compared one by one; give it {heads}"
            )
        teacher = begin(BertModel, self.teacher, theirs, 0, self.device, attention=_scores(), add_pooling_layer=False)
        torch.manual_seed(self.spec.seed)  # loading the teacher set another: the projection begins with random weights
        model = Mimic(encoder, theirs.hidden_size, layers)
        return self.train(model, features, intermediate(_frozen(teacher, self.device)))

    def predict(self, model: Any, features: Features, task: Task) -> dict[str, Any]:
        """Train a model to answer like its teacher."""
        from transformers import AutoConfig

        from harness.checkpoints.training.distill_losses import prediction
        from harness.checkpoints.training.finetune import begin, model_class

        theirs = AutoConfig.from_pretrained(self.teacher, local_files_only=True)
        teacher = begin(model_class(task), self.teacher, theirs, 0, self.device)
        temperature = float((self.spec.distill or {}).get("temperature", 1.0))
        order = columns_of(self.teacher, task)
        return self.train(model, features, prediction(_frozen(teacher, self.device), task, order, temperature))

    def train(self, model: Any, features: Features, loss: Any) -> dict[str, Any]:
        from harness.checkpoints.training.finetune import run

        return run(model, features, self.spec, self.settings, state_of(self.spec, self.cache), self.device, loss)


def keep_layers(spec: CheckpointSpec, model: Any) -> None:
    """Leave `layers` of a model's N layers, evenly spaced: those that a student of as many is made like."""
    from torch import nn

    from harness.checkpoints.training.distill_losses import layer_map

    if kept := (spec.distill or {}).get("layers"):
        stack = model.base_model.encoder
        stack.layer = nn.ModuleList(
            stack.layer[at - 1] for at in layer_map(spec.model, kept, len(stack.layer), "its source's")
        )
        model.config.num_hidden_layers = kept


def _scores() -> str:
    from harness.checkpoints.training.distill_losses import register_scores

    return register_scores()


def _frozen(teacher: Any, device: str) -> Any:
    return teacher.to(device).eval().requires_grad_(False)


def _with_earlier(spec: CheckpointSpec, cache: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """A student's training is that of all its stages."""
    stages = [{"stage": (spec.distill or {})["stage"], **{name: facts[name] for name in _OF_STAGE if name in facts}}]
    if spec.parent and spec.parent.recipe == "distill" and spec.parent.model == spec.model:
        before = json.loads((folder_of(spec.parent, cache) / "origin.json").read_text())
        stages = [*before["stages"], *stages]
        if "corpus" in before:
            facts = {"corpus": before["corpus"]} | facts
    return facts | {"stages": stages, "train_seconds": sum(stage["train_seconds"] for stage in stages)}


_OF_STAGE = ("train_seconds", "train_device", "train_windows", "train_steps", "train_precision")
