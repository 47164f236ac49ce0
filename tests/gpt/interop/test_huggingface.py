"""Exported folders, read by transformers and by lm-evaluation-harness."""

import ast
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY
from small_models import MODERN, QUICK, TEXT, small_config, small_tokenizers, small_trained_model

from gpt.checkpoint import TrainedModel
from gpt.config import OUR_SOURCE
from gpt.errors import CheckpointError
from gpt.evaluation.benchmarks import Question, choice_scores
from gpt.interop.huggingface import modelling_code, with_relative_imports, write_hugging_face
from gpt.tokenizers.byte_level import ByteTokenizer

# A model as a learner writes it: other names, a tied head, and a buffer that is not saved.
LEARNERS_MODEL = """
import torch
from torch import Tensor, nn

from gpt.config import ModelConfig


class GPT(nn.Module):
    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab_size, config.n_embd)
        self.mix = nn.Linear(config.n_embd, config.n_embd)
        self.head = nn.Linear(config.n_embd, vocab_size, bias=False)
        self.head.weight = self.table.weight
        ramp = torch.arange(1, 1 + config.block_size).float()
        self.register_buffer("ramp", ramp, persistent=False)

    def forward(self, ids_bt: Tensor) -> Tensor:
        x_btd = self.mix(self.table(ids_bt)) * self.ramp[: ids_bt.shape[1], None]
        return self.head(x_btd)
"""


@pytest.fixture(scope="module", autouse=True)
def _modules_in_a_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """transformers import the code of a folder from a copy, which is not left at home."""
    transformers = pytest.importorskip("transformers", exc_type=ImportError)
    with pytest.MonkeyPatch.context() as patch:
        modules = str(tmp_path_factory.mktemp("modules"))
        patch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", modules)
        patch.setattr(sys, "path", [*sys.path])
        yield


def read_by_transformers(folder: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **options).eval()


EXPORTS = [
    ("GPT2LMHeadModel", {"bias": True}),
    ("GPT2LMHeadModel", {"bias": False}),
    ("NanoChatForCausalLM", MODERN),
    # Long enough for the CPU's own kernels, and one head.
    ("NanoChatForCausalLM", {**MODERN, "n_head": 1, "n_embd": 24, "block_size": 700}),
    ("ReproGPTForCausalLM", QUICK),
    ("ReproGPTForCausalLM", {**MODERN, "bias": True}),
    ("ReproGPTForCausalLM", {"architecture": "original"}),
    ("ReproGPTForCausalLM", {"ngram_rows": 64}),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what their packages warn of is not ours to fix
@pytest.mark.parametrize(("theirs", "changes"), EXPORTS)
def test_transformers_gives_our_logits(tmp_path: Path, theirs: str, changes: dict) -> None:
    trained = small_trained_model(small_config(**changes), ByteTokenizer(has_bos=True))
    write_hugging_face(trained, tmp_path / "hf")
    model = read_by_transformers(tmp_path / "hf")
    assert type(model).__name__ == theirs
    size = (3, trained.model.config.block_size)
    # Of eight bytes, so that there are lines.
    ids = torch.randint(8, 16, size, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, logits = trained.model(ids), model(ids).logits
    assert float(expected.abs().max()) > 1
    # Layouts of others sum in another order; with its own code it is the same model.
    atol = 1e-5 if theirs == "ReproGPTForCausalLM" else 1e-4
    torch.testing.assert_close(logits, expected, rtol=0, atol=atol)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("changes", [{}, MODERN, QUICK])
def test_transformers_generates_as_our_logits_say(tmp_path: Path, changes: dict) -> None:
    # With its cache where there is one, and past no end of text of its own.
    trained = small_trained_model(small_config(**changes), ByteTokenizer(has_bos=True))
    write_hugging_face(trained, tmp_path / "hf")
    model = read_by_transformers(tmp_path / "hf")
    ids = torch.tensor([[72, 101, 108]])
    generated = model.generate(ids, max_new_tokens=13, do_sample=False, eos_token_id=None)
    for _ in range(13):
        with torch.no_grad():
            ids = torch.cat([ids, trained.model(ids)[:, -1:].argmax(-1)], dim=1)
    assert torch.equal(generated, ids)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_with_its_code_generates_past_block_size_and_refuses_padding(
    tmp_path: Path,
) -> None:
    trained = small_trained_model(small_config(**QUICK), ByteTokenizer(has_bos=True))
    write_hugging_face(trained, tmp_path / "hf")
    model = read_by_transformers(tmp_path / "hf")
    ids = torch.tensor([[72, 101, 108]])
    generated = model.generate(ids, max_new_tokens=20, do_sample=False, eos_token_id=None)
    assert generated.shape == (1, 23)
    with pytest.raises(ValueError, match="padding is not supported"):
        model(ids, attention_mask=torch.tensor([[0, 1, 1]]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_with_its_code_stays_in_float32_and_can_be_saved_again(tmp_path: Path) -> None:
    trained = small_trained_model(small_config(**QUICK), ByteTokenizer(has_bos=True))
    write_hugging_face(trained, tmp_path / "hf")
    read_by_transformers(tmp_path / "hf", dtype=torch.bfloat16).save_pretrained(tmp_path / "again")
    ids = torch.arange(16)[None]
    with torch.no_grad():
        logits = read_by_transformers(tmp_path / "again")(ids).logits
        torch.testing.assert_close(logits, trained.model(ids), rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_model_of_another_source_goes_with_its_file(tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text(LEARNERS_MODEL, encoding="utf-8")
    config = small_config(source=str(source))
    trained = small_trained_model(config, ByteTokenizer(has_bos=True))
    files = write_hugging_face(trained, tmp_path / "hf")
    assert tmp_path / "hf/source.py" in files
    assert tmp_path / "hf/model.py" not in files
    ids = torch.arange(16)[None]
    with torch.no_grad():
        logits = read_by_transformers(tmp_path / "hf")(ids).logits
        torch.testing.assert_close(logits, trained.model(ids), rtol=0, atol=1e-5)


def test_the_code_of_an_export_imports_nothing_of_ours_but_files_beside_it() -> None:
    files = modelling_code(OUR_SOURCE)
    assert {"modeling_repro_gpt.py", "model.py", "config.py"} <= files.keys()
    for name, text in files.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and node.level:
                for module in [node.module] if node.module else [n.name for n in node.names]:
                    assert f"{module}.py" in files, name
            elif isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.partition(".")[0] not in ("gpt", "repro", "stages", "verse"), name


def test_imports_become_relative_to_one_folder() -> None:
    text = (
        "import gpt_neox\nfrom gpt.kv_cache import (\n    A,\n)\nfrom gpt.kernels import cpu\n"
        "from gpt.kernels.cpu import gelu, rms_norm\n'from gpt.config import x'\n"
    )
    rewritten, imports = with_relative_imports(text)
    assert rewritten == (
        "import gpt_neox\nfrom .kv_cache import (\n    A,\n)\n"
        "from . import kernels_cpu as cpu\nfrom .kernels_cpu import gelu, rms_norm\n"
        "'from gpt.config import x'\n"
    )
    assert imports == ["gpt.kv_cache", "gpt.kernels.cpu", "gpt.kernels.cpu"]


def test_a_source_that_cannot_be_exported_is_named(tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text("from gpt import GPT\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"mine\.py: imports gpt, which cannot be exported"):
        modelling_code(str(source))


# --- lm-evaluation-harness ------------------------------------------------------------------------

TASK = """
task: my_task
dataset_path: json
dataset_kwargs: {data_files: {test: my-tasks/questions.jsonl}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{context}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
target_delimiter: ""
metric_list: [{metric: acc}]
"""
# One context is longer than a block, so that its beginning is cut off. None ends in a blank, which
# the harness would make part of the choices.
QUESTIONS = [
    Question("Enter ROMEO", (", with a rose.", " and pale"), 0),
    Question("the envious moon,\tsick and", (" pale", " light", " soft!"), 1),
    Question("But soft!", ("\n", " what"), 0),
]


def lm_eval_command() -> list[str]:
    """The command of docs/scale.md that evaluates a task of one's own."""
    lines = (REPOSITORY / "docs/scale.md").read_text(encoding="utf-8").splitlines()
    (line,) = [line for line in lines if "lm_eval" in line and "--include_path" in line]
    return shlex.split(line, comments=True)


def scores_by_the_harness(trained: TrainedModel, folder: Path) -> list[list[float]]:
    """The log-likelihood of each choice of QUESTIONS, by lm_eval as a user runs it."""
    write_hugging_face(trained, folder / "export/hf")
    (folder / "my-tasks").mkdir()
    (folder / "my-tasks/my_task.yaml").write_text(TASK, encoding="utf-8")
    lines = [
        json.dumps({"context": q.context, "choices": q.choices, "answer": q.answer})
        for q in QUESTIONS
    ]
    (folder / "my-tasks/questions.jsonl").write_text("\n".join(lines), encoding="utf-8")
    command = [*lm_eval_command(), "--log_samples", "--output_path", "results"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home")}
    offline["OMP_NUM_THREADS"] = "1"
    subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=os.environ | offline, check=True
    )
    (file,) = folder.glob("results/**/samples_my_task_*.jsonl")
    samples = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    samples.sort(key=lambda sample: int(sample["doc_id"]))
    return [[float(answer[0]) for answer in sample["filtered_resps"]] for sample in samples]


@pytest.mark.slow
def test_the_harness_gives_choices_the_log_likelihood_that_we_give_them(tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    tokenizer = small_tokenizers()["char"]
    assert set("".join(q.context + "".join(q.choices) for q in QUESTIONS)) <= set(TEXT)
    trained = small_trained_model(small_config(**QUICK, block_size=20), tokenizer)
    for question, scores in zip(QUESTIONS, scores_by_the_harness(trained, tmp_path), strict=True):
        sums, _ = choice_scores(trained, question)
        assert scores == pytest.approx(sums, abs=1e-4)
