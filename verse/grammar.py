"""A probabilistic grammar of verse lines: what may follow, with exact whole-number weights.

The rules (rules.py) are a probabilistic context-free grammar over word classes. It is walked word
by word through the *set* of derivations that agree with the text so far, each with its mass, so
that the text can be read in one way only. An option's weight is its mass times the mass of all ways
to end the line on ten syllables with alternating stress; what cannot be completed is not offered.
So nothing is sampled and rejected, and -log2 P(this very text) is a sum over the choices.
"""

import math
import re
from collections.abc import Sequence
from functools import cache
from itertools import accumulate, takewhile
from typing import Any, NamedTuple

from verse.lexicon import LEXICON
from verse.rules import PUNCTUATION, SUBJECTS

METRE_SYLLABLES = 10
ONE = 1 << 48  # masses are whole multiples of 2^-48, rounded up so that none vanishes


class Options:
    """What may come next: `keys` with whole-number weights; `then` is what each leads to.

    A key is a word, the key of a word class, punctuation, or ANY_WORD; if `literal`, any text.
    Raises AssertionError if a key comes twice.
    """

    __slots__ = ("bits", "cumulative", "index", "keys", "literal", "then", "total")

    def __init__(
        self,
        keys: Sequence[str],
        weights: Sequence[int],
        then: Sequence[tuple[Any, int]] = (),
        literal: bool = False,
    ) -> None:
        self.keys = list(keys)
        self.cumulative = list(accumulate(weights))
        self.total = self.cumulative[-1]
        self.bits = [math.log2(self.total / weight) for weight in weights]
        self.index = {key: i for i, key in enumerate(self.keys)}
        self.then = list(then)
        self.literal = literal
        assert len(self.index) == len(self.keys), f"a key comes twice: {keys}"

    def only(self, kept: Sequence[int]) -> "Options":
        """Returns the options with the indices `kept`, with their weights."""
        before = [0, *self.cumulative]
        return Options(
            [self.keys[i] for i in kept],
            [self.cumulative[i] - before[i] for i in kept],
            [self.then[i] for i in kept] if self.then else (),
        )


class Context(NamedTuple):
    """What a line may refer to: the one last spoken of ("m", "f" or ""), the one addressed."""

    spoken_of: str = ""
    addressed: str = ""  # gender
    name_pattern: str = ""


NO_CONTEXT = Context()
# Bits: which fields of the context a symbol needs.
_NOTHING, _SPOKEN_OF, _ADDRESSED = 0, 1, 2


@cache
def _masked(context: Context, needs: int) -> Context:
    return Context(
        context.spoken_of if needs & _SPOKEN_OF else "",
        context.addressed if needs & _ADDRESSED else "",
        context.name_pattern if needs & _ADDRESSED else "",
    )


@cache
def end_positions(pattern: str) -> tuple[int, ...]:
    """Returns, for each number of syllables before a word of `pattern`, the number after it.

    -1: the word cannot be there; the line would be too long, or the stress would not alternate.
    """
    ends = []
    for position in range(METRE_SYLLABLES + 1):
        fits = position + len(pattern) <= METRE_SYLLABLES and all(
            stress == "x" or (stress == "s") == bool((position + i) % 2)
            for i, stress in enumerate(pattern)
        )
        ends.append(position + len(pattern) if fits else -1)
    return tuple(ends)


_LINE_ENDS = (*[-1] * METRE_SYLLABLES, 0)


def _any_position(pattern: str) -> tuple[int, ...]:
    """Returns `end_positions` without the metre: after any word the line may end."""
    return (METRE_SYLLABLES,) * (METRE_SYLLABLES + 1) if pattern else end_positions(pattern)


_Entry = tuple[str, tuple[int, ...], int]  # option key, end positions, mass within its symbol


class _Terminal:
    """A symbol for words, as entries; some are offered in some contexts only."""

    def __init__(self, symbol: str, metre: bool) -> None:
        self.symbol = symbol
        self._ends = end_positions if metre else _any_position
        word, separator, _ = symbol.partition("?m" if symbol.endswith("?m") else "?f")
        word = word.upper() if word in ("i", "o") else word
        self.needs = _SPOKEN_OF if separator else _NOTHING
        self._offered: dict[Context, list[_Entry]] = {}
        if symbol == "/":
            self._entries: list[_Entry] = [(symbol, _LINE_ENDS, ONE)]
        elif symbol in PUNCTUATION:
            self._entries = [(symbol, self._ends(""), ONE)]
        elif word in ("I", "O") or (not word.isupper() and word in LEXICON.class_of):
            self._entries = [(word, self._ends(LEXICON.class_of[word].pattern), ONE)]
        else:
            category, _, kind = word.partition(".")
            self.needs = _ADDRESSED if category in ("NAME", "TITLE") else _NOTHING
            self._entries = self._of_category(category, kind)

    def _of_category(self, category: str, kind: str) -> list[_Entry]:
        categories = ("TM", "TF") if category == "TITLE" else (category,)
        classes = [
            c
            for c in LEXICON.classes.values()
            if c.category in categories
            and (not kind or (c.pattern == "s" if kind == "s" else c.vowel == (kind == "v")))
        ]
        total = sum(c.weight for c in classes)
        assert total, f"the grammar's {self.symbol} has no words"
        return [(c.key, self._ends(c.pattern), -(-c.weight * ONE // total)) for c in classes]

    def offered(self, context: Context) -> list[_Entry]:
        """Returns the entries that may be used in `context`."""
        if self.needs == _NOTHING:
            return self._entries
        context = _masked(context, self.needs)
        if context not in self._offered:
            if self.needs == _SPOKEN_OF:
                kept = self._entries if context.spoken_of == self.symbol[-1] else []
            elif self.symbol == "TITLE":
                title = f"<T{context.addressed.upper() or '?'}|"
                kept = [entry for entry in self._entries if entry[0].startswith(title)]
            else:
                name = f"<NAME|{context.name_pattern}|"
                kept = [entry for entry in self._entries if entry[0].startswith(name)]
            self._offered[context] = kept
        return self._offered[context]


class _Stack:
    """The symbols still to come in one derivation; equal stacks are one object."""

    __slots__ = ("head", "masses", "needs", "rest", "symbols")

    def __init__(self, head: str, rest: "_Stack | None", needs: int) -> None:
        self.head, self.rest, self.needs = head, rest, needs
        self.symbols: tuple[str, ...] = (head, *(rest.symbols if rest else ()))
        self.masses: dict[tuple[int, Context], int] = {}


State = tuple[tuple[_Stack | None, int], ...]  # derivations (None: at its end), their masses
DONE: State = ((None, 1 << 5),)


def _times(a: int, b: int) -> int:
    return -(-a * b >> 48)


class Grammar:
    """The rules, and what follows from them: masses, states and option tables, all cached.

    A table depends on its state alone, never on which texts were written before. Without `metre`
    a line has any number of syllables and any stress.
    """

    def __init__(self, text: str, lines: Sequence[str], metre: bool = True) -> None:
        self._metre = metre
        self._rules: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        self._terminals: dict[str, _Terminal] = {}
        self._needs: dict[str, int] = {}
        self._end_masses_of: dict[tuple[str, int, Context], dict[int, int]] = {}
        self._stacks: dict[tuple[str, _Stack | None], _Stack] = {}
        self._starts: dict[str, list[tuple[str, tuple[str, ...], int]]] = {}
        self._states: dict[State, State] = {}
        self._tables: dict[tuple[State, int, Context], Options] = {}
        self._read(text)
        for name in lines:
            self._weigh(name)

    def start(self, symbol: str) -> State:
        """Returns the state before anything of `symbol` is written."""
        return self._state({self._stack((symbol,), None): ONE})

    def options(self, state: State, position: int, context: Context) -> Options:
        """Returns what may follow in `state` after `position` syllables; see `after`."""
        needs = _NOTHING
        for stack, _ in state:
            needs |= stack.needs if stack else _NOTHING
        key = (state, position, _masked(context, needs))
        if key not in self._tables:
            self._tables[key] = self._build(*key)
        return self._tables[key]

    def after(self, options: Options, chosen: int) -> tuple[State, int]:
        """Returns the state and the syllables so far after the option with index `chosen`."""
        masses, end = options.then[chosen]
        if isinstance(masses, dict):  # computed on first use: most options are never chosen
            masses = self._state(masses)
            options.then[chosen] = (masses, end)
        return masses, end

    def _read(self, text: str) -> None:
        stated: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        for rule in re.split(r"\n+(?=\S)", text.strip()):
            name, _, body = rule.partition(" = ")
            symbol, template, kinds = name.partition("#")
            for kind in kinds or SUBJECTS if template else ("",):
                stated[symbol + kind] = alternatives = []
                for alternative in body.replace("#", kind).split(" | "):
                    match = re.match(r"\s*(\d+): (.*)", alternative, re.DOTALL)
                    weight, symbols = (match[1], match[2]) if match else ("1", alternative)
                    alternatives.append((int(weight), tuple(symbols.split())))
        for name, alternatives in stated.items():
            # "thou" has no plain verb here: a rule with one is left out.
            usable = [a for a in alternatives if not {"FTu", "FIu"} & set(a[1])]
            total = sum(weight for weight, _ in usable)
            self._rules[name] = [(-(-w * ONE // total), symbols) for w, symbols in usable]
            for _, symbols in usable:
                for symbol in symbols:
                    if symbol not in stated and symbol not in self._terminals:
                        self._terminals[symbol] = _Terminal(symbol, self._metre)

    def _weigh(self, name: str) -> None:
        """Makes the rules of a complete line as likely as stated, however often each fills it."""
        weighed = []
        for weight, symbols in self._rules[name]:
            stack = self._stack((*symbols, "/"), None)
            # As stated for a line that may refer to someone.
            mass = self._mass(stack, 0, Context("m", "m", "sw"))
            mass = mass or self._mass(stack, 0, Context("f", "f", "sw"))
            assert mass, f"{name} = {' '.join(symbols)} never has {METRE_SYLLABLES} syllables"
            weighed.append((weight * ONE // mass, symbols))
        total = sum(weight for weight, _ in weighed)
        self._rules[name] = [(-(-w * ONE // total), symbols) for w, symbols in weighed]

    def _stack(self, symbols: tuple[str, ...], rest: _Stack | None) -> _Stack:
        for symbol in reversed(symbols):
            known = self._stacks.get((symbol, rest))
            if known is None:
                needs = self._symbol_needs(symbol)
                if rest is not None and symbol != "/":
                    needs |= rest.needs
                known = self._stacks[symbol, rest] = _Stack(symbol, rest, needs)
            rest = known
        assert rest is not None
        return rest

    def _symbol_needs(self, symbol: str) -> int:
        """Returns which fields of the context matter in the line that `symbol` starts."""
        if symbol in self._terminals:
            return self._terminals[symbol].needs
        if symbol not in self._needs:
            needs = _NOTHING
            for _, symbols in self._rules[symbol]:
                for child in takewhile(lambda child: child != "/", symbols):
                    needs |= self._symbol_needs(child)
            self._needs[symbol] = needs
        return self._needs[symbol]

    def _end_masses(self, symbol: str, position: int, context: Context) -> dict[int, int]:
        """Returns where in the line `symbol` may end if it starts at `position`: end -> mass."""
        context = _masked(context, self._symbol_needs(symbol))
        key = (symbol, position, context)
        if key in self._end_masses_of:
            return self._end_masses_of[key]
        masses: dict[int, int] = {}
        if symbol in self._terminals:
            for _, ends, mass in self._terminals[symbol].offered(context):
                if ends[position] >= 0:
                    masses[ends[position]] = masses.get(ends[position], 0) + mass
        else:
            for weight, symbols in self._rules[symbol]:
                before = {position: weight}
                for child in symbols:
                    following: dict[int, int] = {}
                    for middle, mass in before.items():
                        for end, factor in self._end_masses(child, middle, context).items():
                            following[end] = following.get(end, 0) + _times(mass, factor)
                    before = following
                    if child == "/":
                        break
                for end, mass in before.items():
                    masses[end] = masses.get(end, 0) + mass
        self._end_masses_of[key] = masses
        return masses

    def _mass(self, stack: _Stack, position: int, context: Context) -> int:
        """Returns the mass of all ways to end this line on the metre with the stack's symbols."""
        key = (position, _masked(context, stack.needs) if stack.needs else NO_CONTEXT)
        mass = stack.masses.get(key)
        if mass is None:
            mass = 0
            for end, factor in self._end_masses(stack.head, position, context).items():
                # From a full line to no syllable: the line has ended.
                ended = position == METRE_SYLLABLES and end == 0
                if ended or stack.rest is None:
                    mass += factor
                else:
                    mass += _times(factor, self._mass(stack.rest, end, context))
            stack.masses[key] = mass
        return mass

    def _start(self, symbol: str) -> list[tuple[str, tuple[str, ...], int]]:
        """Returns the terminals `symbol` may start with: (terminal, what follows it, mass)."""
        if symbol in self._terminals:
            return [(symbol, (), ONE)]
        if symbol not in self._starts:
            merged: dict[tuple[str, tuple[str, ...]], int] = {}
            for weight, symbols in self._rules[symbol]:
                for terminal, rest, mass in self._start(symbols[0]):
                    key = (terminal, rest + symbols[1:])
                    merged[key] = merged.get(key, 0) + _times(weight, mass)
            self._starts[symbol] = [(*key, mass) for key, mass in merged.items()]
        return self._starts[symbol]

    def _state(self, masses: dict[_Stack | None, int]) -> State:
        total = sum(masses.values())
        state = [(stack, max(1, (mass << 5) // total)) for stack, mass in masses.items()]
        state.sort(key=lambda item: item[0].symbols if item[0] else ())
        return self._states.setdefault(tuple(state), tuple(state))

    def _build(self, state: State, position: int, context: Context) -> Options:
        weights: dict[str, int] = {}
        following: dict[str, dict[_Stack | None, int]] = {}
        ends_of: dict[str, int] = {}
        for stack, stack_mass in state:
            assert stack is not None, "a sentence may end here or not: the text would not say"
            for terminal, suffix, start_mass in self._start(stack.head):
                after = self._stack(suffix, stack.rest) if suffix else stack.rest
                masses: dict[int, int] = {}
                for key, ends, entry_mass in self._terminals[terminal].offered(context):
                    end = ends[position]
                    if end < 0:
                        continue
                    if end not in masses:
                        done = terminal == "/" or after is None
                        masses[end] = ONE if done else self._mass(after, end, context)  # type: ignore[arg-type]
                    if not masses[end]:
                        continue
                    mass = stack_mass * _times(start_mass, entry_mass)
                    ends_of[key] = end
                    weights[key] = weights.get(key, 0) + _times(mass, masses[end])
                    stacks = following.setdefault(key, {})
                    stacks[after] = stacks.get(after, 0) + mass
        total = sum(weights.values())
        assert total, f"nothing can follow {position} syllables of {state}"
        return Options(
            list(weights),
            [max(1, (weight << 32) // total) for weight in weights.values()],
            [(following[key], ends_of[key]) for key in weights],
        )
