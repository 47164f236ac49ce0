"""The course: its own solutions pass every check, and each usual mistake is named."""

import ast
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stages.cli import app
from workshop import check
from workshop.checking import WorkshopError

REPOSITORY = Path(__file__).parent.parent
BLOCK = re.compile(r"^```python title=\"scratchpad/(\w+\.py)\"\n(.*?)^```$", re.M | re.S)


def solutions() -> dict[str, str]:
    """The files of the course, put together from the blocks of its pages."""
    files: dict[str, str] = {}
    for page in sorted((REPOSITORY / "docs").glob("[1-4]-*.md")):
        for name, block in BLOCK.findall(page.read_text(encoding="utf-8")):
            files[name] = files.get(name, "") + block + "\n\n"
    return files


SOLUTIONS = solutions()
PARTS = {part.file: number for number, part in check.PARTS.items()}


def hints(folder: Path, name: str, text: str) -> dict[str, str]:
    """What the checks say of a file, by the name of the check."""
    (folder / name).write_text(text, encoding="utf-8")
    return {one.name: one.hint for one in check.check(PARTS[name], folder) if one.hint}


@pytest.mark.parametrize("name", PARTS)
def test_the_blocks_of_a_page_pass_every_check(tmp_path: Path, name: str) -> None:
    assert hints(tmp_path, name, SOLUTIONS[name]) == {}


def signatures(text: str) -> dict[str, str]:
    """Each function and method, with its arguments."""
    found: dict[str, str] = {}
    for node in ast.parse(text).body:
        for member in [node, *(node.body if isinstance(node, ast.ClassDef) else [])]:
            if isinstance(member, ast.FunctionDef):
                owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
                returned = ast.unparse(member.returns) if member.returns else ""
                found[owner + member.name] = f"({ast.unparse(member.args)}) -> {returned}"
    return found


@pytest.mark.parametrize("name", PARTS)
def test_a_page_completes_its_skeleton(name: str) -> None:
    skeleton = (check.SKELETONS / name).read_text(encoding="utf-8")
    asked, given = signatures(skeleton), signatures(SOLUTIONS[name])
    assert {key: given.get(key) for key in asked} == asked


@pytest.mark.parametrize("name", PARTS)
def test_a_skeleton_solves_nothing_and_says_so(tmp_path: Path, name: str) -> None:
    skeleton = (check.SKELETONS / name).read_text(encoding="utf-8")
    found = hints(tmp_path, name, skeleton)
    assert len(found) == len(check.PARTS[PARTS[name]].checks)
    assert all("not written yet" in hint for hint in found.values())


MISTAKES = {
    "no mask": (
        "model.py",
        "        scores_bhtt = scores_bhtt.masked_fill(later_tt, -math.inf)\n",
        "",
        "looks at the future: position 0 changed when token 7 did",
    ),
    "a mask off by one, too open": (
        "model.py",
        ".triu(1)",
        ".triu(2)",
        "position 6 changed when token 7 did: it sees one token ahead",
    ),
    "a mask off by one, too closed": (
        "model.py",
        ".triu(1)",
        ".triu(0)",
        "position 0 is nan: the mask leaves it nothing to look at",
    ),
    "missing scale": ("model.py", " / math.sqrt(k)", "", "the scale is missing"),
    "softmax on the wrong axis": (
        "model.py",
        "scores_bhtt.softmax(dim=-1)",
        "scores_bhtt.softmax(dim=-2)",
        "the softmax is on the wrong axis",
    ),
    "residual missing in attention": (
        "model.py",
        "x_btd = x_btd + self.attention(",
        "x_btd = self.attention(",
        "the residual is missing",
    ),
    "residual missing in the MLP": (
        "model.py",
        "x_btd = x_btd + self.mlp(",
        "x_btd = self.mlp(",
        "the residual is missing",
    ),
    "weights not tied": (
        "model.py",
        "        for name, parameter in self.named_parameters():\n",
        "        self.head = nn.Linear(config.n_embd, vocab_size, bias=False)\n"
        "        for name, parameter in self.named_parameters():\n",
        "the weights are not tied",
    ),
    "the init of PyTorch": (
        "model.py",
        "            elif parameter.dim() == 2:\n",
        "            elif parameter.dim() == 3:\n",
        "ln 65 is 4.17: look at the init",
    ),
    "no positions": (
        "model.py",
        " + self.position_embedding.weight[:t]",
        "",
        "add position_embedding",
    ),
    "targets not shifted": (
        "train.py",
        "ids_n[start + 1 : start + block_size + 1]",
        "ids_n[start : start + block_size]",
        "the targets are not shifted",
    ),
    "no zero_grad": (
        "train.py",
        "        optimizer.zero_grad()\n",
        "",
        "optimizer.zero_grad() in each step",
    ),
    "learning rate not scheduled": (
        "train.py",
        '            group["lr"] = rate\n',
        "            pass\n",
        "the learning rate is not scheduled",
    ),
    "no clipping": (
        "train.py",
        "        nn.utils.clip_grad_norm_(model.parameters(), grad_clip)\n",
        "",
        "above grad_clip",
    ),
    "eval mode forgotten while validating": (
        "train.py",
        "    model.eval()\n",
        "",
        "eval mode is forgotten",
    ),
    "not put back into training mode": (
        "train.py",
        "    model.train()\n    return loss\n",
        "    return loss\n",
        "model.train()",
    ),
    "validation data trained on": (
        "train.py",
        "get_batch(train_n, block_size",
        "get_batch(ids_n, block_size",
        "validation data was trained on",
    ),
    "positions not cropped": (
        "generate.py",
        "ids[-block_size:]",
        "ids",
        "not cropped to the last block_size",
    ),
    "eval mode forgotten while writing": (
        "generate.py",
        "    model.eval()\n",
        "",
        "eval mode is forgotten",
    ),
    "top-k off by one": ("generate.py", "[:top_k]", "[: top_k + 1]", "top_k=1 left 2 ids"),
    "top-p that drops the one that reaches p": (
        "generate.py",
        "- probs_v\n",
        "\n",
        "the one that reaches p is still in",
    ),
    "temperature multiplied": (
        "generate.py",
        "logits_v / temperature",
        "logits_v * temperature",
        "multiplied by the temperature",
    ),
    "unknown characters dropped": (
        "tokenizer.py",
        "return [self.ids[character] for character in text]",
        "return [self.ids[character] for character in text if character in self.ids]",
        "dropped or replaced",
    ),
    "a vocabulary in no order": (
        "tokenizer.py",
        "sorted(set(text))",
        "list(dict.fromkeys(text))",
        "in sorted order",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_usual_mistake_is_named(tmp_path: Path, mistake: str) -> None:
    name, right, wrong, named = MISTAKES[mistake]
    solution = SOLUTIONS[name]
    if mistake == "unknown characters dropped":
        refusal = re.compile(r"        for character in text:\n            if .*?\n.*?\n")
        solution, found = refusal.subn("", solution, count=1)
        assert found == 1
    if mistake == "weights not tied":
        tied = "self.token_embedding.weight)\n"
        assert tied in solution
        solution = solution.replace(tied, "self.head.weight)\n")
    assert solution.count(right) == 1, right
    found = hints(tmp_path, name, solution.replace(right, wrong))
    assert any(named in hint for hint in found.values()), found


def test_a_fault_in_the_learners_code_is_one_line_with_its_place(tmp_path: Path) -> None:
    text = "class CharTokenizer:\n    def __init__(self, text):\n        self.ids = text[0][7]\n"
    found = hints(tmp_path, "tokenizer.py", text)
    assert "IndexError: string index out of range (tokenizer.py, line 3)" in found.values()
    found = hints(tmp_path, "tokenizer.py", "def encode(:\n")
    (hint,) = found.values()
    assert "SyntaxError" in hint and "line 1" in hint


def test_starting_overwrites_nothing(tmp_path: Path) -> None:
    made = check.start(tmp_path / "scratchpad")
    assert [path.name for path in made] == list(PARTS)
    made[1].write_text("mine", encoding="utf-8")
    with pytest.raises(WorkshopError, match="is not overwritten"):
        check.start(tmp_path / "scratchpad")
    assert made[1].read_text(encoding="utf-8") == "mine"


def test_the_command_starts_checks_and_exits_as_it_should(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    missing = runner.invoke(app, ["workshop", "check", "1"])
    assert (missing.exit_code, "gpt workshop start" in missing.output) == (2, True)
    assert runner.invoke(app, ["workshop", "start"]).exit_code == 0
    again = runner.invoke(app, ["workshop", "start"])
    assert (again.exit_code, "is not overwritten" in again.output) == (2, True)
    begun = runner.invoke(app, ["workshop", "check"])
    assert begun.exit_code == 1
    assert "part 2: 0 of" in begun.output
    for name, text in SOLUTIONS.items():
        (tmp_path / "scratchpad" / name).write_text(text, encoding="utf-8")
    done = runner.invoke(app, ["workshop", "check"])
    assert done.exit_code == 0, done.output
    assert "✗" not in done.output
    assert runner.invoke(app, ["workshop", "check", "5"]).exit_code == 2
