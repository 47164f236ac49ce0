"""No row of a table loses a part of its text: it is read whole, or refused by its line."""

import csv
import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt.corpus.tables import TABLES
from gpt.errors import DataError

VERSES = ["To be, or not to be", 'the "question": whether', "'tis nobler;\tin the mind", " "]


def read(path: Path, column: str = "text") -> list[str]:
    return [text for _, text in TABLES[path.suffix](path, column, "utf-8")]


def table(folder: Path, content: str, name: str = "t.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode())
    return path


@pytest.mark.parametrize(
    ("written", "fields"), [("7,To be, or not to be", 3), ("7", 1), ("7,a,b,c", 4)]
)
def test_a_csv_row_of_more_or_fewer_fields_than_the_header_is_refused(
    tmp_path: Path, written: str, fields: int
) -> None:
    path = table(tmp_path, f'id,text\n1,"two\nlines"\n\n{written}\n')
    with pytest.raises(
        DataError, match=rf"line 5 has {fields} fields, the header has 2 \(id, text\); put quotes"
    ):
        read(path)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separators_and_line_ends_of_other_programs_are_read(
    tmp_path: Path, separator: str, end: str
) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=end)
    writer.writerows([["id", "text"], *([7, verse] for verse in VERSES)])
    assert read(table(tmp_path, file.getvalue())) == VERSES


@given(
    rows=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    separator=st.sampled_from(",;\t"),
    size=st.integers(1, 20),
)
def test_any_text_comes_back_from_any_csv_however_it_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str], end: str, separator: str, size: int
) -> None:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=separator, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([["id", "text"], *([7, text] for text in rows)])
    path = table(tmp_path_factory.getbasetemp(), file.getvalue(), "any.csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gpt.corpus.text_files.READ_BYTES", size)
        assert read(path) == rows


def test_blanks_around_the_names_of_a_header_do_not_count(tmp_path: Path) -> None:
    path = table(tmp_path, 'id, text , "more"\n0, "Brown rain, green tree.", x\n')
    assert read(path) == ["Brown rain, green tree."]
    with pytest.raises(DataError, match=r"no column 'story' \(it has: 'id', 'text', 'more'\)"):
        read(path, "story")


def test_a_quoted_name_with_a_blank_is_no_habit_of_the_file(tmp_path: Path) -> None:
    path = table(tmp_path, '"Title, year",text\n"Lear, 1606",  indented\n')
    assert read(path) == ["  indented"]


def test_a_tsv_of_one_column_may_have_commas(tmp_path: Path) -> None:
    assert read(table(tmp_path, "text\nTo be, or not to be\n", "t.tsv")) == ["To be, or not to be"]


def test_a_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the column 'text' occurs twice; rename one"):
        read(table(tmp_path, "text,text\na,b\n"))


@pytest.mark.parametrize("name", ["a.json", "a.ndjson"])
def test_json_by_its_other_names_is_rows(tmp_path: Path, name: str) -> None:
    rows = [{"id": 7, "text": verse} for verse in VERSES]
    lines = "".join(json.dumps(line) + "\n" for line in rows)
    assert read(table(tmp_path, lines, name)) == VERSES
    if name == "a.json":
        assert read(table(tmp_path, "\n " + json.dumps(rows, indent=1), name)) == VERSES


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ('[{"text": "a"}, {"text": "b"},]', "a.json: line 1: not JSON; write an array of objects"),
        ('[{"text": "a"}, "b"]', r"a.json: row 2 is not a JSON object"),
        ('[{"text": "a"}, {"story": "b"}]', r"row 2 has no 'text' \(it has: 'story'\); fix or"),
        ("[" * 100_000, "a.json: not JSON"),
        ('{\n"text": "a"}', "a.json: line 1 is not JSON; put one object on each line"),
    ],
)
def test_json_that_is_no_table_is_refused_by_its_place(
    tmp_path: Path, content: str, line: str
) -> None:
    with pytest.raises(DataError, match=line):
        read(table(tmp_path, content, "a.json"))


def test_a_key_missing_in_one_row_names_that_row(tmp_path: Path) -> None:
    lines = '{"text": "a"}\n' * 41 + '{"id": 41, "txt": "b"}\n'
    with pytest.raises(DataError, match=r"row 42 has no 'text' \(it has: 'id', 'txt'\)"):
        read(table(tmp_path, lines, "a.jsonl"))
