"""params.yaml: how it is read, what is refused and how, and that file and schema agree.

The texts are the repository's own params.yaml with a key or two changed.
"""

import re
from pathlib import Path
from typing import Any

import planted
import pytest
import yaml
from pydantic import BaseModel

from gpt.errors import ParamsError, TokenizerError
from gpt.presets import PRESETS
from gpt.tokenizers.char import CharTokenizer
from stages.params import Params, load, parse

FILE = Path(__file__).resolve().parents[2] / "params.yaml"
TEXT = FILE.read_text(encoding="utf-8")


def test_a_prompt_file_may_have_the_line_breaks_of_windows(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes(b"Enter ROMEO\r\nand JULIET\r\n")
    text = edited(sample__prompt_file=str(tmp_path / "prompt.txt"), sample__prompt="''")
    assert parse(text).sample.read_prompt() == "Enter ROMEO\nand JULIET"


def section_of(name: str) -> str:
    """The text of a section of params.yaml, its head included."""
    match = re.search(rf"^{name}:.*\n(?:  .*\n)*", TEXT, flags=re.MULTILINE)
    assert match, f"params.yaml has the section {name}"
    return match.group(0)


def edited(**values: str) -> str:
    """The text of params.yaml with the values of some keys replaced; `__` stands for a dot."""
    text = TEXT
    for name, value in values.items():
        section, _, own = name.partition("__")
        body = re.compile(rf"(^{section}:.*\n(?:  .*\n)*?  {own}:)[^#\n]*", re.MULTILINE)
        line = re.compile(rf"(^{section}:)[^#\n]*", re.MULTILINE)
        text, count = (body if own else line).subn(rf"\g<1> {value} ", text, count=1)
        assert count == 1, f"params.yaml has the key {name}"
    return text


def fault(text: str) -> str:
    """The one line with which `text` is refused."""
    with pytest.raises(ParamsError) as refused:
        parse(text)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def schema_keys(model: type[BaseModel] = Params, before: str = "") -> set[str]:
    keys: set[str] = set()
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys |= schema_keys(annotation, f"{before}{name}.")
        else:
            keys.add(before + name)
    return keys


def file_keys() -> set[str]:
    loaded: dict[str, Any] = yaml.safe_load(TEXT)
    keys: set[str] = set()
    for name, value in loaded.items():
        keys |= {f"{name}.{key}" for key in value} if isinstance(value, dict) else {name}
    return keys


# --- the file and the schema ----------------------------------------------------------------------


def test_the_file_holds_the_keys_of_the_schema_and_no_others() -> None:
    assert file_keys() == schema_keys()


def test_every_key_of_the_file_carries_a_comment() -> None:
    of_keys = [line for line in TEXT.splitlines() if re.match(r"\s+\w+:|\w+:\s*[^\s#]", line)]
    assert len(of_keys) == len(schema_keys())
    assert [line for line in of_keys if not re.search(r"  # \S", line)] == []


def test_at_most_sixty_seven_keys_decide_a_result() -> None:
    assert len([key for key in schema_keys() if not key.startswith("runtime.")]) <= 67


def test_the_preset_comment_names_every_preset() -> None:
    section = TEXT[TEXT.index("\npreset:") : TEXT.index("\nmodel:")]
    names = " ".join(line.partition("#")[2] for line in section.splitlines())
    assert re.findall(r"[\w-]+", names) == list(PRESETS)


# --- YAML 1.2 -------------------------------------------------------------------------------------


@pytest.mark.parametrize("written", ["3e-5", "3e-05", "3E-5", "0.00003", "3.e-5", ".00003"])
def test_a_number_in_any_notation_is_a_float(written: str) -> None:
    _, train, _ = parse(edited(train__learning_rate=written)).resolved()
    assert train.learning_rate == 3e-5


def test_no_is_a_string() -> None:
    assert parse(edited(sample__prompt="no")).sample.prompt == "no"


@pytest.mark.parametrize("written", ["no", "yes", "on", "off", "0", "'true'"])
def test_what_is_not_true_or_false_is_refused_for_a_bool(written: str) -> None:
    assert "runtime.tracking" in fault(edited(runtime__tracking=written))


def test_a_leading_zero_does_not_mean_octal() -> None:
    assert parse(edited(train__steps="010")).resolved()[1].steps == 10


def test_a_colon_does_not_mean_base_sixty() -> None:
    assert parse(edited(sample__prompt="1:30")).sample.prompt == "1:30"


def test_a_date_is_a_string() -> None:
    assert parse(edited(sample__prompt="2024-01-31")).sample.prompt == "2024-01-31"


@pytest.mark.fault(21, planted=planted.DUPLICATE_KEY_TAKEN)
def test_a_duplicate_key_is_refused_with_its_line() -> None:
    text = TEXT + "seed: 1\n"
    assert f"params.yaml:{len(text.splitlines())}: seed stands here" in fault(text)


@pytest.mark.fault(21, planted=planted.DUPLICATE_KEY_TAKEN)
def test_a_duplicate_key_within_a_section_is_refused_with_its_line() -> None:
    text = TEXT.replace("tokenizer:\n", "tokenizer:\n  kind: byte\n")
    number = next(n for n, line in enumerate(text.splitlines(), 1) if "# char | byte" in line)
    assert f"params.yaml:{number}: kind stands here" in fault(text)


@pytest.mark.parametrize("broken", ["seed: [1\n", "seed: 1\n\tpreset: tiny\n", "a: b: c\n"])
def test_broken_yaml_is_refused_with_a_line(broken: str) -> None:
    assert re.match(r"params\.yaml:\d+: ", fault(broken))


@pytest.mark.fault(21, planted=planted.TAGS_RUN)
@pytest.mark.fault(24)
def test_yaml_tags_run_nothing(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    fault(edited(sample__prompt=f"!!python/object/apply:os.system ['touch {mark}']"))
    assert not mark.exists()


@pytest.mark.parametrize(
    "written", ["!!int many", "!!float much", "!!bool maybe", "!!timestamp soon", "!thing x"]
)
def test_a_yaml_tag_is_refused_in_one_line(written: str) -> None:
    fault(edited(sample__prompt=written))


@pytest.mark.parametrize("written", ["{{name}}", "{[a]: b}"])
def test_braces_that_mean_a_mapping_with_an_odd_key_are_refused_in_one_line(written: str) -> None:
    fault(edited(sample__prompt=written))


def test_a_number_of_five_thousand_digits_is_refused_in_one_line() -> None:
    assert len(fault(edited(train__steps="9" * 5000))) < 1000


@pytest.mark.parametrize("text", ["", "# nothing\n", "just words\n", "- a\n- b\n", "1: 2\n"])
def test_a_file_without_sections_is_refused(text: str) -> None:
    assert fault(text).startswith("params.yaml:")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "- " * 50_000])
def test_yaml_that_is_nested_without_end_is_refused(text: str) -> None:
    assert "nested too deeply" in fault(text)


def test_a_byte_order_mark_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(TEXT, encoding="utf-8-sig")
    assert load(str(tmp_path / "p.yaml")) == parse(TEXT)


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"none\.yaml: not found"):
        load(str(tmp_path / "none.yaml"))


def test_a_file_that_is_not_utf8_is_refused_with_the_byte(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_bytes(b"seed: 1 # caf\xe9\n")
    with pytest.raises(ParamsError, match=r"p\.yaml: byte 13 is not UTF-8"):
        load(str(tmp_path / "p.yaml"))


# --- keys and values ------------------------------------------------------------------------------


@pytest.mark.fault(21, planted=planted.UNKNOWN_KEY_TAKEN)
@pytest.mark.parametrize(
    ("section", "typo", "meant"),
    [
        ("model", "n_layers", "model.n_layer"),
        ("model", "n_heads", "model.n_head"),
        ("train", "learnin_rate", "train.learning_rate"),
        ("sample", "temprature", "sample.temperature"),
        ("model", "batch_size", "train.batch_size"),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(
    section: str, typo: str, meant: str
) -> None:
    text = TEXT.replace(f"{section}:\n", f"{section}:\n  {typo}: 1\n")
    assert fault(text) == f"params.yaml: {section}.{typo} is not a key; did you mean {meant}?"


def test_a_misspelt_key_is_named_and_not_the_one_it_leaves_missing() -> None:
    assert "model.n_layr is not a key" in fault(re.sub("  n_layer:", "  n_layr:", TEXT))


def test_a_key_at_the_top_that_belongs_to_a_section_is_sent_there() -> None:
    assert "did you mean model.n_layer?" in fault(TEXT + "n_layer: 4\n")


@pytest.mark.fault(21)
@pytest.mark.parametrize("key", ["model.n_layer", "data.seed", "runtime.tracking"])
def test_a_missing_key_is_named(key: str) -> None:
    section, own = key.split(".")
    body = section_of(section)
    without = re.sub(rf"  {own}:.*\n", "", body, count=1)
    assert f"params.yaml: {key} is missing" in fault(TEXT.replace(body, without))


@pytest.mark.fault(21)
@pytest.mark.parametrize("key", ["data__max_bytes", "sample__top_k", "runtime__tracking", "seed"])
def test_a_blank_off_value_is_refused(key: str) -> None:
    assert f"{key.replace('__', '.')} must not be blank" in fault(edited(**{key: ""}))


def test_a_blank_key_of_model_or_train_means_the_preset() -> None:
    model, train, overridden = parse(edited(preset="small", model__n_layer="")).resolved()
    assert (model.n_layer, train.steps, overridden) == (4, 5000, {})


@pytest.mark.parametrize("section", ["model", "train"])
def test_a_preset_given_as_a_section_is_refused_with_the_right_spelling(section: str) -> None:
    line = fault(TEXT.replace(section_of(section), f"{section}: small\n"))
    assert f"{section} is a section" in line
    assert "-S preset=small" in line


@pytest.mark.fault(21, planted=planted.NOT_FINITE_TAKEN)
@pytest.mark.parametrize("written", [".nan", ".inf", "-.inf", "1e999", "-0.1", "-1"])
@pytest.mark.parametrize("key", ["train__learning_rate", "sample__temperature"])
def test_a_number_that_is_not_finite_or_negative_is_refused(key: str, written: str) -> None:
    assert key.split("__")[1] in fault(edited(**{key: written}))


@pytest.mark.fault(21, planted=planted.COERCED)
@pytest.mark.parametrize(
    ("key", "written"),
    [
        ("train__learning_rate", "'1e-3'"),
        ("train__learning_rate", "fast"),
        ("train__steps", "1.5"),
        ("train__steps", "1e3"),
        ("train__steps", "-1"),
        ("train__batch_size", "0"),
        ("train__device", "gpu"),
        ("train__keep", "all"),
        ("model__n_layer", "0"),
        ("model__dropout", "1.0"),
        ("model__bias", "1"),
        ("sample__top_p", "0"),
        ("sample__stop", "5"),
        ("data__path", "''"),
        ("data__sha256", "abc"),
        ("data__val_fraction", "0.0"),
        ("tokenizer__kind", "letters"),
        ("tokenizer__vocab_size", "256"),
        ("tokenizer__pattern", "gpt3"),
        ("seed", str(2**63)),
    ],
)
def test_a_value_of_the_wrong_type_or_range_is_refused_by_its_key(key: str, written: str) -> None:
    assert re.match(rf"params\.yaml: {key.replace('__', '.')}: ", fault(edited(**{key: written})))


@pytest.mark.parametrize("written", ["0.5", "0.9"])
def test_fractions_that_leave_nothing_to_train_on_are_refused(written: str) -> None:
    line = fault(edited(data__val_fraction="0.5", data__test_fraction=written))
    assert "leave nothing to train on" in line


@pytest.mark.fault(21, planted=planted.HEADS_UNCHECKED)
def test_a_width_that_the_heads_do_not_divide_is_refused_with_one_that_they_do() -> None:
    line = fault(edited(model__n_embd="130", model__n_head="4"))
    assert "model.n_embd = 130 is not divisible by twice model.n_head = 4" in line
    near = re.search(r"use model\.n_embd=(\d+)", line)
    assert near and int(near.group(1)) % 4 == 0


# --- presets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_resolves_to_its_own_numbers(preset: str) -> None:
    model, train, overridden = parse(edited(preset=preset)).resolved()
    expected = PRESETS[preset]
    assert {key: getattr(model, key) for key in expected["model"]} == expected["model"]
    assert {key: getattr(train, key) for key in expected["train"]} == expected["train"]
    assert overridden == {}


def test_an_unknown_preset_is_refused_with_the_known_ones() -> None:
    line = fault(edited(preset="huge"))
    assert "preset = 'huge' is unknown" in line
    assert all(preset in line for preset in PRESETS)


def test_overrides_win_over_the_preset_and_are_listed() -> None:
    text = edited(preset="tiny", model__n_layer="3", train__steps="7", model__n_head="2")
    model, train, overridden = parse(text).resolved()
    assert (model.n_layer, train.steps, model.n_embd) == (3, 7, 128)
    assert overridden == {"n_layer": 3, "steps": 7}


def test_an_off_value_overrides_a_preset() -> None:
    model, _, overridden = parse(edited(preset="nanogpt", model__dropout="0.0")).resolved()
    assert (model.dropout, overridden) == (0.0, {"dropout": 0.0})


def test_flat_params_are_resolved_and_without_the_runtime() -> None:
    flat = parse(edited(preset="small")).flat()
    assert flat["model.n_layer"] == 4
    assert set(flat) == {key for key in schema_keys() if not key.startswith("runtime.")}


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_a_prompt_has_no_byte_order_mark_and_loses_one_line_break_at_its_end(
    tmp_path: Path, end: str, mark: str
) -> None:
    file = tmp_path / "prompt.txt"
    file.write_bytes(f"{mark}ROMEO:\n{end}".encode())
    sample = parse(TEXT).sample
    in_file = sample.model_copy(update={"prompt_file": str(file)})
    as_value = sample.model_copy(update={"prompt": f"{mark}ROMEO:\n{end}"})
    expected = "ROMEO:\n" if end else "ROMEO:"
    assert in_file.read_prompt() == as_value.read_prompt() == expected


def test_a_prompt_that_is_a_line_break_stays_one() -> None:
    sample = parse(TEXT).sample.model_copy(update={"prompt": "\n"})
    assert sample.read_prompt() == "\n"


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("prompt", "'né'", r"sample.prompt = 'né': character 1 'é' \(U\+00E9\) is not among"),
        (
            "stop",
            r"'\\n'",
            r"sample.stop = '\\\\n': character 0 .*; a line break is \"\\n\" in double",
        ),
    ],
)
def test_a_prompt_or_stop_string_without_ids_is_refused(key: str, value: str, line: str) -> None:
    params = parse(edited(**{f"sample__{key}": value}))
    with pytest.raises(TokenizerError, match=line):
        params.check_prompt(CharTokenizer("\nROMEO:n", has_bos=False).encode)


def test_a_training_needs_no_prompt_file(tmp_path: Path) -> None:
    encode = CharTokenizer("abc", has_bos=False).encode
    file = tmp_path / "prompt.txt"
    params = parse(edited(sample__prompt_file=str(file)))
    params.check_prompt(encode)
    file.write_text("d", encoding="utf-8")
    with pytest.raises(TokenizerError, match=r"sample.prompt = 'd'"):
        params.check_prompt(encode)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"data.encoding = 'utf-9' is not known; use utf-8"):
        parse(edited(data__encoding="utf-9"))


@pytest.mark.parametrize("name", ["data/model", "./data/model/", "data/model/model.safetensors"])
def test_weights_that_dvc_removes_before_the_training_are_refused(name: str) -> None:
    with pytest.raises(ParamsError, match=r"train.init_from = .*cp -r data/model scratchpad/"):
        parse(edited(train__init_from=name))
    assert parse(edited(train__init_from="data/models")).resolved()[1].init_from == "data/models"
