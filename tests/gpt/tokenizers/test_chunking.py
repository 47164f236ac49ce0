"""Long texts: the chunks have the pre-tokens, and so the ids, of the whole."""

import regex
from every_tokenizer import TRICKY
from hypothesis import example, given
from hypothesis import strategies as st

from gpt.tokenizers.chunking import CHUNK_CHARACTERS, PATTERNS, rechunk


@given(
    text=TRICKY | st.text(alphabet="a! \n"),
    cuts=st.lists(st.integers(0, 30)),
    pattern=st.sampled_from(sorted(PATTERNS)),
)
@example(text="a! \n!\n\na 'sb\r\n  ", cuts=[1] * 30, pattern="gpt4")
def test_the_chunks_have_the_pre_tokens_of_the_document(
    text: str, cuts: list[int], pattern: str
) -> None:
    chunks, rest = [], text
    for cut in cuts:
        chunks.append(("doc", rest[:cut]))
        rest = rest[cut:]
    moved = list(rechunk([("before", "x "), *chunks, ("doc", rest), ("after", " y")]))
    assert (moved[0], moved[-1]) == (("before", "x "), ("after", " y"))
    split = regex.compile(PATTERNS[pattern]).findall
    assert [pre_token for _, chunk in moved[1:-1] for pre_token in split(chunk)] == split(text)


def test_chunks_of_a_document_fit_into_memory() -> None:
    size = CHUNK_CHARACTERS
    chunks = [("doc", "abc " * (size // 4))] * 20 + [("doc", " " * size)] * 20
    sizes = [len(text) for _, text in rechunk(chunks)]
    assert sum(sizes) == 40 * size
    assert max(sizes) <= 3 * size
    assert len(sizes) > 12
