"""Weights that come from others, and ours as others read them, each checked by the other side."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_training import SmallTraining

from gpt.checkpoint import DeviceRecord, ModelRecord, TrainedModel
from gpt.config import ModelConfig, TrainConfig
from gpt.device import choose_device
from gpt.errors import CheckpointError
from gpt.evaluation.flops import parameter_count
from gpt.interop.gpt2_weights import BLOCK, WHOLE, read_pretrained, to_gpt2
from gpt.interop.huggingface import byte_pairs, export, gguf_tensors
from gpt.model import GPT
from gpt.presets import resolve
from gpt.tokenizers.base import (
    BPETokenizer,
    ByteTokenizer,
    CharTokenizer,
    GPT2Tokenizer,
    Pattern,
    Tokenizer,
    WordTokenizer,
)
from gpt.tokenizers.bpe_training import GPT2_FILE, gpt2_tokens, train_bpe
from gpt.tokenizers.byte_level import BYTE_TO_UNICODE

TEXT = (
    "Enter ROMEO, with a rose.\n\nBut soft! what light through yonder window breaks? It's 1597;\n"
    "  the envious moon,\tsick   and pale...  naïve café — 日本語 \U0001f339\n\n\n"
)


def shape(**changes: object) -> ModelConfig:
    return ModelConfig(
        **{"n_layer": 2, "n_head": 2, "n_embd": 16, "block_size": 16, "bias": True, **changes}
    )


def model_of(config: ModelConfig, vocab_size: int, line_breaks: tuple[int, ...] = ()) -> GPT:
    """A model whose biases and gains are not those it begins with."""
    model = GPT(config, vocab_size, seed=3, line_breaks=line_breaks).eval()
    noise = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=noise))
    return model


def trained(
    config: ModelConfig, tokenizer: Tokenizer, line_breaks: tuple[int, ...] = ()
) -> TrainedModel:
    device = choose_device("cpu", "float32")
    train = TrainConfig(steps=1, batch_size=1, learning_rate=1e-3, min_learning_rate=0.0)
    record = ModelRecord(
        model=config,
        vocab_size=tokenizer.vocab_size,
        train=train,
        seed=3,
        data={},
        code_sha256="0" * 64,
        device=DeviceRecord(**device.as_dict()),
        tokenizer_sha256="0" * 64,
    )
    model = model_of(config, tokenizer.vocab_size, line_breaks)
    return TrainedModel(model, tokenizer, record, device)


def tokenizers() -> dict[str, Tokenizer]:
    made: dict[str, Tokenizer] = {
        "char": CharTokenizer("".join(sorted(set(TEXT))), has_bos=True),
        "byte": ByteTokenizer(has_bos=True),
    }
    pattern: Pattern
    for pattern in ("gpt2", "gpt4"):
        tokens = train_bpe(
            lambda: iter([TEXT] * 20), vocab_size=330, min_frequency=2, pattern=pattern
        )
        made[f"bpe {pattern}"] = BPETokenizer(tokens, pattern, has_bos=True)
    return made


# --- what others read -----------------------------------------------------------------------------


MODERN = {"architecture": "modern", "bias": False}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what their packages warn of is not ours to mend
@pytest.mark.parametrize(
    ("theirs", "changes"),
    [
        ("GPT2LMHeadModel", {"bias": True}),
        ("GPT2LMHeadModel", {"bias": False}),
        ("NanoChatForCausalLM", {**MODERN}),
        # Long enough for the CPU's own kernels, and one head.
        ("NanoChatForCausalLM", {**MODERN, "n_head": 1, "n_embd": 24, "block_size": 700}),
    ],
)
def test_transformers_reads_the_export_and_gives_our_logits(
    tmp_path: Path, theirs: str, changes: dict
) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    from transformers import AutoModelForCausalLM

    ours = trained(shape(**changes), ByteTokenizer(has_bos=True))
    export(ours, "hf", tmp_path / "out")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert type(read).__name__ == theirs
    size = (3, ours.model.config.block_size)
    ids = torch.randint(257, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, found = ours.model(ids), read(ids).logits
    assert float(expected.abs().max()) > 1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", [{}, MODERN])
def test_transformers_writes_on_as_our_logits_have_it(tmp_path: Path, changes: dict) -> None:
    # With its cache, from one token at a time, and past no end of text of its own.
    pytest.importorskip("transformers", exc_type=ImportError)
    from transformers import AutoModelForCausalLM

    ours = trained(shape(**changes), ByteTokenizer(has_bos=True))
    export(ours, "hf", tmp_path / "out")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.tensor([[72, 101, 108]])
    written = read.generate(ids, max_new_tokens=13, do_sample=False, eos_token_id=None)
    for _ in range(13):
        with torch.no_grad():
            ids = torch.cat([ids, ours.model(ids)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(written, ids)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["char", "byte", "bpe gpt2", "bpe gpt4"])
def test_transformers_gives_the_ids_of_our_tokenizer(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    from transformers import AutoTokenizer

    tokenizer = tokenizers()[kind]
    export(trained(shape(), tokenizer), "hf", tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in (TEXT, TEXT[::-1], "a", " ", "\n\n ", TEXT.replace(" ", "  ")):
        ids = tokenizer.encode(text).tolist()
        assert theirs.encode(text, add_special_tokens=False) == ids, text
        assert theirs.decode(ids) == text
    assert theirs.eos_token_id == tokenizer.bos
    assert len(theirs) == tokenizer.vocab_size


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_transformers_gives_the_ids_of_gpt2(tmp_path: Path) -> None:
    pytest.importorskip("transformers", exc_type=ImportError)
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if not folder:
        pytest.skip("TIKTOKEN_CACHE_DIR is not set: GPT-2's tokenizer files")
    from transformers import AutoTokenizer

    content = (Path(folder) / GPT2_FILE).read_bytes()
    tokenizer = GPT2Tokenizer(gpt2_tokens(content), has_bos=True)
    export(trained(shape(n_embd=4), tokenizer), "hf", tmp_path / "out")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert theirs.encode(TEXT) == tokenizer.encode(TEXT).tolist()


def test_merges_are_found_again_from_the_ranks() -> None:
    tokenizer = tokenizers()["bpe gpt2"]
    tokens, merges = byte_pairs(tokenizer)
    assert len(merges) == len(tokens) - 256
    assert [left + right for left, right in merges] == tokens[256:]
    known = set(tokens[:256])
    for left, right in merges:
        assert {left, right} <= known
        known.add(left + right)


def test_gpt2s_letters_are_256_and_printable() -> None:
    assert len(set(BYTE_TO_UNICODE.values())) == 256
    assert BYTE_TO_UNICODE[ord(" ")] == "\u0120"  # what tokens of GPT-2 are known by
    assert all(letter.isprintable() for letter in BYTE_TO_UNICODE.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["byte", "bpe gpt2", "char"])
def test_gguf_holds_the_same_tensors_and_tokens(tmp_path: Path, kind: str) -> None:
    gguf = pytest.importorskip("gguf")
    made = {**tokenizers(), "char": CharTokenizer("\n abc", has_bos=True)}
    ours = trained(shape(), made[kind])
    (file,) = export(ours, "gguf", tmp_path / "out")
    reader = gguf.GGUFReader(file)
    expected = gguf_tensors(ours.model.state_dict(), 2)
    found = {tensor.name: tensor.data for tensor in reader.tensors}
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] == tensor.numpy()).all(), name
        assert found[name].shape == tuple(tensor.shape)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    assert facts["general.architecture"] == "gpt2"
    assert facts["gpt2.context_length"] == 16
    assert facts["gpt2.attention.head_count"] == 2
    assert len(facts["tokenizer.ggml.tokens"]) == ours.tokenizer.vocab_size
    assert facts["tokenizer.ggml.eos_token_id"] == ours.tokenizer.bos


LINES = {"ngram_rows": 64, "line_sums": 4}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("changes", "line_breaks"),
    [
        ({}, ()),
        ({"architecture": "original"}, ()),
        ({**MODERN, **LINES}, (10, 13)),
        ({**MODERN, **LINES}, ()),  # a text without lines
    ],
)
def test_onnx_gives_our_logits_for_any_number_of_sequences_and_positions(
    tmp_path: Path, changes: dict, line_breaks: tuple[int, ...]
) -> None:
    runtime = pytest.importorskip("onnxruntime")
    ours = trained(shape(**changes), ByteTokenizer(has_bos=True), line_breaks)
    (file,) = export(ours, "onnx", tmp_path / "out")
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for size in ((1, 1), (2, 7), (3, 16)):
        # Of eight letters, so that there are lines.
        ids = torch.randint(8, 16, size, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            expected = ours.model(ids)
        (found,) = session.run(None, {"ids": ids.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("changes", "to", "said"),
    [
        ({**MODERN, **LINES}, "hf", "-S model.ngram_rows=0 -S model.line_sums=0"),
        ({**MODERN, "bias": True}, "hf", "-S model.bias=false"),
        ({"architecture": "original"}, "hf", "-S model.architecture=gpt2"),
        ({**MODERN}, "gguf", "-S model.architecture=gpt2"),
        ({"source": "scratchpad/model.py"}, "hf", "-S model.source=gpt/model.py"),
    ],
)
def test_what_has_no_counterpart_is_refused_with_the_keys_to_set(
    tmp_path: Path, changes: dict, to: str, said: str
) -> None:
    with pytest.raises(CheckpointError) as refused:
        export(trained(shape(**changes), ByteTokenizer(has_bos=True)), to, tmp_path)
    assert str(refused.value).endswith(f"no counterpart in {to}; train one that has: {said}")


def test_tokenizers_that_have_no_counterpart_are_refused(tmp_path: Path) -> None:
    word = trained(shape(), WordTokenizer(["the"], "gpt2", has_bos=True))
    with pytest.raises(CheckpointError, match=r"tokenizer\.kind word"):
        export(word, "hf", tmp_path)
    odd = trained(shape(), CharTokenizer("aé", has_bos=True))
    with pytest.raises(CheckpointError, match="characters of several bytes"):
        export(odd, "gguf", tmp_path)


# --- what comes from others -----------------------------------------------------------------------


def same(found: dict[str, torch.Tensor], model: GPT) -> bool:
    expected = model.state_dict()
    return found.keys() == expected.keys() and all(
        torch.equal(found[name], expected[name]) for name in expected
    )


@pytest.mark.parametrize("bare", [True, False])
def test_the_layout_of_hugging_face_is_read(tmp_path: Path, bare: bool) -> None:
    model = model_of(shape(), 65)
    theirs = to_gpt2(model.state_dict(), 2)
    if bare:  # as the files of GPT-2 are: no prefix, the mask of old versions, the head again
        theirs = {name.removeprefix("transformer."): tensor for name, tensor in theirs.items()}
        theirs["h.0.attn.bias"] = torch.ones(1, 1, 16, 16)
        theirs["lm_head.weight"] = theirs["wte.weight"].clone()
    save_file(theirs, tmp_path / "model.safetensors")
    assert same(read_pretrained(tmp_path, shape(), 65), model)
    assert same(read_pretrained(tmp_path / "model.safetensors", shape(), 65), model)


def test_a_shorter_block_takes_the_first_positions(tmp_path: Path) -> None:
    model = model_of(shape(), 65)
    save_file(to_gpt2(model.state_dict(), 2), tmp_path / "model.safetensors")
    found = read_pretrained(tmp_path, shape(block_size=8), 65)
    shorter = GPT(shape(block_size=8), 65).eval()
    shorter.load_state_dict(found)
    ids = torch.randint(65, (2, 8), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        torch.testing.assert_close(shorter(ids), model(ids))


def nanogpt(model: GPT, vocabulary: int) -> dict[str, torch.Tensor]:
    """As nanoGPT saves a compiled model: not transposed, the vocabulary filled up."""
    names = {**WHOLE}
    for layer in range(2):
        names |= {f"blocks.{layer}.{ours}": f"h.{layer}.{theirs}" for ours, theirs in BLOCK.items()}
    theirs = {}
    for name, tensor in model.state_dict().items():
        module, kind = name.rsplit(".", 1)
        theirs[f"_orig_mod.transformer.{names[module]}.{kind}"] = tensor
    rows = theirs["_orig_mod.transformer.wte.weight"]
    filled = torch.cat([rows, torch.zeros(vocabulary - len(rows), rows.shape[1])])
    theirs["_orig_mod.transformer.wte.weight"] = theirs["_orig_mod.lm_head.weight"] = filled
    return theirs


@pytest.mark.parametrize("bias", [True, False])
def test_a_checkpoint_of_nanogpt_is_read(tmp_path: Path, bias: bool) -> None:
    model = model_of(shape(bias=bias), 65)
    torch.save({"model": nanogpt(model, 128), "iter_num": 5}, tmp_path / "ckpt.pt")
    assert same(read_pretrained(tmp_path / "ckpt.pt", shape(bias=bias), 65), model)


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("attacked",)


def test_a_checkpoint_that_would_run_code_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"model": {"wte.weight": _Attack()}}, "ckpt.pt")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        read_pretrained(Path("ckpt.pt"), shape(), 65)
    assert not Path("attacked").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"n_layer": 4}, r"set model\.n_layer=2$"),
        ({"n_embd": 32, "bias": False}, r"set model\.n_embd=16 model\.bias=true$"),
        ({"block_size": 32}, r"set model\.block_size=16$"),
        ({"n_head": 4}, r"set model\.n_head=2$"),
        ({"architecture": "modern", "bias": False}, r"model\.bias=true$"),
    ],
)
def test_weights_of_another_shape_say_which_keys_to_set(
    tmp_path: Path, asked: dict, said: str
) -> None:
    save_file(to_gpt2(model_of(shape(), 65).state_dict(), 2), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"n_head": 2}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=said):
        read_pretrained(tmp_path, shape(**asked), 65)


def test_weights_of_another_vocabulary_say_so(tmp_path: Path) -> None:
    save_file(to_gpt2(model_of(shape(), 65).state_dict(), 2), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"trained with 65 ids, and the tokenizer has 300"):
        read_pretrained(tmp_path, shape(), 300)


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no such file; train\.init_from names"):
        read_pretrained(tmp_path / "none", shape(), 65)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match="not a file of weights"):
        read_pretrained(tmp_path, shape(), 65)
    (tmp_path / "ckpt.pt").write_bytes(b"\x80\x02}q\x00.")
    with pytest.raises(CheckpointError, match="not a file of weights"):
        read_pretrained(tmp_path / "ckpt.pt", shape(), 65)
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="not those of a GPT-2"):
        read_pretrained(tmp_path / "other.safetensors", shape(), 65)
    halves = to_gpt2(model_of(shape(), 65).state_dict(), 2)
    del halves["transformer.h.1.mlp.c_fc.weight"]
    save_file(halves, tmp_path / "half.safetensors")
    with pytest.raises(CheckpointError, match=r"lacks the tensor 'h\.1\.mlp\.c_fc\.weight'"):
        read_pretrained(tmp_path / "half.safetensors", shape(), 65)


@pytest.mark.parametrize(
    ("preset", "parameters", "tokens"),
    [
        ("gpt2", 124_439_808, 2**19),
        ("gpt2-medium", 354_823_168, 2**19),
        ("gpt2-large", 774_030_080, 2**19),
        ("gpt2-xl", 1_557_611_200, 2**19),
    ],
)
def test_gpt2s_presets_have_its_parameters_and_half_a_million_tokens_a_step(
    preset: str, parameters: int, tokens: int
) -> None:
    model, train, _ = resolve(preset, {}, {})
    assert parameter_count(model, 50_257) == parameters
    with torch.device("meta"):
        built = GPT(model, 50_257)
    assert sum(parameter.numel() for parameter in built.parameters()) == parameters
    assert train.batch_size * train.gradient_accumulation * model.block_size == tokens
    # As many machines of eight GPUs as divide the passes of an update.
    assert train.gradient_accumulation % 8 == 0


# --- a training that goes on from them ------------------------------------------------------------


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallTraining]:
    made = SmallTraining(tmp_path_factory.mktemp("exchange") / "training")
    made.make_tokens()
    run = made.run()
    assert run.end() == 0, run.output()
    yield made


@pytest.mark.slow
def test_a_training_goes_on_from_weights_and_says_so(
    training: SmallTraining, tmp_path: Path
) -> None:
    best = json.loads((training.folder / "metrics/train.json").read_bytes())["best_val_loss"]
    other = training.clone(tmp_path / "other")
    other.set(train__init_from=str(training.folder / "data/model"))
    run = other.run()
    assert run.end() == 0, run.output()
    assert "pretrained, so no competition takes it" in run.output()
    curve = (other.folder / "metrics/curves/train.csv").read_text(encoding="utf-8").splitlines()
    header, first = (line.split(",") for line in curve[:2])
    assert float(first[header.index("val_loss")]) == pytest.approx(best, abs=1e-6)
    record = json.loads((other.folder / "data/model/config.json").read_bytes())
    weights = training.hashes()["model.safetensors"]
    assert record["pretrained_sha256"] == weights
    first_record = json.loads((training.folder / "data/model/config.json").read_bytes())
    assert first_record["pretrained_sha256"] == ""


@pytest.mark.slow
def test_the_names_of_gpt2_are_files_of_a_mirror_where_there_is_one(
    training: SmallTraining, tmp_path: Path
) -> None:
    weights = load_file(training.folder / "data/model/model.safetensors")
    (tmp_path / "mirror/gpt2-xl").mkdir(parents=True)
    file = tmp_path / "mirror/gpt2-xl/model.safetensors"
    save_file(to_gpt2(weights, 1), file)
    other = training.clone(tmp_path / "other")
    other.set(train__init_from="gpt2-xl", train__steps=0)
    done = other.plain("train", GPT_MIRROR=str(tmp_path / "mirror"))
    assert done.returncode == 0, done.stdout
    assert "begins from gpt2-xl: pretrained" in done.stdout
    found = load_file(other.folder / "data/model/model.safetensors")
    assert all(torch.equal(found[name], weights[name]) for name in weights)
    record = json.loads((other.folder / "data/model/config.json").read_bytes())
    assert record["pretrained_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
