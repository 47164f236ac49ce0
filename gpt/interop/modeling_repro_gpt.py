"""A GPT of this project as a model of Hugging Face's transformers.

`gpt export --to hf` copies this file, and what it imports from gpt/, into the exported folder:

    AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)

There is no key-value cache and no padding on the left: `generate` computes the whole context for
every token, and takes prompts of one length at a time. (`gpt sample` is faster.)
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from gpt.config import ModelConfig
from gpt.model import GPT


class ReproGPTConfig(PreTrainedConfig):  # type: ignore[misc]
    """config.json of the folder: `gpt` is our ModelConfig, `line_breaks` as GPT takes them."""

    model_type = "repro_gpt"


class ReproGPTForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """Token ids (b, t) in, logits (b, t, v) out; t is at most block_size."""

    config_class = ReproGPTConfig
    base_model_prefix = "gpt"
    # Some of its formulas are float32 whatever the weights are; for bfloat16 use autocast.
    _keep_in_fp32_modules_strict = ("gpt",)

    def __init__(self, config: ReproGPTConfig) -> None:
        super().__init__(config)
        line_breaks = {"line_breaks": config.line_breaks} if config.line_breaks else {}
        # transformers makes models on the device "meta", and leaves buffers that are not in the
        # file undefined: they are computed here, and copied by _init_weights.
        with torch.device("cpu"):
            self.gpt = GPT(ModelConfig(**config.gpt), config.vocab_size, **line_breaks)
        self._computed = {m: dict(m.named_buffers(recurse=False)) for m in self.gpt.modules()}
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        for name, buffer in module.named_buffers(recurse=False):
            buffer.copy_(self._computed[module][name])

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> CausalLMOutput:
        if attention_mask is not None and not attention_mask.all():
            raise ValueError("padding is not supported; use prompts of one length, or one")
        return CausalLMOutput(logits=self.gpt(input_ids))

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> dict[str, Tensor | None]:
        context_bt = input_ids[:, -self.config.gpt["block_size"] :]
        return {"input_ids": context_bt, "attention_mask": attention_mask}
