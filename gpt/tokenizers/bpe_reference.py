"""Byte pair encoding in plain Python: how a vocabulary is learned from text, and how it is used.

    merges = train(count_pieces(texts, pattern), vocab_size=512)
    tokens = vocabulary(merges)                   # the bytes that each id stands for
    ids = encode("hello".encode(), merges)

It begins with the 256 bytes. The two neighbours that stand side by side most often become one
further token; then the same again, until the vocabulary is full (Sennrich et al. 2016, on bytes as
in GPT-2). The text is first cut into pieces, words about, and no token reaches across two of them.

This is to be read: it keeps all pieces in memory. The pipeline trains with rustbpe, which makes the
same merges (a test holds them together), and encodes with tiktoken.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Pair = tuple[int, int]


def count_pieces(texts: Iterable[str], pattern: str) -> Counter[bytes]:
    """How often each piece occurs that the regular expression `pattern` cuts `texts` into."""
    # Python's own `re` does not know \p{L}, a letter of any script.
    import regex

    find = regex.compile(pattern).findall
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(find(text))
    return Counter({piece.encode(): count for piece, count in counts.items()})


def train(pieces: Mapping[bytes, int], vocab_size: int, min_frequency: int = 1) -> list[Pair]:
    """The merges, best first: merge number n joins two ids into the id 256 + n.

    Among pairs of the same count the one of the smaller ids wins, so that the order in which pieces
    were counted does not matter. Ends early where nothing is left to merge, or before the first
    merge that would be made fewer than `min_frequency` times.
    """
    words = [(list(piece), count) for piece, count in pieces.items()]
    counts: Counter[Pair] = Counter()
    where: defaultdict[Pair, set[int]] = defaultdict(set)  # the words that a pair is (or was) in
    for index, (ids, count) in enumerate(words):
        for pair in pairwise(ids):
            counts[pair] += count
            where[pair].add(index)
    merges: list[Pair] = []
    while 256 + len(merges) < vocab_size and counts:
        most = max(counts.values())
        best = min(pair for pair, count in counts.items() if count == most)
        made = 0
        for index in where.pop(best):
            ids, count = words[index]
            shorter = merge(ids, best, 256 + len(merges))
            made += count * (len(ids) - len(shorter))
            words[index] = (shorter, count)
            for pair in pairwise(ids):
                counts[pair] -= count
                if not counts[pair]:
                    del counts[pair]
            for pair in pairwise(shorter):
                counts[pair] += count
                where[pair].add(index)
        if made < min_frequency:
            break
        merges.append(best)
    return merges


def merge(ids: Sequence[int], pair: Pair, new: int) -> list[int]:
    """`ids` with `new` in place of every `pair`, from left to right."""
    merged: list[int] = []
    at = 0
    while at < len(ids):
        if tuple(ids[at : at + 2]) == pair:
            merged.append(new)
            at += 2
        else:
            merged.append(ids[at])
            at += 1
    return merged


def vocabulary(merges: Iterable[Pair]) -> list[bytes]:
    """The bytes of each id."""
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return tokens


def encode(piece: bytes, merges: Sequence[Pair]) -> list[int]:
    """The ids of one piece: the merges once more, in the order in which they were learned."""
    new_ids = {pair: 256 + number for number, pair in enumerate(merges)}
    ids = list(piece)
    while found := [new_ids[pair] for pair in pairwise(ids) if pair in new_ids]:
        earliest = min(found)
        ids = merge(ids, merges[earliest - 256], earliest)
    return ids


def merges_of(tokens: Sequence[bytes]) -> list[Pair]:
    """The inverse of `vocabulary`: the merge behind each token of two or more bytes, in id order.

    The 256 bytes may have any ids (GPT-2 begins with the printable ones). A token was merged from
    what its bytes become under the merges before its own; that pair is unique, because a merge
    inside a token does not depend on the bytes outside. Raises ValueError for a token that no
    merge makes.
    """
    ids_of = {token: id for id, token in enumerate(tokens)}
    merges = []
    for new, token in enumerate(tokens):
        if len(token) == 1:
            continue
        ids = [ids_of[bytes([byte])] for byte in token]
        while len(ids) > 2:
            joined = (tokens[left] + tokens[right] for left, right in pairwise(ids))
            earliest, index = min(
                (ids_of.get(span, new), index) for index, span in enumerate(joined)
            )
            if earliest >= new:
                raise ValueError(f"token {new} is not a merge of two tokens before it")
            ids[index : index + 2] = [earliest]
        merges.append((ids[0], ids[1]))
    return merges
