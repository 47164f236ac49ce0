"""What `gpt workshop check 1` asks of tokenizer.py."""

from collections import Counter
from itertools import pairwise
from typing import Any

from gpt.tokenizers import bpe_reference as bpe
from workshop.checking import Part, Wrong

PART = Part("tokenizer.py")
TEXT = "Hello, world\n"
ALPHABET = sorted(set(TEXT))
SONG = "low lower lowest, slow slower slowest, blow blower"


@PART.check("the vocabulary is the characters of the text, sorted")
def vocabulary(theirs: Any) -> None:
    tokenizer = theirs.CharTokenizer(TEXT)
    if callable(tokenizer.vocab_size):
        raise Wrong("vocab_size is a method: with @property above it, it is read without brackets")
    if tokenizer.vocab_size != len(ALPHABET):
        raise Wrong(
            f"{TEXT!r} has {len(ALPHABET)} different characters, and your vocabulary "
            f"{tokenizer.vocab_size}: a set has each of them once"
        )
    ids = tokenizer.encode("".join(ALPHABET))
    if len(ids) != len(ALPHABET):
        raise Wrong(f"{len(ALPHABET)} characters became {len(ids)} ids: each of them has one")
    if list(ids) == [ord(character) for character in ALPHABET]:
        raise Wrong("the ids are those of Unicode: an id is the place in the sorted vocabulary")
    if list(ids) == list(range(1, len(ALPHABET) + 1)):
        raise Wrong("the ids begin at 1: they are places in a list, and the first of them is 0")
    if list(ids) != list(range(len(ALPHABET))):
        raise Wrong(
            f"the characters are not sorted: in sorted order they should be 0, 1, 2, ..., and "
            f"yours are {list(ids)[:6]}; only sorted does the same text always give the same ids"
        )


@PART.check("a text comes back from its ids as it was")
def round_trip(theirs: Any) -> None:
    tokenizer = theirs.CharTokenizer(TEXT)
    for text in (TEXT, "", "\n\n", "lll"):
        ids = tokenizer.encode(text)
        try:
            back = tokenizer.decode(ids)
        except (IndexError, KeyError) as error:
            raise Wrong(
                f"decode looks beyond the vocabulary: is it off by one? Ids are 0 to "
                f"{len(ALPHABET) - 1}"
            ) from error
        if back == text:
            continue
        if isinstance(back, list):
            raise Wrong(f"decode gives a list, {back[:3]} ...: join its characters to one text")
        for by in (1, -1):
            if back == "".join(ALPHABET[(i + by) % len(ALPHABET)] for i in ids):
                raise Wrong(
                    f"decode is off by one: {text!r} came back as {back!r}, every character by one "
                    f"place too {'late' if by == 1 else 'early'} in the vocabulary"
                )
        raise Wrong(f"decode has to undo encode: {text!r} came back as {back!r}")


@PART.check("an unknown character is refused by name")
def unknown(theirs: Any) -> None:
    tokenizer = theirs.CharTokenizer(TEXT)
    try:
        ids = tokenizer.encode("Hexo")
    except ValueError as error:
        if "x" not in str(error):
            raise Wrong(f"the error should name the character x; it says {str(error)!r}") from None
        return
    except KeyError:
        raise Wrong(
            "an unknown character ends in a KeyError: raise a ValueError that names it"
        ) from None
    raise Wrong(
        f"an unknown character is {'dropped' if len(ids) < 4 else 'replaced'}: 'Hexo' has an x "
        f"that the text lacks, and became {len(ids)} ids without a word. What is dropped or "
        "replaced is lost for good; raise ValueError"
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
        if found is not None and tuple(found) == expected:
            continue
        counts = Counter(pairwise(ids))
        if found is not None and counts[tuple(found)] == counts[expected]:
            raise Wrong(
                f"of several equally frequent pairs take the smallest: in {ids} it is {expected}, "
                f"not {found}; so the same text always gives the same merges"
            )
        raise Wrong(
            f"the most frequent pair of {ids} is {expected}, not {found}: count all neighbours"
        )
    for ids in ([], [1], [1, 2, 3]):
        if theirs.most_frequent_pair(ids) is not None:
            raise Wrong(
                f"a pair that stands once is taken: in {ids} none stands twice; return None"
            )


def once(ids: list[int], pair: tuple[int, int]) -> list[int]:
    """`ids` with 9 in the place of the first `pair` alone."""
    at = next((i for i in range(len(ids)) if tuple(ids[i : i + 2]) == pair), len(ids))
    return [*ids[:at], 9, *ids[at + 2 :]] if at < len(ids) else ids


@PART.check("a pair is merged from left to right")
def merging(theirs: Any) -> None:
    for ids, pair, expected in (
        ([1, 2, 3, 1, 2], (1, 2), [9, 3, 9]),
        ([5, 5, 5], (5, 5), [9, 5]),
        ([1, 1, 2], (1, 2), [1, 9]),
        ([1], (1, 2), [1]),
    ):
        found = list(theirs.merge(list(ids), pair, 9))
        seen = f"{pair} in {ids} should give {expected}, not {found}"
        if found == ids and expected != ids:
            raise Wrong(
                f"the pair is not found: {seen}; a list is never equal to a tuple, so compare "
                "tuple(ids[i : i + 2]) with the pair"
            )
        if found == once(ids, pair) != expected:
            raise Wrong(f"only the first pair is merged: {seen}")
        if found == expected[:-1]:
            raise Wrong(f"the last id is lost: {seen}")
        if len(found) > len(expected):
            raise Wrong(f"a merged pair is not used up: {seen}; go on behind it")
        if found != expected:
            raise Wrong(f"the pair is not replaced: {seen}")


@PART.check("byte pair encoding learns the reference's merges")
def merges(theirs: Any) -> None:
    expected = bpe.train({SONG.encode(): 1}, 256 + 9)  # no further pair stands twice
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
    many = len(theirs.train_bpe(SONG, 256 + 3))
    if many != 3:
        raise Wrong(
            "the number of merges is wrong: a vocabulary of 259 ids is 256 bytes and 3 merges, and "
            f"yours learned {many}"
        )
    accented = "été, été"
    expected = bpe.train({accented.encode(): 1}, 256 + 3)  # no further pair stands twice
    if [tuple(pair) for pair in theirs.train_bpe(accented, 300)] != expected:
        raise Wrong(
            f"train_bpe does not begin with bytes: {accented!r} is {len(accented)} characters and "
            f"{len(accented.encode())} bytes (text.encode())"
        )


@PART.check("byte pairs give every text back, in fewer ids")
def bytes_round_trip(theirs: Any) -> None:
    learned = theirs.train_bpe(SONG, 270)
    for text in (SONG, "été 😀", "", "lowlow"):
        ids = list(theirs.encode_bpe(text, learned))
        _encoded(theirs, text, learned, ids)
        try:
            back = theirs.decode_bpe(ids, learned)
        except UnicodeDecodeError as error:
            raise Wrong(CUT) from error
        if back == text:
            continue
        if not text.isascii():
            raise Wrong(f"{CUT}; {text!r} came back as {back!r}")
        if theirs.decode_bpe([98], []) in ("a", "c"):
            raise Wrong(f"decode_bpe is off by one: {text!r} came back as {back!r}; byte 98 is b")
        raise Wrong(
            f"decode_bpe has to undo encode_bpe: {text!r} came back as {back!r}; id 256 is the "
            "first pair of the merges, its first half before its second"
        )


CUT = (
    "ids are decoded one by one: join the bytes of all of them first and decode them as UTF-8 "
    "together, since a character may be cut between two ids"
)


def _encoded(theirs: Any, text: str, learned: list[Any], ids: list[int]) -> None:
    """Raises Wrong where `ids` are not those of `text`: its bytes, merged in the merges' order."""
    expected = list(text.encode())
    for number, pair in enumerate(learned):
        expected = list(theirs.merge(expected, pair, 256 + number))
    if ids == expected:
        return
    if ids == list(text.encode()):
        raise Wrong("the merges were not used: there are as many ids as bytes")
    late = list(text.encode())
    for number, pair in enumerate(learned):
        late = list(theirs.merge(late, pair, 257 + number))
    if ids == late:
        raise Wrong("encode_bpe is off by one: the first new id is 256, since bytes are 0 to 255")
    if not text.isascii():
        raise Wrong(
            f"encode_bpe does not begin with bytes: {text!r} is {len(text)} characters and "
            f"{len(text.encode())} bytes (text.encode())"
        )
    raise Wrong(
        f"the merges are made in the wrong order: {text[:20]!r}... should begin with the ids "
        f"{expected[:4]}, and yours with {ids[:4]}; the pair that was learned first goes first"
    )
