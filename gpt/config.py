"""Typed configurations: the shape of a model, and how it is trained.

Not here: tensors (this is imported where torch is not) and values (presets.py).
"""

import math
import re
from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)


class Config(BaseModel):
    """Frozen, strict about names, and free of coercions such as 'yes' -> True."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# The file that holds the model of this project.
OUR_SOURCE = "gpt/model.py"


class ModelConfig(Config):
    """The shape of a GPT. `vocab_size` comes from the tokenizer, so no preset has it."""

    architecture: Literal["original", "gpt2", "modern"] = "gpt2"
    # A Python file with a class GPT. The name in a checkpoint is compared, never run.
    source: str = Field(default=OUR_SOURCE, min_length=1)
    n_layer: int = Field(gt=0)
    n_head: int = Field(gt=0)
    n_embd: int = Field(gt=0)
    # Limited: tables of this length are allocated before config.json is checked against weights.
    block_size: int = Field(gt=0, le=2**20)
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    bias: bool = False
    init_std: float = Field(default=0.02, gt=0.0)
    # Rows of each table of n-gram embeddings; 0: no tables.
    ngram_rows: int = Field(default=0, ge=0, le=2**24)
    # Learned sums over the tokens of a line so far, with the column; 0: neither.
    line_sums: int = Field(default=0, ge=0, le=1024)

    @model_validator(mode="after")
    def heads_divide_width(self) -> "ModelConfig":
        multiple = self.n_head
        why = f"model.n_head = {self.n_head}"
        if self.architecture == "modern":
            multiple = 2 * self.n_head
            why = f"twice {why}, since rotary positions pair the values of a head"
        elif self.architecture == "original":
            multiple = math.lcm(2, self.n_head)
            why += " and by 2, since its positions are pairs of a sine and a cosine"
        if self.n_embd % multiple:
            near = max(multiple, round(self.n_embd / multiple) * multiple)
            raise ValueError(
                f"model.n_embd = {self.n_embd} is not divisible by {why}; use model.n_embd={near}"
            )
        if self.line_sums and self.architecture != "modern":
            raise ValueError(
                f"model.line_sums = {self.line_sums}: model.architecture = {self.architecture} has "
                "none; set it to 0, or use model.architecture=modern"
            )
        return self


# A number and its unit.
BUDGET = r"(\d+\.?\d*(e\+?\d+)? (tokens|tokens/parameter|flops))?"


class TrainConfig(Config):
    """One training run. Learning rates are peak values; `steps` are optimizer updates."""

    steps: int = Field(ge=0)
    # Instead of `steps`; gpt.evaluation.flops.steps_of computes them.
    budget: str = ""
    batch_size: int = Field(gt=0)
    gradient_accumulation: int = Field(default=1, gt=0)
    optimizer: Literal["adamw", "muon"] = "adamw"
    learning_rate: float = Field(gt=0.0)
    min_learning_rate: float = Field(ge=0.0)
    muon_learning_rate: float = Field(default=0.02, gt=0.0)
    schedule: Literal["cosine", "linear", "wsd", "inverse_sqrt"] = "cosine"
    warmup_steps: int = Field(default=100, ge=0)
    weight_decay: float = Field(default=0.1, ge=0.0)
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.99, ge=0.0, lt=1.0)
    grad_clip: float = Field(default=1.0, ge=0.0)
    eval_every: int = Field(default=250, ge=0)
    eval_tokens: int = Field(default=16384, gt=0)
    patience: int = Field(default=0, ge=0)
    packing: Literal["stream", "epochs", "best_fit"] = "stream"
    keep: Literal["best", "last"] = "best"
    device: str = Field(default="auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int = Field(default=0, ge=0, le=1024)
    # A model on the Hugging Face hub, or a file or folder of weights; "": random initial weights.
    init_from: str = ""
    processes: int = Field(default=1, gt=0, le=65536)
    sharding: Literal["ddp", "fsdp"] = "ddp"
    recompute: bool = False

    @field_validator("budget")
    @classmethod
    def budget_counts_something(cls, budget: str) -> str:
        matched = re.fullmatch(BUDGET, budget)
        if not matched or (budget and not 0 < float(budget.split()[0]) < math.inf):
            raise ValueError(
                f"train.budget = {budget!r} is not a valid budget; use '2e6 tokens', "
                "'20 tokens/parameter' or '1e15 flops'"
            )
        return budget


def first_line(error: ValidationError) -> str:
    """The first fault of a pydantic error in one line: 'key: what is wrong (value)'."""
    fault = error.errors()[0]
    where = ".".join(str(key) for key in fault["loc"])
    if fault["type"] == "value_error":
        return fault["msg"].removeprefix("Value error, ")
    # The value may be a whole file.
    value = repr(fault["input"])
    shown = value if len(value) <= 60 else f"{value[:60]}..."
    message = f"{fault['msg'][0].lower()}{fault['msg'][1:]} (is {shown})"
    return f"{where}: {message}" if where else message
