"""What `gpt workshop check 1` asks of tokenizer.py."""

from typing import Any

from gpt import bpe
from workshop.checking import Part, Wrong

PART = Part("tokenizer.py")
TEXT = "hello, world\n"
ALPHABET = sorted(set(TEXT))
SONG = "low lower lowest, slow slower slowest, blow blower"


@PART.check("the vocabulary is the characters of the text, sorted")
def vocabulary(theirs: Any) -> None:
    tokenizer = theirs.CharTokenizer(TEXT)
    if tokenizer.vocab_size != len(ALPHABET):
        raise Wrong(
            f"{TEXT!r} has {len(ALPHABET)} different characters, and your vocabulary "
            f"{tokenizer.vocab_size}: a set has each of them once"
        )
    ids = tokenizer.encode("".join(ALPHABET))
    if list(ids) != list(range(len(ALPHABET))):
        raise Wrong(
            f"in sorted order the characters should be 0, 1, 2, ...; yours are {list(ids)[:6]}: "
            "sort them, so that the same text always gives the same ids"
        )


@PART.check("a text comes back from its ids as it was")
def round_trip(theirs: Any) -> None:
    tokenizer = theirs.CharTokenizer(TEXT)
    for text in (TEXT, "", "\n\n", "lll"):
        back = tokenizer.decode(tokenizer.encode(text))
        if back != text:
            raise Wrong(f"{text!r} came back as {back!r}: decode has to undo encode")


@PART.check("an unknown character is refused by name")
def unknown(theirs: Any) -> None:
    tokenizer = theirs.CharTokenizer(TEXT)
    try:
        ids = tokenizer.encode("hexo")
    except ValueError as error:
        if "x" not in str(error):
            raise Wrong(f"the error should name the character x; it says {str(error)!r}") from None
        return
    except KeyError:
        raise Wrong(
            "an unknown character ends in a KeyError: raise a ValueError that names it"
        ) from None
    raise Wrong(
        f"'hexo' has an x that the text lacks, and became {len(ids)} ids without a word: a "
        "character "
        "that is dropped or replaced is lost for good; raise ValueError"
    )


@PART.check("the most frequent pair is found")
def pairs(theirs: Any) -> None:
    for ids, expected in (
        ([1, 2, 3, 1, 2], (1, 2)),
        ([5, 5, 5], (5, 5)),
        ([2, 1, 2, 1], (2, 1)),
        ([3, 4, 9, 1, 2, 9, 1, 2, 8, 3, 4], (1, 2)),
    ):
        found = theirs.most_frequent_pair(ids)
        if found is None or tuple(found) != expected:
            raise Wrong(
                f"in {ids} it should be {expected}, not {found}: count all neighbours; of several "
                "take the smallest, so that the same text gives the same merges"
            )
    for ids in ([], [1], [1, 2, 3]):
        if theirs.most_frequent_pair(ids) is not None:
            raise Wrong(f"in {ids} no pair stands twice: return None")


@PART.check("a pair is merged from left to right")
def merging(theirs: Any) -> None:
    for ids, pair, expected in (
        ([1, 2, 3, 1, 2], (1, 2), [9, 3, 9]),
        ([5, 5, 5], (5, 5), [9, 5]),
        ([1, 1, 2], (1, 2), [1, 9]),
        ([1], (1, 2), [1]),
    ):
        found = list(theirs.merge(list(ids), pair, 9))
        if found != expected:
            raise Wrong(
                f"{pair} in {ids} should give {expected}, not {found}: after a pair go on behind "
                "it, "
                "and do not forget the last id"
            )


@PART.check("byte pair encoding learns the reference's merges")
def merges(theirs: Any) -> None:
    expected = bpe.train({SONG.encode(): 1}, 256 + 12, min_frequency=2)
    found = [tuple(pair) for pair in theirs.train_bpe(SONG, 256 + len(expected))]
    if found != expected:
        at = next(
            (n for n, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
            min(len(found), len(expected)),
        )
        raise Wrong(
            f"merge {at} of {SONG[:20]!r}... should be {expected[at : at + 1]}, and is "
            f"{found[at : at + 1]}: the new id is 256 + its number, and counting starts again "
            "after each merge"
        )
    if len(theirs.train_bpe("abc", 300)):
        raise Wrong("in 'abc' no pair stands twice, so there is nothing to merge")


@PART.check("byte pairs give every text back, in fewer ids")
def bytes_round_trip(theirs: Any) -> None:
    learned = theirs.train_bpe(SONG, 270)
    for text in (SONG, "été 😀", "", "lowlow"):
        ids = theirs.encode_bpe(text, learned)
        back = theirs.decode_bpe(ids, learned)
        if back != text:
            raise Wrong(
                f"{text!r} came back as {back!r}: join the bytes of all ids first and decode them "
                "as UTF-8 together, since a character may be cut between two ids"
            )
    if len(theirs.encode_bpe(SONG, learned)) >= len(SONG):
        raise Wrong("the merges were not used: there are as many ids as bytes")
