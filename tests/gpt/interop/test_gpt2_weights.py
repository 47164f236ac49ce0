"""GPT-2's weights in the layouts of Hugging Face and nanoGPT, read by us."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import small_config, small_model
from small_training import SmallTraining

from gpt.config import ModelConfig
from gpt.errors import CheckpointError
from gpt.interop.gpt2_weights import NAMES, pretrained_file, read_pretrained, to_gpt2, with_layers
from gpt.model import GPT
from gpt.tokenizers.char import CharTokenizer

CHARACTERS = CharTokenizer("".join(chr(48 + id) for id in range(65)), has_bos=False)


def model_of(config: ModelConfig) -> GPT:
    return small_model(config, CHARACTERS)


def are_of(weights: dict[str, torch.Tensor], model: GPT) -> bool:
    expected = model.state_dict()
    return weights.keys() == expected.keys() and all(
        torch.equal(weights[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize("bare", [True, False])
def test_reads_the_layout_of_hugging_face(tmp_path: Path, bare: bool) -> None:
    model = model_of(small_config())
    theirs = to_gpt2(model.state_dict(), 2)
    if bare:  # as the files of GPT-2 are: no prefix, the mask of old versions, the head again
        theirs = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
        theirs["h.0.attn.bias"] = torch.ones(1, 1, 16, 16)
        theirs["lm_head.weight"] = theirs["wte.weight"].clone()
    save_file(theirs, tmp_path / "model.safetensors")
    file = pretrained_file(".", tmp_path, tmp_path, None)
    assert file == pretrained_file("model.safetensors", tmp_path, tmp_path, None)
    assert are_of(read_pretrained(file, small_config(), 65), model)


def test_a_shorter_block_takes_the_first_positions(tmp_path: Path) -> None:
    model = model_of(small_config())
    save_file(to_gpt2(model.state_dict(), 2), tmp_path / "model.safetensors")
    file = tmp_path / "model.safetensors"
    weights = read_pretrained(file, small_config(block_size=8), 65)
    shorter = GPT(small_config(block_size=8), 65).eval()
    shorter.load_state_dict(weights)
    ids = torch.randint(65, (2, 8), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(shorter(ids), model(ids))


def nanogpt_weights(model: GPT, vocab_size: int) -> dict[str, torch.Tensor]:
    """As nanoGPT saves a compiled model: not transposed, the vocabulary padded."""
    names = with_layers(NAMES, 2)
    theirs = {}
    for name, tensor in model.state_dict().items():
        module, kind = name.rsplit(".", 1)
        theirs[f"_orig_mod.transformer.{names[module]}.{kind}"] = tensor
    wte = theirs["_orig_mod.transformer.wte.weight"]
    padded = torch.cat([wte, torch.zeros(vocab_size - len(wte), wte.shape[1])])
    theirs["_orig_mod.transformer.wte.weight"] = theirs["_orig_mod.lm_head.weight"] = padded
    return theirs


@pytest.mark.parametrize("bias", [True, False])
def test_reads_a_checkpoint_of_nanogpt(tmp_path: Path, bias: bool) -> None:
    model = model_of(small_config(bias=bias))
    torch.save({"model": nanogpt_weights(model, 128), "iter_num": 5}, tmp_path / "ckpt.pt")
    assert are_of(read_pretrained(tmp_path / "ckpt.pt", small_config(bias=bias), 65), model)


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("attacked",)


def test_a_checkpoint_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"wte.weight": _Attack()}}, "ckpt.pt")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        read_pretrained(Path("ckpt.pt"), small_config(), 65)
    assert not Path("attacked").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_layer": 4}, r"set model\.n_layer=2$"),
        ({"n_embd": 32, "bias": False}, r"set model\.n_embd=16 model\.bias=true$"),
        ({"block_size": 32}, r"set model\.block_size=16$"),
        ({"n_head": 4}, r"set model\.n_head=2$"),
        ({"architecture": "modern", "bias": False}, r"model\.bias=true$"),
    ],
)
def test_weights_of_another_shape_say_which_keys_to_set(
    tmp_path: Path, changes: dict, message: str
) -> None:
    save_file(to_gpt2(model_of(small_config()).state_dict(), 2), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"n_head": 2}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        read_pretrained(tmp_path / "model.safetensors", small_config(**changes), 65)


def test_weights_of_another_vocabulary_say_so(tmp_path: Path) -> None:
    save_file(to_gpt2(model_of(small_config()).state_dict(), 2), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"trained with 65 ids, and the tokenizer has 300"):
        read_pretrained(tmp_path / "model.safetensors", small_config(), 300)


def test_files_without_gpt2s_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such file; train\.init_from names"):
        pretrained_file("none", tmp_path, tmp_path, None)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="not a file of weights"):
        read_pretrained(tmp_path / "model.safetensors", small_config(), 65)
    (tmp_path / "ckpt.pt").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        read_pretrained(tmp_path / "ckpt.pt", small_config(), 65)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not those of a GPT-2"):
        read_pretrained(tmp_path / "other.safetensors", small_config(), 65)
    incomplete = to_gpt2(model_of(small_config()).state_dict(), 2)
    del incomplete["transformer.h.1.mlp.c_fc.weight"]
    save_file(incomplete, tmp_path / "incomplete.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'h\.1\.mlp\.c_fc\.weight'"):
        read_pretrained(tmp_path / "incomplete.safetensors", small_config(), 65)


# --- training from pretrained weights -------------------------------------------------------------


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallTraining]:
    first = SmallTraining(tmp_path_factory.mktemp("pretrained") / "training")
    first.make_tokens()
    run = first.run()
    assert run.end() == 0, run.output()
    yield first


@pytest.mark.slow
def test_a_training_starts_from_pretrained_weights_and_says_so(
    training: SmallTraining, tmp_path: Path
) -> None:
    best = json.loads((training.folder / "metrics/train.json").read_bytes())["best_val_loss"]
    second = training.clone(tmp_path / "second")
    second.set(train__init_from=str(training.folder / "data/model"))
    run = second.run()
    assert run.end() == 0, run.output()
    assert "pretrained, so no competition takes it" in run.output()
    curve = (second.folder / "metrics/curves/train.csv").read_text(encoding="utf-8").splitlines()
    header, values = (line.split(",") for line in curve[:2])
    assert float(values[header.index("val_loss")]) == pytest.approx(best, abs=1e-6)
    config = json.loads((second.folder / "data/model/config.json").read_bytes())
    weights = training.hashes()["model.safetensors"]
    assert config["pretrained_sha256"] == weights
    first_config = json.loads((training.folder / "data/model/config.json").read_bytes())
    assert first_config["pretrained_sha256"] == ""


@pytest.mark.slow
def test_gpt2s_names_are_read_from_the_mirror(training: SmallTraining, tmp_path: Path) -> None:
    weights = load_file(training.folder / "data/model/model.safetensors")
    (tmp_path / "mirror/gpt2-xl").mkdir(parents=True)
    file = tmp_path / "mirror/gpt2-xl/model.safetensors"
    save_file(to_gpt2(weights, 1), file)
    second = training.clone(tmp_path / "second")
    second.set(train__init_from="gpt2-xl", train__steps=0)
    done = second.plain("train", GPT_MIRROR=str(tmp_path / "mirror"))
    assert done.returncode == 0, done.stdout
    assert "starts from gpt2-xl: pretrained" in done.stdout
    copied = load_file(second.folder / "data/model/model.safetensors")
    assert all(torch.equal(copied[name], weights[name]) for name in weights)
    config = json.loads((second.folder / "data/model/config.json").read_bytes())
    assert config["pretrained_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
