"""What `[models.NAME.train]` of a suite may say; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class TrainSettings(BaseModel):
    """Settings of a training; the optimizer is AdamW (betas 0.9 and 0.999, epsilon 1e-8)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    learning_rate: float = Field(gt=0, le=1, description="highest learning rate, reached after warm-up")
    epochs: float = Field(gt=0, le=1000, description="passes over the training data; a fraction ends within one")
    batch_size: int = Field(16, ge=1, le=4096, description="sequences an optimizer step")
    warmup_ratio: float = Field(0.0, ge=0, lt=1, description="share of all steps in which the rate rises from 0")
    schedule: Literal["linear", "polynomial", "constant"] = Field(
        "linear", description="of the learning rate after warm-up; linear ends at end_learning_rate"
    )
    polynomial_power: float = Field(1.0, gt=0, le=10, description="exponent of the polynomial schedule")
    end_learning_rate: float = Field(0.0, ge=0, le=1, description="rate after the last step (linear, polynomial)")
    weight_decay: float = Field(0.0, ge=0, le=1, description="decoupled; not applied to biases and LayerNorm")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="of forward and backward products; auto: bf16 where the device computes it, else fp16 with loss scaling"
        " on a CUDA device and fp32 on a processor",
    )
    group_by_length: bool = Field(True, description="batches of sequences of like length, so that little is padding")
    max_grad_norm: float = Field(1.0, ge=0, le=1e6, description="gradients are clipped to this norm; 0 does not clip")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="of hidden states and attention; default: what the config of the weights it starts from says",
    )
    max_steps: int | None = Field(
        None, ge=1, description="stop after this many steps; the schedule then ends there too"
    )
    devices: int = Field(
        1, ge=1, le=64, description="GPUs (or processes, without a GPU) that share each batch; batch_size stays the sum"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between two states that training can resume from")
    keep_checkpoints: int = Field(1, ge=1, le=100, description="how many of the latest of those states are kept")

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        if self.end_learning_rate >= self.learning_rate:
            raise ValueError("end_learning_rate must be below learning_rate")
        if self.schedule != "polynomial" and self.polynomial_power != 1.0:
            raise ValueError("polynomial_power needs schedule = 'polynomial'")
        if self.schedule == "constant" and self.end_learning_rate:
            raise ValueError("end_learning_rate needs schedule = 'linear' or 'polynomial'")
        if self.batch_size < self.devices:
            raise ValueError("batch_size must be at least devices: each takes a part of a batch")
        return self


STAGES = ("general", "intermediate", "prediction", "labels")
"""Of recipe `distill`, in the order in which a student goes through them."""


class Augment(BaseModel):
    """New training examples with words exchanged (TinyBERT, arXiv 1909.10351, section 4.1 and appendix A)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    masked_lm: str = Field(
        min_length=1, description="model that proposes words: hub:ID, package:NAME/FOLDER or a folder"
    )
    train: dict[str, Any] | None = Field(
        None, description="settings to train masked_lm on the text corpus first; default: it is used as it is"
    )
    copies: int = Field(20, ge=1, le=100, description="new examples an example, at most")
    probability: float = Field(0.4, gt=0, le=1, description="with which each word is exchanged")
    candidates: int = Field(15, ge=1, le=1000, description="most likely words, of which one is drawn")
    glove: str | None = Field(
        None,
        min_length=1,
        description="file of GloVe vectors: neighbours of words of several pieces; below the suite's folder",
    )


class Distill(BaseModel):
    """How a student is made like its teacher (TinyBERT). A stage runs when it is named; each takes the model's train
    settings with its own changes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    general: dict[str, Any] | None = Field(
        None, description="on the text corpus, from the teacher as it was pretrained: intermediate losses"
    )
    intermediate: dict[str, Any] | None = Field(
        None, description="on the task: attention scores, embeddings and hidden states of mapped layers"
    )
    prediction: dict[str, Any] | None = Field(None, description="on the task: the teacher's outputs")
    labels: dict[str, Any] | None = Field(
        None, description="on the task: its labels and no teacher, for the same student trained without one"
    )
    layers: int | None = Field(
        None, ge=1, le=96, description="layers of the source that the student keeps, evenly spaced; default: all"
    )
    temperature: float = Field(1.0, gt=0, le=100, description="that softens both outputs in the prediction stage")
    augment: Augment | None = Field(
        None, description="more examples for the stages on the task; question answering goes without"
    )

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """Those that run, in order, with their changes to the train settings."""
        return {name: given for name in STAGES if (given := getattr(self, name)) is not None}


def no_uniform_map(model: str, student: int, teacher: int, whose: str = "the teacher's") -> tuple[str, str]:
    """(reason, remedy): layer m of the student is made like the teacher's layer m x teacher / student (arXiv 1909.10351)."""
    fitting = ", ".join(str(depth) for depth in range(1, teacher + 1) if teacher % depth == 0)
    reason = f"{model}: its {student} layers do not divide {whose} {teacher}, so no uniform map of layers fits"
    return reason, f"give the student one of {fitting} layers"


def in_key(train: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a checkpoint's key holds: those which change its weights and aren't at their default, so that a new
    setting leaves old keys alone. (A default that changes asks for a new RECIPE_VERSIONS entry.)"""
    fields = TrainSettings.model_fields
    without = ("checkpoint_every", "keep_checkpoints", "devices")
    return {name: value for name, value in train.items() if name not in without and value != fields[name].get_default()}
