"""Byte pair encoding in plain Python, to be read: how a vocabulary is learned, and how it is used.

    merges = train(count_pre_tokens(texts, pattern), vocab_size=512)
    tokens = vocabulary(merges)                   # the bytes of each id
    ids = encode("hello".encode(), merges)

The vocabulary starts with the 256 bytes. The most frequent pair of neighbouring ids becomes a new
id, then the next one, until the vocabulary is full (Sennrich et al. 2016, on bytes as in GPT-2).
Text is first split into pre-tokens, roughly words, and no token crosses from one to the next. The
pipeline trains with rustbpe, which learns the same merges, and encodes with tiktoken.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

Pair = tuple[int, int]


def count_pre_tokens(texts: Iterable[str], pattern: str) -> Counter[bytes]:
    """Counts the pre-tokens that the regular expression `pattern` splits `texts` into."""
    import regex  # Python's own `re` lacks \p{L}, a letter of any script.

    find = regex.compile(pattern).findall
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(find(text))
    return Counter({pre_token.encode(): count for pre_token, count in counts.items()})


def train(pre_tokens: Mapping[bytes, int], vocab_size: int) -> list[Pair]:
    """Learns merges from pre-tokens and their counts: merge i joins two ids into the id 256 + i.

    Among pairs of equal count the one with the smaller ids wins, so that the order of `pre_tokens`
    does not matter. Returns fewer merges if nothing is left to merge.
    """
    words = [(list(pre_token), count) for pre_token, count in pre_tokens.items()]
    counts: Counter[Pair] = Counter()
    words_with: defaultdict[Pair, set[int]] = defaultdict(set)  # indices, some of them outdated
    for index, (ids, count) in enumerate(words):
        for pair in pairwise(ids):
            counts[pair] += count
            words_with[pair].add(index)
    merges: list[Pair] = []
    while 256 + len(merges) < vocab_size and counts:
        highest = max(counts.values())
        best = min(pair for pair, count in counts.items() if count == highest)
        for index in words_with.pop(best):
            ids, count = words[index]
            merged = merge(ids, best, 256 + len(merges))
            words[index] = (merged, count)
            for pair in pairwise(ids):
                counts[pair] -= count
                if not counts[pair]:
                    del counts[pair]
            for pair in pairwise(merged):
                counts[pair] += count
                words_with[pair].add(index)
        merges.append(best)
    return merges


def merge(ids: Sequence[int], pair: Pair, new_id: int) -> list[int]:
    """Replaces every `pair` in `ids` by `new_id`, from left to right."""
    merged: list[int] = []
    i = 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new_id)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged


def vocabulary(merges: Iterable[Pair]) -> list[bytes]:
    """Lists the bytes of each id."""
    tokens = [bytes([byte]) for byte in range(256)]
    for left, right in merges:
        tokens.append(tokens[left] + tokens[right])
    return tokens


def encode(pre_token: bytes, merges: Sequence[Pair]) -> list[int]:
    """Encodes one pre-token: applies the merges in the order in which they were learned."""
    new_ids = {pair: 256 + i for i, pair in enumerate(merges)}
    ids = list(pre_token)
    while applicable := [new_ids[pair] for pair in pairwise(ids) if pair in new_ids]:
        earliest = min(applicable)
        ids = merge(ids, merges[earliest - 256], earliest)
    return ids


def merges_of(tokens: Sequence[bytes]) -> list[Pair]:
    """The inverse of `vocabulary`: the merge behind each token of two or more bytes, in id order.

    The 256 bytes may have any ids (GPT-2 starts with the printable ones). A token was merged from
    what its bytes become under the merges before its own; that pair is unique, because a merge
    inside a token does not depend on the bytes outside. Raises ValueError for a token that no
    merge makes.
    """
    ids_of = {token: id for id, token in enumerate(tokens)}
    merges = []
    for new_id, token in enumerate(tokens):
        if len(token) == 1:
            continue
        ids = [ids_of[bytes([byte])] for byte in token]
        while len(ids) > 2:
            joined = [tokens[left] + tokens[right] for left, right in pairwise(ids)]
            earliest, i = min((ids_of.get(span, new_id), i) for i, span in enumerate(joined))
            if earliest >= new_id:
                raise ValueError(f"token {new_id} is not a merge of two tokens before it")
            ids[i : i + 2] = [earliest]
        merges.append((ids[0], ids[1]))
    return merges
