"""A trained model as a folder that Hugging Face's transformers load, tokenizer included.

    GPT2LMHeadModel       blocks of GPT-2 and nothing else
    NanoChatForCausalLM   modern blocks and nothing else
    ReproGPTForCausalLM   every other model: the folder carries gpt/model.py and what it imports,
                          and loads with trust_remote_code=True

Shapes: h heads, k = d / h, d = n_embd.
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from gpt.checkpoint import TrainedModel
from gpt.config import OUR_SOURCE, ModelConfig
from gpt.errors import CheckpointError
from gpt.files import write_json
from gpt.interop.gpt2_weights import LAYER_NORM_EPSILON, Weights, has_only, to_gpt2, with_layers
from gpt.interop.hf_tokenizer import END_OF_TEXT, hugging_face_tokenizer
from gpt.model import GPT2Block, ModernBlock
from gpt.tokenizers.base import line_breaks

REPOSITORY = Path(__file__).resolve().parents[2]
WRAPPER = "gpt.interop.modeling_repro_gpt"
RMS_NORM_EPSILON = torch.finfo(torch.float32).eps  # PyTorch's default, which ours have
NANOCHAT_NAMES = {
    "token_embedding": "model.embed_tokens",
    "head": "lm_head",
    "blocks.{}.attention.proj": "model.layers.{}.self_attn.o_proj",
    "blocks.{}.mlp.up": "model.layers.{}.mlp.fc1",
    "blocks.{}.mlp.down": "model.layers.{}.mlp.fc2",
}


def write_hugging_face(trained: TrainedModel, out: Path) -> list[Path]:
    """Writes the model into the folder `out`; returns the files.

    Raises CheckpointError for a model of another source that cannot go along.
    """
    tokenizer = hugging_face_tokenizer(trained.tokenizer)
    model, bos = trained.model, trained.tokenizer.bos
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    code: dict[str, str] = {}
    if has_only(model, GPT2Block):
        config, weights = _gpt2(model.config), to_gpt2(weights, model.config.n_layer)
    elif has_only(model, ModernBlock) and not model.config.bias:
        config, weights = _nanochat(model.config), nanochat_tensors(weights, model.config)
    else:
        # Copies: a learner's head may be its token embedding, which safetensors refuse to write.
        weights = {f"gpt.{name}": tensor.clone() for name, tensor in weights.items()}
        config = _own(trained)
        code = modelling_code(model.config.source)
    out.mkdir(parents=True, exist_ok=True)
    texts = {"tokenizer.json": json.dumps(tokenizer, ensure_ascii=False, indent=1), **code}
    for name, text in texts.items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    config |= {"vocab_size": model.vocab_size, "dtype": "float32"}
    config |= {"bos_token_id": bos, "eos_token_id": bos, "pad_token_id": None}
    write_json(out / "config.json", config)
    # transformers ask for the format.
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    special = {} if bos is None else {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT}
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.config.block_size,
    }
    write_json(out / "tokenizer_config.json", tokenizer_config | special)
    names = ("config.json", "model.safetensors", "tokenizer_config.json", *texts)
    return [out / name for name in names]


def _gpt2(config: ModelConfig) -> dict[str, Any]:
    return {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_positions": config.block_size,
        "n_embd": config.n_embd,
        "n_layer": config.n_layer,
        "n_head": config.n_head,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": LAYER_NORM_EPSILON,
        "tie_word_embeddings": True,
        **{f"{name}_pdrop": config.dropout for name in ("resid", "embd", "attn")},
    }


def _nanochat(config: ModelConfig) -> dict[str, Any]:
    """NanoChat too has normalized queries and keys, a squared ReLU and norms without gain.

    It rotates before it normalizes, which is the same: a rotation keeps lengths.
    """
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "intermediate_size": 4 * config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "hidden_act": "relu2",
        "rms_norm_eps": RMS_NORM_EPSILON,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "final_logit_softcapping": None,  # nanochat's own models cap their logits; ours do not
        "attention_bias": False,
        "attention_dropout": config.dropout,
        "tie_word_embeddings": False,
    }


def nanochat_tensors(weights: Weights, config: ModelConfig) -> Weights:
    """Weights of modern blocks under the names of transformers' NanoChat.

    It rotates element i of a head with element i + k / 2, as (odd, even), where ours are the pairs
    (2i, 2i + 1): rows of queries and keys are reordered alike, which keeps their dot products.
    """
    size = config.n_embd // config.n_head
    order_k = torch.cat([torch.arange(1, size, 2), torch.arange(0, size, 2)])
    names = with_layers(NANOCHAT_NAMES, config.n_layer)
    tensors = {f"{theirs}.weight": weights[f"{ours}.weight"] for ours, theirs in names.items()}
    for layer in range(config.n_layer):
        attention = f"model.layers.{layer}.self_attn"
        q_dd, k_dd, v_dd = weights[f"blocks.{layer}.attention.qkv.weight"].chunk(3)
        for name, matrix_dd in (("q", q_dd), ("k", k_dd)):
            matrix_hkd = matrix_dd.view(config.n_head, size, config.n_embd)[:, order_k]
            tensors[f"{attention}.{name}_proj.weight"] = matrix_hkd.flatten(0, 1)
        tensors[f"{attention}.v_proj.weight"] = v_dd.contiguous()
    return tensors


# --- models that carry their code -----------------------------------------------------------------


def _own(trained: TrainedModel) -> dict[str, Any]:
    config = trained.model.config
    file = WRAPPER.rpartition(".")[2]
    return {
        "architectures": ["ReproGPTForCausalLM"],
        "auto_map": {
            "AutoConfig": f"{file}.ReproGPTConfig",
            "AutoModelForCausalLM": f"{file}.ReproGPTForCausalLM",
        },
        "model_type": "repro_gpt",
        "gpt": config.model_dump(),
        # A model of another source is made without.
        "line_breaks": line_breaks(trained.tokenizer) if config.source == OUR_SOURCE else [],
        "max_position_embeddings": config.block_size,
        "hidden_size": config.n_embd,
        "num_hidden_layers": config.n_layer,
        "num_attention_heads": config.n_head,
        "tie_word_embeddings": False,
        "use_cache": False,
    }


def modelling_code(source: str) -> dict[str, str]:
    """The wrapper and all files of gpt/ that it imports, by their names in one flat folder.

    A model of another `source` is among them as source.py. Raises CheckpointError where that
    imports from gpt/ what is not a file there.
    """
    files: dict[str, str] = {}
    modules = [WRAPPER]
    while modules:
        module = modules.pop()
        path = Path(source) if module == "gpt.source" else _path(module)
        if not path.is_file():
            raise CheckpointError(
                f"model.source = {source}: imports {module}, which cannot be exported; import from "
                "the files of gpt/, such as gpt.model"
            )
        text = path.read_text(encoding="utf-8")
        if module == WRAPPER and source != OUR_SOURCE:
            text = text.replace("from gpt.model import GPT", "from gpt.source import GPT")
        files[f"{_flat(module)}.py"], imports = with_relative_imports(text)
        modules += [name for name in imports if f"{_flat(name)}.py" not in files]
    # transformers load files that the wrapper itself imports, and early versions no others.
    wrapper = f"{_flat(WRAPPER)}.py"
    for name in sorted(files.keys() - {wrapper}):
        files[wrapper] += f"from .{name.removesuffix('.py')} import __name__ as _\n"
    return files


def with_relative_imports(text: str) -> tuple[str, list[str]]:
    """The text of a module with imports of gpt/ from one flat folder, and the modules it imports.

    `from gpt.kernels.cpu import x` becomes `from .kernels_cpu import x`.
    """
    imports: list[str] = []

    def rewrite(match: re.Match[str]) -> str:
        package, name = match[1], match[2]
        module = f"{package}.{name}"
        if _path(module).is_file():
            imports.append(module)
            return f"from . import {_flat(module)} as {name}"
        imports.append(package)
        return f"from .{_flat(package)} import {name}"

    text = re.sub(r"^from (gpt[\w.]*) import (\w+|\()", rewrite, text, flags=re.MULTILINE)
    return text, imports


def _path(module: str) -> Path:
    return REPOSITORY / f"{module.replace('.', '/')}.py"


def _flat(module: str) -> str:
    return module.removeprefix("gpt.").removeprefix("interop.").replace(".", "_")
