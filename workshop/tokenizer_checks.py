"""The checks of `gpt workshop check 1`: tokenizer.py."""

from collections import Counter
from itertools import pairwise, zip_longest
from typing import Any

from gpt.tokenizers import bpe_reference as bpe
from workshop.checking import Checklist, Wrong, hint_on

CHECKS = Checklist()
TEXT = "Hello, world\n"
ALPHABET = sorted(set(TEXT))
SONG = "low lower lowest, slow slower slowest, blow blower"


@CHECKS.check("the vocabulary is the characters of the text, sorted")
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
        raise Wrong("the ids are those of Unicode: an id is the index in the sorted vocabulary")
    if list(ids) == list(range(1, len(ALPHABET) + 1)):
        raise Wrong("the ids begin at 1: they are indices of a list, and the first is 0")
    if list(ids) != list(range(len(ALPHABET))):
        raise Wrong(
            f"the characters are not sorted: in sorted order they should be 0, 1, 2, ..., and "
            f"yours are {list(ids)[:6]}; only sorted does the same text always give the same ids"
        )


@CHECKS.check("decoding its ids gives the text again")
def round_trip(theirs: Any) -> None:
    tokenizer = theirs.CharTokenizer(TEXT)
    for text in (TEXT, "", "\n\n", "lll"):
        ids = tokenizer.encode(text)
        beyond = "decode indexes beyond the vocabulary: is it off by one? Ids are 0 to "
        with hint_on(f"{beyond}{len(ALPHABET) - 1}", IndexError, KeyError):
            decoded = tokenizer.decode(ids)
        if decoded == text:
            continue
        if isinstance(decoded, list):
            raise Wrong(f"decode returns a list, {decoded[:3]} ...: join its characters to a text")
        for shift in (1, -1):
            if decoded == "".join(ALPHABET[(i + shift) % len(ALPHABET)] for i in ids):
                raise Wrong(
                    f"decode is off by one: {text!r} was decoded to {decoded!r}, every character "
                    f"one too {'late' if shift == 1 else 'early'} in the vocabulary"
                )
        raise Wrong(f"decode has to undo encode: {text!r} was decoded to {decoded!r}")


@CHECKS.check("an unknown character is refused by name")
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
        f"that the text lacks, and became {len(ids)} ids without an error. What is dropped or "
        "replaced is lost for good; raise ValueError"
    )


@CHECKS.check("the most frequent pair is found")
def pairs(theirs: Any) -> None:
    for ids, expected in (
        ([1, 2, 3, 1, 2], (1, 2)),
        ([5, 5, 5], (5, 5)),
        ([2, 1, 2, 1], (2, 1)),
        ([3, 4, 9, 1, 2, 9, 1, 2, 8, 3, 4], (1, 2)),
    ):
        pair = theirs.most_frequent_pair(ids)
        if pair is not None and tuple(pair) == expected:
            continue
        counts = Counter(pairwise(ids))
        if pair is not None and counts[tuple(pair)] == counts[expected]:
            raise Wrong(
                f"of several equally frequent pairs take the smallest: in {ids} it is {expected}, "
                f"not {pair}; so the same text always gives the same merges"
            )
        raise Wrong(
            f"the most frequent pair of {ids} is {expected}, not {pair}: count all neighbours"
        )
    for ids in ([], [1], [1, 2, 3]):
        if theirs.most_frequent_pair(ids) is not None:
            raise Wrong(
                f"a pair that occurs once is taken: in {ids} none occurs twice; return None"
            )


def merge_first(ids: list[int], pair: tuple[int, int]) -> list[int]:
    """`ids` with 9 instead of the first `pair` alone."""
    i = next((i for i in range(len(ids)) if tuple(ids[i : i + 2]) == pair), len(ids))
    return [*ids[:i], 9, *ids[i + 2 :]] if i < len(ids) else ids


@CHECKS.check("a pair is merged from left to right")
def merging(theirs: Any) -> None:
    for ids, pair, expected in (
        ([1, 2, 3, 1, 2], (1, 2), [9, 3, 9]),
        ([5, 5, 5], (5, 5), [9, 5]),
        ([1, 1, 2], (1, 2), [1, 9]),
        ([1], (1, 2), [1]),
    ):
        merged = list(theirs.merge(list(ids), pair, 9))
        observed = f"{pair} in {ids} should give {expected}, not {merged}"
        if merged == ids and expected != ids:
            raise Wrong(
                f"the pair is not found: {observed}; a list never equals a tuple, so compare "
                "tuple(ids[i : i + 2]) with the pair"
            )
        if merged == merge_first(ids, pair) != expected:
            raise Wrong(f"only the first pair is merged: {observed}")
        if merged == expected[:-1]:
            raise Wrong(f"the last id is lost: {observed}")
        if len(merged) > len(expected):
            raise Wrong(f"a merged pair is not used up: {observed}; continue behind it")
        if merged != expected:
            raise Wrong(f"the pair is not replaced: {observed}")


@CHECKS.check("byte pair encoding learns the reference's merges")
def merges(theirs: Any) -> None:
    expected = bpe.train({SONG.encode(): 1}, 256 + 9)  # no other pair occurs twice
    learned = [tuple(pair) for pair in theirs.train_bpe(SONG, 256 + len(expected))]
    if learned != expected:
        i = next(i for i, (a, b) in enumerate(zip_longest(learned, expected)) if a != b)
        raise Wrong(
            f"merge {i} of {SONG[:20]!r}... should be {expected[i : i + 1]}, and is "
            f"{learned[i : i + 1]}: the new id is 256 + its number, and counting starts again "
            "after each merge"
        )
    if len(theirs.train_bpe("abc", 300)):
        raise Wrong("in 'abc' no pair occurs twice, so there is nothing to merge")
    num_merges = len(theirs.train_bpe(SONG, 256 + 3))
    if num_merges != 3:
        raise Wrong(
            "the number of merges is wrong: a vocabulary of 259 ids is 256 bytes and 3 merges, and "
            f"yours learned {num_merges}"
        )
    accented = "été, été"
    expected = bpe.train({accented.encode(): 1}, 256 + 3)  # no other pair occurs twice
    if [tuple(pair) for pair in theirs.train_bpe(accented, 300)] != expected:
        raise Wrong(f"train_bpe {not_bytes(accented)}")


def not_bytes(text: str) -> str:
    sizes = f"{len(text)} characters and {len(text.encode())} bytes"
    return f"does not begin with bytes: {text!r} is {sizes} (text.encode())"


@CHECKS.check("decoding byte pairs gives the text again, from fewer ids")
def bytes_round_trip(theirs: Any) -> None:
    learned = theirs.train_bpe(SONG, 270)
    for text in (SONG, "été 😀", "", "lowlow"):
        ids = list(theirs.encode_bpe(text, learned))
        check_encoding(theirs, text, learned, ids)
        with hint_on(DECODED_SINGLY, UnicodeDecodeError):
            decoded = theirs.decode_bpe(ids, learned)
        if decoded == text:
            continue
        decoding = f"{text!r} was decoded to {decoded!r}"
        if not text.isascii():
            raise Wrong(f"{DECODED_SINGLY}; {decoding}")
        if theirs.decode_bpe([98], []) in ("a", "c"):
            raise Wrong(f"decode_bpe is off by one: {decoding}; byte 98 is b")
        raise Wrong(
            f"decode_bpe has to undo encode_bpe: {decoding}; id 256 is the first pair of the "
            "merges, its first half before its second"
        )


DECODED_SINGLY = (
    "ids are decoded one by one: join the bytes of all ids first, then decode them as UTF-8, "
    "since a character may be split between two ids"
)


def check_encoding(theirs: Any, text: str, learned: list[Any], ids: list[int]) -> None:
    """Raises Wrong if `ids` are not the bytes of `text`, merged in the order of `learned`."""

    def encoded(first_id: int) -> list[int]:
        merged = list(text.encode())
        for new_id, pair in enumerate(learned, first_id):
            merged = list(theirs.merge(merged, pair, new_id))
        return merged

    expected = encoded(256)
    if ids == expected:
        return
    if ids == list(text.encode()):
        raise Wrong("the merges were not used: there are as many ids as bytes")
    if ids == encoded(257):
        raise Wrong("encode_bpe is off by one: the first new id is 256, since bytes are 0 to 255")
    if not text.isascii():
        raise Wrong(f"encode_bpe {not_bytes(text)}")
    raise Wrong(
        f"the merges are applied in the wrong order: {text[:20]!r}... should begin with the ids "
        f"{expected[:4]}, and yours with {ids[:4]}; the pair that was learned first goes first"
    )
