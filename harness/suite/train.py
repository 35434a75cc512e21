"""The training tables of a suite file: `[models.NAME.train]` and `[models.NAME.distill]`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Table(BaseModel):
    """A table of a suite file: unknown keys, type conversions, infinities and NaN are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


class TrainSettings(Table):
    """Settings of a training; the optimizer is AdamW (betas 0.9 and 0.999, epsilon 1e-8)."""

    learning_rate: float = Field(gt=0, le=1, description="highest learning rate, reached after warm-up")
    epochs: float = Field(gt=0, le=1000, description="passes over the training data; a fraction ends within a pass")
    batch_size: int = Field(16, ge=1, le=4096, description="sequences per optimizer step")
    warmup_ratio: float = Field(
        0.0, ge=0, lt=1, description="share of all steps in which the learning rate rises from 0"
    )
    schedule: Literal["linear", "polynomial", "constant"] = Field(
        "linear", description="of the learning rate after warm-up; linear and polynomial end at end_learning_rate"
    )
    polynomial_power: float = Field(1.0, gt=0, le=10, description="exponent of the polynomial schedule")
    end_learning_rate: float = Field(
        0.0, ge=0, le=1, description="learning rate after the last step (linear, polynomial)"
    )
    weight_decay: float = Field(
        0.0, ge=0, le=1, description="decoupled weight decay; not applied to biases and LayerNorm"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="of forward and backward products; auto: bf16 where the device supports it, else fp16 with loss scaling"
        " on a CUDA device and fp32 on a CPU",
    )
    group_by_length: bool = Field(True, description="batches of sequences of similar length, so that little is padding")
    max_grad_norm: float = Field(1.0, ge=0, le=1e6, description="gradients are clipped to this norm; 0: no clipping")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="of hidden states and attention; default: that of the configuration of the initial weights",
    )
    max_steps: int | None = Field(
        None, ge=1, description="stop after this many steps, where the schedule then ends too"
    )
    max_minutes: float | None = Field(
        None,
        gt=0,
        le=100_000,
        description="stop at the end of the step in which so many minutes are over; the schedule stays",
    )
    hold_out: int = Field(
        0,
        ge=0,
        le=1_000_000,
        description="examples that are not trained on, those drawn after calibration's: a search chooses by them",
    )
    devices: int = Field(
        1, ge=1, le=64, description="GPUs (or processes, without a GPU) that share each batch of batch_size sequences"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between saved states that training can resume from")
    keep_checkpoints: int = Field(1, ge=1, le=100, description="how many of the latest saved states are kept")

    @model_validator(mode="after")
    def _consistent(self) -> TrainSettings:
        if self.end_learning_rate >= self.learning_rate:
            raise ValueError("end_learning_rate must be below learning_rate")
        if self.schedule != "polynomial" and self.polynomial_power != 1.0:
            raise ValueError("polynomial_power needs schedule = 'polynomial'")
        if self.schedule == "constant" and self.end_learning_rate:
            raise ValueError("end_learning_rate needs schedule = 'linear' or 'polynomial'")
        if self.batch_size < self.devices:
            raise ValueError("batch_size must be at least devices, since each device takes a part of every batch")
        return self

    def to_json(self) -> dict[str, Any]:
        """All settings. Those that were added later are left out at their default, so that plans and records stay the same."""
        later = {"max_minutes": None, "hold_out": 0}
        return {name: value for name, value in self.model_dump().items() if name not in later or value != later[name]}


STAGES = ("general", "intermediate", "prediction", "labels")
"""The stages of recipe `distill`, in the order in which they run."""


class Augment(Table):
    """New training examples with words replaced (TinyBERT, arXiv 1909.10351, section 4.1 and appendix A)."""

    masked_lm: str = Field(
        min_length=1, description="masked language model that proposes words: hub:ID, package:NAME/FOLDER or a folder"
    )
    train: dict[str, Any] | None = Field(
        None, description="settings for training masked_lm on the text corpus first; default: it is not trained"
    )
    copies: int = Field(20, ge=1, le=100, description="the largest number of new examples per example")
    probability: float = Field(0.4, gt=0, le=1, description="with which each word is replaced")
    candidates: int = Field(15, ge=1, le=1000, description="number of most likely words of which one is drawn")
    glove: str | None = Field(
        None,
        min_length=1,
        description="file of GloVe vectors below the suite's folder: its nearest neighbours replace words of several word pieces",
    )


class Distill(Table):
    """How a student learns from its teacher (TinyBERT). A stage runs when it has a table here; the table changes the model's
    train settings for that stage."""

    general: dict[str, Any] | None = Field(
        None, description="on the text corpus, with the teacher as pretrained: intermediate losses"
    )
    intermediate: dict[str, Any] | None = Field(
        None, description="on the task: attention scores, embeddings and hidden states of mapped layers"
    )
    prediction: dict[str, Any] | None = Field(None, description="on the task: the teacher's outputs")
    labels: dict[str, Any] | None = Field(
        None, description="on the task's labels, without a teacher: the same student, to compare with"
    )
    layers: int | None = Field(
        None,
        ge=1,
        le=96,
        description="number of layers of the source that the student keeps, evenly spaced; default: all",
    )
    temperature: float = Field(1.0, gt=0, le=100, description="softens both outputs in the prediction stage")
    augment: Augment | None = Field(
        None, description="more examples for the stages on the task; not used for question answering"
    )

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """The stages that run, in order, with their changes to the train settings."""
        return {name: changes for name in STAGES if (changes := getattr(self, name)) is not None}


def fitting_depths(teacher: int) -> str:
    """The numbers of student layers that map uniformly to `teacher` layers, in words: `1, 2 or 4`."""
    depths = [str(depth) for depth in range(1, min(teacher, 96) + 1) if teacher % depth == 0]
    return " or ".join(part for part in (", ".join(depths[:-1]), depths[-1]) if part)


def depth_mismatch(model: str, student: int, teacher: int, whose: str = "the teacher's") -> tuple[str, str]:
    """(reason, remedy) where the layers of a student do not divide those of its teacher: layer m of the student learns from the
    teacher's layer m x teacher / student (arXiv 1909.10351)."""
    reason = f"{model}: its {student} layers do not divide {whose} {teacher} evenly, so layers have no uniform mapping"
    return reason, f"give the student {fitting_depths(teacher)} layers"


def head_mismatch(model: str, student: int, teacher: int) -> tuple[str, str]:
    """(reason, remedy) where a student has not as many attention heads as its teacher."""
    reason = (
        f"{model}: it has {student} attention heads and its teacher {teacher}, but scores are compared head by head"
    )
    return reason, f"give the student {teacher} heads"


def own_attention(model_type: str) -> tuple[str, str]:
    """(reason, remedy) where stages that compare attention scores are asked of a family that keeps them to itself."""
    reason = f"{model_type} computes attention in its own modules, where its scores cannot be learnt from"
    return reason, "use stages 'prediction' and 'labels'"


def unlike_layers(model_type: str, *, kept: bool = False) -> tuple[str, str]:
    """(reason, remedy) where layers of a family that are of several kinds are to be learnt from one by one. kept: where a student is
    to keep some of them."""
    reason = f"{model_type} has layers of several kinds, so that none can stand for another"
    return reason, "leave distill.layers out" if kept else "use stages 'prediction' and 'labels'"


def in_key(train: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are part of a checkpoint's key: those that change its weights and are not at their default. So a new
    setting leaves old keys alone, and a changed default needs a new version in RECIPE_VERSIONS."""
    fields = TrainSettings.model_fields
    without = ("checkpoint_every", "keep_checkpoints", "devices")
    return {name: value for name, value in train.items() if name not in without and value != fields[name].get_default()}
