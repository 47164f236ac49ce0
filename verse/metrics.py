"""How well a text keeps the rules of a play, rule by rule; the rules are in RULES.

A text may be cut anywhere and be of any quality. Not here: the grammar, which decides what a
sentence is (grammar.py, parser.py), and pairs of a right and a wrong line (minimal_pairs.py).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from verse.grammar import DONE, METRE_SYLLABLES, Context, end_positions
from verse.lexicon import LEXICON
from verse.parser import NotVerse, Reader, token_at, token_keys
from verse.play import PlayGrammar, compiled_grammar
from verse.stage import NAMES, TITLE, Stage, is_spoken, moves_of, speaker_of, words_of

# What is counted for each rule, and when it keeps the rule.
RULES = {
    "speakers": "headings; the speaker is on stage",
    "turns": "headings; another one spoke before, in this scene",
    "entrances": "names that enter or leave; off stage before, or on stage",
    "words": "words of lines; in the lexicon",
    "metre": "lines; ten syllables, stress on every second",
    "agreement": "verbs; the form that subject or auxiliary asks for",
    "sentences": "sentences; the grammar can write them, metre and agreement included",
    "rhyme": "scenes that close; their last two lines rhyme",
}

# Forms of the same verb: classes of verbs with and without an object, and words.
_FORMS: tuple[frozenset[str], ...] = tuple(
    frozenset(forms.split())
    for forms in (
        "<VT0 <VTS <VTD <VTP <VTN <VTG",
        "<VI0 <VIS <VID <VIP <VIN <VIG <VR",
        "do dost doth did didst",
        "shall shalt",
        "will wilt",
        "can canst",
        "have hast hath had",
        "am art is are was were",
    )
)


@dataclass
class RuleCounts:
    """For each of RULES, in how many cases it applied (`cases`) and was kept (`kept`)."""

    cases: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)

    def count(self, rule: str, kept: bool) -> None:
        self.cases[rule] += 1
        self.kept[rule] += kept

    def fractions(self) -> dict[str, float | None]:
        """The fraction of the cases in which each rule was kept; None if it never applied."""
        return {
            rule: round(self.kept[rule] / self.cases[rule], 6) if self.cases[rule] else None
            for rule in RULES
        }


def count_rules(texts: Iterable[str]) -> RuleCounts:
    """Counts for each rule how often it applied to `texts` and was kept.

    The last line of a text may be cut and is left out, as is the first, but for a title. Who is on
    stage is known from the first scene on that begins in the text, so the rules that need it
    (all but words and metre) start there.
    """
    counts = RuleCounts()
    for text in texts:
        lines = text.split("\n")[:-1]
        reader = _LineReader(counts)
        for line in lines if TITLE.fullmatch("".join(lines[:1])) else lines[1:]:
            reader.read(line)
    return counts


class _LineReader:
    """Reads a text line by line and counts."""

    def __init__(self, counts: RuleCounts) -> None:
        self._count = counts.count
        self._stage = Stage()
        self._speech: list[str] = []  # its lines
        self._sentence: list[str] = []  # the lines of the one that has begun

    def read(self, line: str) -> None:
        stage = self._stage
        if not line:
            self._end_sentence()
        elif is_spoken(line):
            self._spoken_line(line)
        elif stage.in_scene:
            if name := speaker_of(line):
                self._speech = []
                self._count("speakers", name in stage.cast)
                if stage.speaker:
                    self._count("turns", name != stage.speaker)
            on_stage = set(stage.cast)
            for move, name in moves_of(line):
                possible = (name in on_stage) == (move == "Exit")
                self._count("entrances", possible and name in NAMES)
                on_stage ^= {name}
            if line == "[Exeunt.]":
                self._count("rhyme", rhyme(*self._speech[-2:]))
        stage.read(line)

    def _spoken_line(self, line: str) -> None:
        words = words_of(line)
        for word in words:
            self._count("words", bool(known_form(word)))
        self._count("metre", scans(words))
        self._speech.append(line)
        self._sentence.append(line)
        couplet = self._stage.symbol == "COUPLET"
        if line[-1] in ".!?" and not (couplet and len(self._sentence) < 2):
            self._end_sentence()

    def _end_sentence(self) -> None:
        lines, self._sentence = self._sentence, []
        stage = self._stage
        if not (lines and stage.in_scene):
            return
        text = "\n".join(["", *lines, ""])
        context = sentence_context(stage.addressed, self._speech[: -len(lines)])
        for right in verb_forms(text, stage.symbol, context):
            self._count("agreement", right)
        reader = Reader(text, position=1)
        play = PlayGrammar(reader)
        play.addressed = NAMES.get(stage.addressed, "")
        try:
            play.sentence(stage.symbol, context.spoken_of)
        except NotVerse:
            self._count("sentences", False)
        else:
            self._count("sentences", reader.position == len(text))


def sentence_context(addressed: str, lines: Iterable[str]) -> Context:
    """Returns what a sentence may refer to after the `lines` of its speech: the man or woman last
    spoken of, and who is addressed (the name as in headings)."""
    name = NAMES.get(addressed, "")
    spoken_of = ""
    for word in words_of("\n".join(lines)):
        word_class = LEXICON.class_of.get(known_form(word))
        if word_class and word_class.category in ("HM", "HF"):
            spoken_of = word_class.category[1].lower()
    pattern = LEXICON.class_of[name].pattern if name else ""
    return Context(spoken_of, LEXICON.gender_of_name.get(name, ""), pattern)


def known_form(word: str) -> str:
    """Returns `word` as the lexicon has it, "" if it does not."""
    known = LEXICON.class_of
    return word if word in known else word.lower() if word.lower() in known else ""


def scans(words: list[str]) -> bool:
    """Whether the line has ten syllables with stress on every second, by the lexicon."""
    position = 0
    for word in map(known_form, words):
        position = end_positions(LEXICON.class_of[word].pattern)[position] if word else -1
        if position < 0:
            return False
    return position == METRE_SYLLABLES


def rhyme(first: str = "", second: str = "") -> bool:
    """Whether two lines end on different words that rhyme."""
    endings = [words_of(line)[-1:] for line in (first, second)]
    a, b = (known_form(words[0]).lower() if words else "" for words in endings)
    rhymes = LEXICON.rhyme_of
    return a != b and a in rhymes and rhymes.get(b) == rhymes[a]


def verb_forms(text: str, symbol: str, context: Context) -> Iterator[bool]:
    """Yields for each verb of a sentence whether its form is right, up to a fault of another kind.

    The grammar reads the sentence without its metre. A verb is wrong where the grammar offers
    another form of it, and reading continues as if that stood there.
    """
    grammar, spoken_of, at = compiled_grammar(metre=False), context.spoken_of, 1
    state, position = grammar.start(symbol), 0
    while state != DONE:
        token, at = token_at(text, at)
        options = grammar.options(state, position, context)
        keys = token_keys(token)
        offered = [options.index[key] for key in keys if key in options.index]
        if forms := verb_family(keys):
            others = [i for i, key in enumerate(options.keys) if _form(key) in forms]
            if offered or others:
                yield bool(offered)
            offered = offered or others
        if not offered:
            return
        key = options.keys[offered[0]]
        if key[1:4] in ("HM|", "HF|"):
            spoken_of = key[2].lower()
        if key == "/":
            context = context._replace(spoken_of=spoken_of)
        state, position = grammar.after(options, offered[0])


def verb_family(keys: Iterable[str]) -> frozenset[str]:
    """Returns all forms of the verb that one of the option `keys` stands for; none for others."""
    named = {_form(key) for key in keys}
    return next((forms for forms in _FORMS if named & forms), frozenset())


def _form(key: str) -> str:
    """Returns the name in _FORMS for the key of an option: "<VTS" of "<VTS|sw|c>"."""
    return key.partition("|")[0]
