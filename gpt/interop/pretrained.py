"""The weights that a training starts from (train.init_from): found, checked, under our names.

What the source says of itself is obeyed or refused: weights that fit by their shapes alone can
still be those of another function, or of another tokenizer's ids.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from gpt.config import ModelConfig
from gpt.corpus.downloads import HubFile, fetch_from_hub
from gpt.errors import CheckpointError
from gpt.interop.gpt2_weights import LAYER_NORM_EPSILON, Weights, from_gpt2
from gpt.model_source import make_model, without_weights
from gpt.tokenizers.base import Tokenizer
from gpt.tokenizers.byte_level import GPT2Tokenizer

# What train.init_from may name without a file.
HUGGING_FACE = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
# What a folder may hold: Hugging Face's now and before, nanoGPT's.
FILES = ("model.safetensors", "ckpt.pt", "pytorch_model.bin")
PREFIXES = ("_orig_mod.", "module.", "transformer.")
CAUSAL_MASKS = (".attn.bias", ".attn.masked_bias")  # which old versions saved
HEAD = "lm_head.weight"
# GPT-2's vocabulary is padded to multiples of up to 1,024, with ids that no text has.
GPT2_IDS, MAX_PADDED_IDS = 50257, 51200
# What a config.json of Hugging Face's may say besides shapes, if its GPT-2 is to compute what ours
# does: the key, what it means where it is missing, what else it may be.
SAME_FUNCTION: dict[str, tuple[object, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (LAYER_NORM_EPSILON,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
    "tie_word_embeddings": (True,),
    "quantization_config": (None,),
}


def pretrained_file(init_from: str, root: Path, cache: Path, mirror: str | None) -> Path:
    """The file of weights that train.init_from names, which is downloaded if it is Hugging Face's.

    Else it is a file, or a folder that holds one, from `root`. Raises CheckpointError, DataError.
    """
    if init_from in HUGGING_FACE:
        repo, name = f"openai-community/{init_from}", FILES[0]
        return fetch_from_hub(HubFile(f"{init_from}/{name}", repo, name, "model"), cache, mirror)
    path = (root / Path(init_from).expanduser()).resolve()
    if path.is_dir():
        files = [path / name for name in FILES if (path / name).is_file()]
        path = next(iter(files or sorted(path.glob("*.index.json"))), path)
    if path.name.endswith(".index.json"):
        raise CheckpointError(
            f"{path}: its weights are in several files, which are not read; join them with "
            f"transformers: AutoModelForCausalLM.from_pretrained({str(path.parent)!r})"
            ".save_pretrained('joined', max_shard_size='100GB')"
        )
    if not path.is_file():
        raise CheckpointError(
            f"{path}: no weights here; train.init_from names a file of weights, a "
            f"folder with one of {', '.join(FILES)}, or {', '.join(HUGGING_FACE)}"
        )
    return path


def read_pretrained(file: Path, config: ModelConfig, tokenizer: Tokenizer) -> Weights:
    """The weights in `file` for a model of `config`, under our names, float32.

    Cropped are a longer block_size than the model's, and the padding of GPT-2's vocabulary. Raises
    CheckpointError for weights of another shape, function or tokenizer, with the keys to set.
    """
    weights, stated = _read(file)
    _check_values(file, weights)
    _check_config(file.parent / "config.json", config, stated)
    _check_tokenizer(file, tokenizer)
    if "wte.weight" in weights:
        weights = _ours(file, weights)
    elif "token_embedding.weight" not in weights:
        raise CheckpointError(f"{file}: its tensors are not those of a GPT-2")
    with without_weights():
        expected = make_model(config, tokenizer.vocab_size).state_dict()
    _crop(weights, "position_embedding.weight", config.block_size)
    num_ids = len(weights["token_embedding.weight"])
    if tokenizer.vocab_size == GPT2_IDS and num_ids % 64 == 0 and num_ids <= MAX_PADDED_IDS:
        _crop(weights, "token_embedding.weight", GPT2_IDS)
    shapes = {name: tensor.shape for name, tensor in weights.items()}
    different = shapes.items() ^ {name: tensor.shape for name, tensor in expected.items()}.items()
    if different:
        fix = _keys_to_set(shapes, config, tokenizer.vocab_size)
        if not fix:
            name = min(name for name, _ in different)
            fix = f"its tensor {name} does not fit; set model.architecture to that of the weights"
        raise CheckpointError(f"{file}: {fix}")
    return weights


def _read(file: Path) -> tuple[Weights, dict[str, Any]]:
    """The tensors of a file, their names without the prefixes of wrappers, and nanoGPT's params."""
    stated: dict[str, Any] = {}
    try:
        if file.suffix == ".safetensors":
            tensors = load_file(file)
        else:
            # weights_only lets a pickle hold nothing but tensors and plain values.
            tensors = torch.load(file, map_location="cpu", weights_only=True)
            if "model" in tensors:  # nanoGPT's
                stated = dict(tensors.get("model_args", {}))
                tensors = tensors["model"]
            if not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
                raise ValueError("it holds more than tensors")
    except Exception as error:  # of a strange file, the readers pass on whatever goes wrong
        # PyTorch's reason is advice to load without weights_only, which would run what it holds.
        unsafe = "weights_only" in str(error)
        reason = "" if unsafe else next(iter(str(error).strip().splitlines()), "")
        reason = reason or ("a pickle of more than tensors" if unsafe else type(error).__name__)
        raise CheckpointError(f"{file}: not a file of weights ({reason})") from None
    weights: Weights = {}
    for name, tensor in tensors.items():
        for prefix in PREFIXES:
            name = name.removeprefix(prefix)
        if not name.endswith(CAUSAL_MASKS):
            weights[name] = tensor
    return weights, stated


def _check_values(file: Path, weights: Weights) -> None:
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            kind = str(tensor.dtype).removeprefix("torch.")
            raise CheckpointError(f"{file}: {name} is of {kind}, and weights are floats")
        if not tensor.isfinite().all():
            raise CheckpointError(f"{file}: {name} has NaN or infinity; take an earlier file")


def _check_config(path: Path, config: ModelConfig, stated: dict[str, Any]) -> None:
    """Compares `config` with nanoGPT's `stated` params, or with the config.json by the weights."""
    theirs = stated
    if not stated and path.is_file():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            theirs.keys()
        except (OSError, ValueError, AttributeError) as error:
            raise CheckpointError(f"{path}: not a config of a model ({error})") from None
    if isinstance(ours := theirs.get("model"), dict):  # a folder of this project
        shown = ours.keys() - {"block_size", "dropout", "init_std"}
        keys = [key for key in config.model_dump() if key in shown]
        different = {key: ours[key] for key in keys if ours[key] != getattr(config, key)}
    else:
        same = SAME_FUNCTION | {"n_inner": (None, 4 * config.n_embd)}
        for key, values in same.items():
            if "model_type" in theirs and theirs.get(key, values[0]) not in values:
                raise CheckpointError(
                    f"{path}: {key} = {json.dumps(theirs[key])}, and a GPT-2 here has "
                    f"{json.dumps(values[0])}; its weights would compute something else"
                )
        n_head = theirs.get("n_head", config.n_head)
        different = {} if n_head == config.n_head else {"n_head": n_head}
    if different:
        changes = " ".join(f"model.{key}={_yaml(value)}" for key, value in different.items())
        raise CheckpointError(f"{path.parent}: is of another model; set {changes}")


def _check_tokenizer(file: Path, tokenizer: Tokenizer) -> None:
    """Compares the tokenizer with one by the weights, ours or Hugging Face's, id by id."""
    # Imported here: what is compared changes no result of a training.
    from gpt.interop.hf_tokenizer import vocabulary

    for path in (file.parent / "tokenizer.json", file.parent / "vocab.json"):
        if not path.is_file():
            continue
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
            if path.name == "vocab.json":
                same = vocabulary(tokenizer).items() <= theirs.items()
            elif "kind" in theirs:
                ours = tokenizer.spec()
                same = all(ours[key] == theirs.get(key) for key in ours.keys() - {"has_bos"})
            else:
                same = vocabulary(tokenizer).items() <= theirs["model"]["vocab"].items()
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            raise CheckpointError(f"{path}: not a tokenizer that can be compared") from None
        if not same:
            raise CheckpointError(
                f"{path}: its ids are not those of data/tokens/tokenizer.json, so that the weights "
                "would read other text than they learned; tokenize with it (GPT-2's: "
                "tokenizer.kind=gpt2)"
            )
        return
    if tokenizer.vocab_size == GPT2_IDS and not isinstance(tokenizer, GPT2Tokenizer):
        raise CheckpointError(
            f"{file}: as many ids as GPT-2 has, and no tokenizer.json beside it says that they are "
            "others; set tokenizer.kind=gpt2, or put the tokenizer.json of the weights there"
        )


def _ours(file: Path, weights: Weights) -> Weights:
    """GPT-2's weights under our names, without the head, which is the token embedding."""
    head = weights.pop(HEAD, None)
    if head is not None and not torch.equal(head, weights["wte.weight"]):
        raise CheckpointError(
            f"{file}: {HEAD} is not wte.weight, so its head is not the token embedding as a GPT-2's"
            " is; a model here has no other head, and computes something else"
        )
    try:
        return from_gpt2(weights)
    except KeyError as error:
        raise CheckpointError(f"{file}: lacks the tensor {error}; download it again") from None
    except ValueError as error:
        raise CheckpointError(f"{file}: has a tensor that a GPT-2 has not, {error}") from None


def _crop(weights: Weights, name: str, length: int) -> None:
    if name in weights:
        weights[name] = weights[name][:length].clone()


def _keys_to_set(shapes: dict[str, torch.Size], config: ModelConfig, vocab_size: int) -> str:
    """Which keys to set for weights of `shapes`; "" where none explains the difference."""
    layers = {name.split(".")[1] for name in shapes if name.startswith("blocks.")}
    their_vocab_size, n_embd = shapes["token_embedding.weight"]
    if their_vocab_size != vocab_size:
        return (
            f"was trained with {their_vocab_size} ids, and the tokenizer has {vocab_size}; use the "
            "tokenizer it was trained with (GPT-2's: tokenizer.kind=gpt2)"
        )
    positions = shapes.get("position_embedding.weight", (config.block_size,))[0]
    theirs = {
        "n_layer": len(layers),
        "n_embd": n_embd,
        "bias": any(name.endswith(".bias") for name in shapes),
        "block_size": positions,
    }
    changes = [
        f"model.{key}={_yaml(value)}"
        for key, value in theirs.items()
        if value != getattr(config, key)
    ]
    return f"is a model of another shape; set {' '.join(changes)}" if changes else ""


def _yaml(value: object) -> str:
    """A value as params.yaml and -S have it."""
    return value if isinstance(value, str) else json.dumps(value)
