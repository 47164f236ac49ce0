"""Plays in verse whose information is known: every choice is drawn, and can be read back.

The grammar is written once, as code that asks a chooser. A `_Writer` draws from counter-based
random bits and keeps the text; a `_Reader` is given the text and finds which option it goes on
with. Both add log2(total / weight), so -log2 P(this very text) is known when writing and obtained
again from the text alone, and the two cannot drift apart.

How a line is made: the grammar below is a probabilistic context-free grammar over word classes.
It is walked word by word through the *set* of derivations that agree with the text so far, each
with its mass, so that no derivation is ever guessed and the text can be read in one way only.
An option's weight is its mass times the mass of all ways to end the line on ten syllables with
alternating stress, in whole numbers; what cannot be completed is not offered. Nothing is drawn
and thrown away.

It knows nothing of models, files or splits. Standard library only: the same bytes everywhere.

    play = verse.write_play(seed=0, index=0)
    verse.information_bits(play.text) == play.information_bits
"""

import hashlib
import math
import re
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import Any, NamedTuple

from verse.words import LEXICON, TOPICS, WORDS

__all__ = [
    "METRE_SYLLABLES",
    "PLAY_BYTES",
    "REPEAT_WINDOW",
    "WORDS",
    "NotVerse",
    "Play",
    "VerseScores",
    "assess",
    "information_bits",
    "write_play",
]

METRE_SYLLABLES = 10
PLAY_BYTES = 10_000  # mean size of a play, as measured, to a few per cent
REPEAT_WINDOW = 3_000  # characters between the starts of a line and of its earliest repetition

# --------------------------------------------------------------------------------------------
# The grammar of sentences. One symbol a line: "NAME = weight: symbols | weight: symbols". Small
# letters and punctuation stand for themselves, "/" ends a line. Capitals name another symbol or a
# class of the lexicon (".c"/".v": only words that start with a consonant/vowel sound). "word?m"
# may be used where the man or woman last spoken of in this speech is a man (f: a woman). "#" makes
# one rule for each kind of subject: m he, f she, n it, p they, i, u thou, w we.
# --------------------------------------------------------------------------------------------
_GRAMMAR = """
SENTENCE = 45: MAIN AFTERMAIN | 13: SUB , / AFTERSUB | 3: MAINN , / REL . /
 | 2: PART , / MAIN AFTERMAIN | 2: LIKE , / MAIN AFTERMAIN | 10: ASK AFTERASK | 12: BID AFTERBID
 | 5: CRY AFTERCRY
AFTERMAIN = 14: STOP / | 7: , / SUB SUBEND | 5: , / AND . / | 3: ; / MAIN AFTERMAIN
 | 2: : / MAIN AFTERMAIN | 3: , / INF . / | 3: , / PART . / | 2: , / LIKE . /
SUBEND = 5: . / | 2: , / AND . /
AFTERSUB = 10: MAIN AFTERMAIN | 1: ASK ? / | 2: BID STOP /
AFTERASK = 7: ? / | 1: , / INF ? /
AFTERBID = 5: STOP / | 4: , / AND . / | 2: ; / MAIN AFTERMAIN | 1: , / PART . /
AFTERCRY = 4: ! / | 1: , / REL ! /
STOP = 7: . | 2: !
COUPLET = 3: FIRST , / SECOND . / | 2: FIRST ; / SECOND . / | 1: FIRST : / SECOND ! /

MAIN = 7: SUBJm VPm | 4: SUBJf VPf | 8: SUBJn VPn | 6: SUBJp VPp | 9: SUBJi VPi | 4: SUBJu VPu
 | 2: SUBJw VPw | 2: PLACE MODm SUBJm VI | 1: PLACE MODf SUBJf VI | 1: PLACE MODp SUBJp VI
 | 2: there is a NOUNc PLACE | 1: there is no NOUN PLACE | 2: 'tis ADJ to VT0 OBJ
 | 1: 'tis but a NOUNc PLACE | 1: 'twas ADJ to VT0 OBJ | 4: CALL , SUBJi VPi | 4: CALL , SUBJu VPu
 | 2: CALL , SUBJn VPn | 2: CALL , SUBJm VPm | 1: no HUMAN MODm VT0 OBJ | 1: methinks SUBJn VPn
 | 1: methinks SUBJm VPm | 1: so MODm SUBJm VT0 OBJm | 1: here is a NOUNc PLACE
 | 5: OWN NA is a NOUNc PLACE | 1: NA is the THING of OBJ | 2: thou art a NOUNc PLACE
 | 2: i am a NOUNc PLACE | 2: i am the THING of OBJ | 1: who VTS OBJ must VT0 OBJ
 | 2: the NP , the NP and NP VI PLACE | 1: the NP and HP VI PLACE
MAINN = 2: SUBJi VPTHi | 2: SUBJm VPTHm | 1: SUBJf VPTHf | 1: there is a THINGc PLACETH
 | 1: here is OWN THING PLACETH
SUB = 4: IF SUBJm VPm | 2: IF SUBJf VPf | 4: IF SUBJn VPn | 3: IF SUBJp VPp | 4: IF SUBJi VPi
 | 3: IF SUBJu VPu | 1: IF SUBJw VPw
IF = 5: when | 5: if | 3: though | 3: while | 3: since | 2: till | 2: because | 2: until
 | 2: unless | 1: whene'er | 1: where'er | 1: as when | 1: as though | 1: before | 1: although
 | 1: where
AND = 3: CONJ SUBJm VPm | 2: CONJ SUBJf VPf | 4: CONJ SUBJn VPn | 2: CONJ SUBJp VPp
 | 4: CONJ SUBJi VPi | 3: CONJ SUBJu VPu | 1: CONJ SUBJw VPw | 1: nor MODi SUBJi VT0 OBJi
 | 1: nor MODn SUBJn VT0 OBJ | 1: and let OBJ VI LATER | 3: CONJ NA is a NOUNc PLACE
CONJ = 6: and | 4: but | 3: yet | 3: for | 2: so
REL = 4: whose THING VPn | 2: whose ADJ THING VPn | 2: which SUBJi HAVEi VTX PLACE
 | 1: which SUBJm HAVEm VTX PLACE | 1: which SUBJp HAVEp VTX PLACE | 2: that SUBJi HAVEi VTX PLACE
LIKE = 3: like OBJ PLACE | 3: as NP VT0 OBJ | 2: as HP VT0 OBJ | 2: as HP VI LATER
 | 2: like ADJ NP PLACE
PART = 4: VTG OBJ PLACE | 2: VIG LATER | 2: with OBJ PLACE | 2: VTX by OBJ PLACE
 | 1: PLACE and PLACE | 1: VTG OBJ and VTG OBJ
INF = 4: to VT0 OBJ PLACE | 2: to VT0 OBJ and VT0 OBJ | 2: to VI LATER
ASK = 2: what is a NOUNc but a ADJc THING | 3: why MODm SUBJm VT0 OBJm | 2: why MODu SUBJu VT0 OBJu
 | 1: why MODp SUBJp VT0 OBJp | 2: what THING MODm SUBJm VT0 | 2: who MODm VT0 OBJ PLACE
 | 3: MODi SUBJi VT0 OBJi | 3: MODu SUBJu VT0 OBJu | 2: HAVEu SUBJu VTX OBJu
 | 2: HAVEm SUBJm VTX OBJm | 2: BEn SUBJn LIKENESS | 1: BEu SUBJu LIKENESS
 | 2: where is OWN NOUN PLACE | 3: CALL , MODu SUBJu VT0 OBJu | 2: CALL , MODn SUBJn VT0 OBJ
 | 2: how MODi SUBJi VT0 OBJi | 2: and must SUBJn VT0 OBJ | 1: what is SUBJn to OBJ
 | 1: when shall SUBJw VT0 OBJw
BID = 4: VT0 OBJ PLACE | 2: come , VT0 OBJ | 2: go , VT0 OBJ | 3: CALL , VT0 OBJ
 | 2: VT0 OBJ , CALL | 2: let us VT0 OBJ PLACE | 2: let OBJ VI PLACE | 2: do not VT0 OBJ PLACE
 | 1: give me OBJ PLACE | 1: VT0 not OBJ PLACE | 2: VT0 OBJ and VT0 OBJ | 1: O never VT0 OBJ PLACE
 | 1: tell me of OBJ PLACE | 1: bid OBJ VI LATER | 1: come , good my TITLE , and VT0 OBJ
CRY = 2: farewell , OWN THING , farewell , OWN ADJ THING | 2: no THING , no THING , no THING PLACE
 | 3: O ADJ THING , O ADJ THING | 2: alas , SUBJn VPn | 2: alas , SUBJi VPi | 2: how ADJ BEn SUBJn
 | 1: what ADJ THING is this , CALL | 2: O THING of NA , O THING of NA | 1: O CALLED , SUBJn VPn
 | 2: O ADJ THING , how ADJ art thou | 1: alas , my ADJ THING , my ADJ THING
CALLED = 2: ADJ NAME | 2: good TITLE

SUBJm = 6: the HM | 5: the ADJ HM | 2: my HM | 1: thy HM | 1: a MANc | 1: this ADJ HM | 9: he?m
SUBJf = 6: the HF | 5: the ADJ HF | 2: my HF | 1: thy HF | 1: this ADJ HF | 9: she?f
SUBJn = 6: the THING | 5: the ADJ THING | 3: my THING | 3: thy THING | 2: my ADJ THING | 3: NA
 | 2: thy ADJ THING | 1: this THING | 1: every THING | 1: the HQ THING | 1: the THING of NA
SUBJp = 4: the NP | 3: the ADJ NP | 2: my NP | 2: the HP | 2: thy NP | 1: ADJ NP | 1: these NP
 | 1: the ADJ HP
SUBJi = i
SUBJu = thou
SUBJw = we

VPm = 5: FTm OBJm
VP# = 6: FT# OBJ# | 5: MOD# VT0 OBJ# | 4: HAVE# VTX OBJ# | 3: MOD# VI LATER | 3: FI# LATER
 | 3: BE# LIKENESS | 2: BE# VTX by OBJ | 2: BE# VIG LATER | 1: HAVE# VIX LATER
 | 2: NOT# not VT0 OBJ# | 1: MOD# never VT0 OBJ# | 2: FT# OBJ# PLACE | 2: MOD# VT0 OBJ# PLACE
VPTH# = 3: FT# OBJTH | 2: HAVE# VTX OBJTH | 3: MOD# VT0 OBJTH
FTm = 3: VTS | 1: VTD | 1: VTP
FTf = 3: VTS | 1: VTD | 1: VTP
FTn = 3: VTS | 1: VTD | 1: VTP
FTp = 3: VT0 | 1: VTD | 1: VTP
FTi = 3: VT0 | 1: VTD | 1: VTP
FTw = 3: VT0 | 1: VTD | 1: VTP
FIm = 3: VIS | 1: VID | 1: VIP
FIf = 3: VIS | 1: VID | 1: VIP
FIn = 3: VIS | 1: VID | 1: VIP
FIp = 3: VI | 1: VID | 1: VIP
FIi = 3: VI | 1: VID | 1: VIP
FIw = 3: VI | 1: VID | 1: VIP
MODm = MOD3
MODf = MOD3
MODn = MOD3
MODp = MOD0
MODi = MOD0
MODw = MOD0
MODu = 4: dost | 4: shalt | 3: wilt | 3: canst | 3: must | 1: didst
MOD3 = 4: doth | 4: shall | 4: will | 3: must | 2: may | 2: can | 1: would | 1: should | 1: did
MOD0 = 2: do | 4: shall | 4: will | 3: must | 2: may | 2: can | 1: would | 1: could | 1: did
NOTm = NOT3
NOT3 = 3: doth | 3: shall | 3: will | 2: must | 1: may | 1: should
NOT0 = 2: do | 3: shall | 3: will | 2: must | 1: may | 1: would
HAVEm = 4: hath | 1: had
NOTf = NOT3
HAVEf = 4: hath | 1: had
NOTn = NOT3
HAVEn = 4: hath | 1: had
NOTp = NOT0
HAVEp = 4: have | 1: had
NOTi = NOT0
HAVEi = 4: have | 1: had
NOTw = NOT0
HAVEw = 4: have | 1: had
NOTu = 3: dost | 3: shalt | 2: wilt
HAVEu = hast
BEm = 4: is | 1: was
BEf = 4: is | 1: was
BEn = 4: is | 1: was
BEp = 4: are | 1: were
BEi = 4: am | 1: was
BEw = 4: are | 1: were
BEu = art
VTX = 3: VTD | 2: VTN
VIX = 3: VID | 2: VIN
VI = 1: VI0 | 1: VR

LIKENESS = 3: ADJ PLACE | 3: COMPARED than OBJ | 2: as ADJ as OBJ | 2: like OBJ | 1: ADJ and ADJ
 | 1: too ADJ to VT0 OBJ | 1: not so ADJ as OBJ | 1: not ADJ PLACE
COMPARED = 4: AC | 1: more A
LATER = 5: PLACE | 2: AV | 1: AV PLACE | 1: PLACE PLACE
PLACE = PREP OBJ
PREP = 8: in | 6: with | 3: from | 3: by | 2: on | 2: near | 2: through | 2: upon | 2: beneath
 | 1: beyond | 1: among | 1: against | 1: above | 1: behind | 1: within | 1: without | 2: under
 | 2: over | 1: o'er | 1: before
OBJ = 6: the THING | 5: the ADJ THING | 3: my THING | 3: thy THING | 2: my ADJ THING
 | 2: thy ADJ THING | 1: our THING | 1: this THING | 1: every THING | 4: a NOUNc | 1: an NOUNv
 | 3: the NP | 2: the ADJ NP | 1: my NP | 1: thy NP | 1: NP | 1: ADJ NP | 4: NA | 1: ADJ NA
 | 2: the HUMAN | 1: the ADJ HUMAN | 1: the HP | 2: the HQ THING | 1: the HQ ADJ THING
 | 1: NQ THING | 2: the THING of NA | 1: the THING of the THING | 1: the NP of NA | 1: all the NP
 | 1: no THING | 1: the AE THING | 1: NA and NA
OBJm = 6: OBJ | 3: his THING | 2: his ADJ THING | 1: his NP | 1: thee | 1: me
OBJf = 6: OBJ | 3: her THING | 2: her ADJ THING | 1: her NP | 1: thee | 1: me
OBJn = 6: OBJ | 1: thee | 1: me
OBJp = 6: OBJ | 3: their THING | 2: their NP | 1: thee | 1: me
OBJi = 6: OBJ | 2: my THING | 1: thee | 1: him?m | 1: her?f
OBJu = 6: OBJ | 2: thy THING | 1: me | 1: him?m | 1: her?f
OBJw = 6: OBJ | 2: our THING | 1: thee | 1: him?m | 1: her?f
OBJTH = 5: the THING | 3: the ADJ THING | 2: a THINGc | 2: OWN THING | 2: OWN ADJ THING
PLACETH = PREP OBJTH
OWN = 3: my | 3: thy | 1: our
NOUN = 6: THING | 4: ADJ THING | 2: HUMAN | 2: ADJ HUMAN
NOUNc = 6: THINGc | 4: ADJc THING | 2: HUMANc | 2: ADJc HUMAN
NOUNv = 3: N.v | 3: ADJv THING | 1: HM.v
THING = 5: N | 3: NR
THINGc = 5: N.c | 3: NR
HUMAN = 3: HM | 2: HF
HUMANc = 3: HM.c | 2: HF.c
MANc = 3: HM.c | 3: ADJc HM
ADJ = 3: A | 2: AR
ADJc = 3: A.c | 2: AR.c
ADJv = 3: A.v | 2: AR.v
CALL = 6: my TITLE | 3: good TITLE | 4: NAME | 2: O NAME | 1: ADJ NAME | 1: good NAME

FIRST = 4: SUBJi VPAi | 4: SUBJm VPAm | 2: SUBJf VPAf | 4: SUBJn VPAn | 2: SUBJp VPAp
 | 2: IF SUBJn VPAn | 2: IF SUBJi VPAi | 1: thus MODm SUBJm VT0 RHYME | 2: PLACE MODm SUBJm VR
 | 2: PLACE MODp SUBJp VR | 2: SUBJn BEn AR | 1: IF SUBJp BEp AR
VPA# = 3: FT# RHYME | 3: MOD# VT0 RHYME | 2: HAVE# VTX RHYME | 3: MOD# VT0 OBJ PREP RHYME
 | 2: FI# PREP RHYME | 2: MOD# VI PREP RHYME
SECOND = 3: CONJ SUBJi VPBi | 3: CONJ SUBJm VPBm | 3: CONJ SUBJn VPBn | 2: CONJ SUBJp VPBp
 | 2: SUBJi VPBi | 2: SUBJn VPBn | 2: let us VT0 OBJ PREP CLOSE | 2: and let OBJ VI PREP CLOSE
VPB# = 3: FT# CLOSE | 3: MOD# VT0 CLOSE | 2: HAVE# VTX CLOSE | 3: MOD# VT0 OBJ PREP CLOSE
 | 2: FI# PREP CLOSE | 2: MOD# VI PREP CLOSE
RHYME = 4: the NR | 3: the ADJ NR | 2: my NR | 2: thy NR | 1: my ADJ NR | 1: this NR | 1: every NR
CLOSE = 4: the NR.s | 3: the ADJ NR.s | 2: my NR.s | 2: thy NR.s | 1: my ADJ NR.s | 1: this NR.s
 | 1: every NR.s
"""

# These symbols are whole lines: their rules keep the weights stated above however often each of
# them comes to ten syllables.
_LINES = (
    *("MAIN", "MAINN", "SUB", "AND", "REL", "LIKE", "PART", "INF", "ASK", "BID", "CRY"),
    *("FIRST", "SECOND"),
)
_SUBJECTS = "mfnpiuw"
_PUNCTUATION = (",", ";", ":", ".", "!", "?")

_PLACES = {
    "sea": "The deck of a ship at sea.|A harbour by night.|The shore of an island.",
    "war": "A camp before the battle.|The walls of a castle.|A field, after the fight.",
    "court": "A hall in the palace.|The throne of the king.|A stair in the palace.",
    "wood": "A garden in summer.|A forest.|A cottage in the wood.",
    "night": "A tower, by moonlight.|A street at midnight.|A heath under the stars.",
    "law": "A court of justice.|A prison.|The house of a judge.",
    "gold": "A market in the city.|The house of a miser.|A bank.",
    "feast": "A tavern.|A banquet.|The kitchen of a great house.",
    "love": "A chamber with a window.|A balcony.|A room in the house of a lady.",
    "church": "A churchyard.|A cloister.|Before the altar.",
}
_SOUNDS = {
    "sea": "Thunder.|A gun at sea.",
    "war": "Alarums.|Drums afar off.",
    "court": "Trumpets.|They bow.",
    "wood": "Birds sing.|Horns within.",
    "night": "An owl cries.|The clock strikes.",
    "law": "Chains rattle.|A knocking within.",
    "gold": "He counts the money.|A bell rings.",
    "feast": "Music.|They drink.",
    "love": "A lute is heard.|They kiss.",
    "church": "A bell tolls.|They kneel.",
}


class NotVerse(ValueError):
    """A text that the grammar cannot have written: the line, what stands there, what could."""


@dataclass(frozen=True)
class Play:
    """One play: its `text`, and -log2 of the probability that it is this one, in bits."""

    text: str
    information_bits: float


@dataclass(frozen=True)
class VerseScores:
    """How much of a text is verse; shares are from 0 to 1, None where there is nothing to count.

    `known_words`: share of the `words` in spoken lines that are in the lexicon.
    `metrical_lines`: share of the `lines` within one syllable of the metre.
    `rhymed_couplets`: share of the `couplets`, which "[Coming forward]" marks, that rhyme.
    """

    words: int
    known_words: float | None
    lines: int
    metrical_lines: float | None
    couplets: int
    rhymed_couplets: float | None


# --------------------------------------------------------------------------------------------
# Choosing.
# --------------------------------------------------------------------------------------------
_WORD = "<any word>"


class _Options:
    """What may come next: `keys` with whole-number `weights`; `then` is what each leads to.

    A key is a word, the key of a word class, punctuation, or `_WORD`; where `literal`, a piece of
    text of any kind. AssertionError if a key comes twice.
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

    def only(self, kept: Sequence[int]) -> "_Options":
        """The options numbered `kept`, with their weights."""
        before = [0, *self.cumulative]
        return _Options(
            [self.keys[i] for i in kept],
            [self.cumulative[i] - before[i] for i in kept],
            [self.then[i] for i in kept] if self.then else (),
        )


class _Writer:
    """Draws each choice: option i has probability weight / total, but for a bias under 2^-64.

    The draws are the 128-bit words of blake2b(seed, index, counter).
    """

    def __init__(self, seed: int, index: int) -> None:
        self._name = f"verse 1:{seed}:{index}:"
        self._counter = 0
        self._draws: list[int] = []
        self.pieces: list[str] = []
        self.bits: list[float] = []
        self.position = 0

    def choose(self, options: _Options) -> int:
        if len(options.keys) == 1:
            return 0
        if not self._draws:
            name = f"{self._name}{self._counter}".encode("ascii")
            digest = hashlib.blake2b(name, digest_size=64).digest()
            self._draws = [int.from_bytes(digest[i : i + 16], "little") for i in (0, 16, 32, 48)]
            self._counter += 1
        point = self._draws.pop() * options.total >> 128
        chosen = bisect_right(options.cumulative, point)
        self.bits.append(options.bits[chosen])
        return chosen

    def say(self, text: str) -> None:
        self.pieces.append(text)
        self.position += len(text)

    def end(self) -> None:
        """Nothing to check: the text ends where the grammar does."""


_TOKEN = re.compile(r" ?('?[A-Za-z](?:['-]?[A-Za-z])*)|([^A-Za-z ])")


class _Reader:
    """Finds each choice in `text`: the one option that the text goes on with."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.bits: list[float] = []
        self.position = 0

    def choose(self, options: _Options) -> int:
        found = self._literal(options) if options.literal else self._token(options)
        if not found:
            some = ", ".join(repr(key) for key in options.keys[:8])
            self._refuse(some + (", ..." if len(options.keys) > 8 else ""))
        if len(found) > 1:
            raise AssertionError(f"can be read as {[options.keys[i] for i in found]}")
        self.bits.append(options.bits[found[0]])
        return found[0]

    def _literal(self, options: _Options) -> list[int]:
        text, position = self._text, self.position
        found = []
        for i, key in enumerate(options.keys):
            after = text[position + len(key) : position + len(key) + 1]
            if text.startswith(key, position) and not (key[-1].isalpha() and after.isalpha()):
                found.append(i)
        return found

    def _token(self, options: _Options) -> list[int]:
        match = _TOKEN.match(self._text, self.position)
        if match is None:
            return []
        token = match[1] or match[2].replace("\n", "/")
        class_of = LEXICON.class_of
        if token not in class_of and self.position and self._text[self.position - 1] == "\n":
            token = token.lower()
        index = options.index
        found = [index[token]] if token in index else []
        if token in class_of:
            for key in (class_of[token].key, _WORD):
                if key in index:
                    found.append(index[key])
        return found

    def say(self, text: str) -> None:
        if not self._text.startswith(text, self.position):
            self._refuse(repr(text))
        self.position += len(text)

    def end(self) -> None:
        if self.position != len(self._text):
            self._refuse("the end")

    def _refuse(self, expected: str) -> None:
        line = self._text.count("\n", 0, self.position) + 1
        here = self._text[self.position : self.position + 20]
        raise NotVerse(f"line {line}: {here!r} where the grammar expects {expected}")


_Chooser = _Writer | _Reader


# --------------------------------------------------------------------------------------------
# The grammar of a line, compiled on first use.
# --------------------------------------------------------------------------------------------
_ONE = 1 << 48  # masses are whole numbers of 2^-48, rounded up so that none vanishes


def _times(a: int, b: int) -> int:
    return -(-a * b >> 48)


class _Place(NamedTuple):
    """What a line may refer to: the one last spoken of ("m", "f" or ""), the one addressed."""

    spoken_of: str = ""
    addressed: str = ""  # gender
    name_pattern: str = ""


_NOWHERE = _Place()
_NOBODY, _SPOKEN_OF, _ADDRESSED = 0, 1, 2  # bits: which parts of a place are needed


@cache
def _masked(place: _Place, needs: int) -> _Place:
    return _Place(
        place.spoken_of if needs & _SPOKEN_OF else "",
        place.addressed if needs & _ADDRESSED else "",
        place.name_pattern if needs & _ADDRESSED else "",
    )


@cache
def _ends(pattern: str) -> tuple[int, ...]:
    """By syllables before a word of `pattern`: the syllables after it, -1 where it cannot be."""
    ends = []
    for position in range(METRE_SYLLABLES + 1):
        fits = position + len(pattern) <= METRE_SYLLABLES and all(
            stress == "x" or (stress == "s") == bool((position + i) % 2)
            for i, stress in enumerate(pattern)
        )
        ends.append(position + len(pattern) if fits else -1)
    return tuple(ends)


_LINE_ENDS = (*[-1] * METRE_SYLLABLES, 0)

_Entry = tuple[str, tuple[int, ...], int]  # option key, `_ends`, share of its symbol's mass


class _Terminal:
    """A symbol that stands for words, as entries; some are offered in some places only."""

    __slots__ = ("_entries", "_offered", "needs", "symbol")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        word, separator, _ = symbol.partition("?m" if symbol.endswith("?m") else "?f")
        word = word.upper() if word in ("i", "o") else word
        self.needs = _SPOKEN_OF if separator else _NOBODY
        self._offered: dict[_Place, list[_Entry]] = {}
        if symbol == "/":
            self._entries: list[_Entry] = [(symbol, _LINE_ENDS, _ONE)]
        elif symbol in _PUNCTUATION:
            self._entries = [(symbol, _ends(""), _ONE)]
        elif word in ("I", "O") or (not word.isupper() and word in LEXICON.class_of):
            self._entries = [(word, _ends(LEXICON.class_of[word].pattern), _ONE)]
        else:
            category, _, kind = word.partition(".")
            self.needs = _ADDRESSED if category in ("NAME", "TITLE") else _NOBODY
            self._entries = self._of_category(category, kind)

    def _of_category(self, category: str, kind: str) -> list[_Entry]:
        wanted = ("TM", "TF") if category == "TITLE" else (category,)
        classes = [
            c
            for c in LEXICON.classes.values()
            if c.category in wanted
            and (not kind or (c.pattern == "s" if kind == "s" else c.vowel == (kind == "v")))
        ]
        total = sum(c.weight for c in classes)
        assert total, f"the grammar's {self.symbol} has no words"
        return [(c.key, _ends(c.pattern), -(-c.weight * _ONE // total)) for c in classes]

    def offered(self, place: _Place) -> list[_Entry]:
        """The entries that may be used in `place`."""
        if self.needs == _NOBODY:
            return self._entries
        place = _masked(place, self.needs)
        if place not in self._offered:
            if self.needs == _SPOKEN_OF:
                kept = self._entries if place.spoken_of == self.symbol[-1] else []
            elif self.symbol == "TITLE":
                title = f"<T{place.addressed.upper() or '?'}|"
                kept = [entry for entry in self._entries if entry[0].startswith(title)]
            else:
                named = f"<NAME|{place.name_pattern}|"
                kept = [entry for entry in self._entries if entry[0].startswith(named)]
            self._offered[place] = kept
        return self._offered[place]


class _Stack:
    """The symbols still to come in one derivation; equal stacks are one object."""

    __slots__ = ("head", "masses", "needs", "rest", "symbols")

    def __init__(self, head: str, rest: "_Stack | None", needs: int) -> None:
        self.head, self.rest, self.needs = head, rest, needs
        self.symbols: tuple[str, ...] = (head, *(rest.symbols if rest else ()))
        self.masses: dict[tuple[int, _Place], int] = {}


_State = tuple[tuple[_Stack | None, int], ...]  # derivations (None: at its end), their masses


class _Grammar:
    """The rules, and what follows from them: masses, states and option tables, all kept.

    A table depends on its state alone, never on which texts were written before.
    """

    def __init__(self, text: str, lines: Sequence[str]) -> None:
        self._rules: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        self._terminals: dict[str, _Terminal] = {}
        self._needs: dict[str, int] = {}
        self._reached: dict[tuple[str, int, _Place], dict[int, int]] = {}
        self._stacks: dict[tuple[str, _Stack | None], _Stack] = {}
        self._starts: dict[str, list[tuple[str, tuple[str, ...], int]]] = {}
        self._states: dict[_State, _State] = {}
        self._tables: dict[tuple[_State, int, _Place], _Options] = {}
        self._read(text)
        for name in lines:
            self._weigh(name)

    def _read(self, text: str) -> None:
        stated: dict[str, list[tuple[int, tuple[str, ...]]]] = {}
        for rule in re.split(r"\n+(?=\S)", text.strip()):
            name, _, body = rule.partition(" = ")
            for kind in _SUBJECTS if "#" in name else ("",):
                stated[name.replace("#", kind)] = alternatives = []
                for alternative in body.replace("#", kind).split(" | "):
                    match = re.match(r"\s*(\d+): (.*)", alternative, re.DOTALL)
                    weight, symbols = (match[1], match[2]) if match else ("1", alternative)
                    alternatives.append((int(weight), tuple(symbols.split())))
        for name, alternatives in stated.items():
            # "thou" has no plain verb here: a rule that asks for one is left out.
            usable = [a for a in alternatives if not {"FTu", "FIu"} & set(a[1])]
            total = sum(weight for weight, _ in usable)
            self._rules[name] = [(-(-w * _ONE // total), symbols) for w, symbols in usable]
            for _, symbols in usable:
                for symbol in symbols:
                    if symbol not in stated and symbol not in self._terminals:
                        self._terminals[symbol] = _Terminal(symbol)

    def _weigh(self, name: str) -> None:
        """Make the rules of a whole line as likely as stated, however often each fills it."""
        weighed = []
        for weight, symbols in self._rules[name]:
            stack = self._stack((*symbols, "/"), None)
            # Stated for a line that may refer to someone.
            mass = self._mass(stack, 0, _Place("m", "m", "sw"))
            mass = mass or self._mass(stack, 0, _Place("f", "f", "sw"))
            assert mass, f"{name} = {' '.join(symbols)} never has {METRE_SYLLABLES} syllables"
            weighed.append((weight * _ONE // mass, symbols))
        total = sum(weight for weight, _ in weighed)
        self._rules[name] = [(-(-w * _ONE // total), symbols) for w, symbols in weighed]

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
        """Which parts of a place matter in the line that `symbol` starts."""
        if symbol in self._terminals:
            return self._terminals[symbol].needs
        if symbol not in self._needs:
            needs = _NOBODY
            for _, symbols in self._rules[symbol]:
                for part in symbols:
                    if part == "/":
                        break
                    needs |= self._symbol_needs(part)
            self._needs[symbol] = needs
        return self._needs[symbol]

    def _reach(self, symbol: str, position: int, place: _Place) -> dict[int, int]:
        """Where in the line `symbol` may end if it starts at `position`, with the masses."""
        place = _masked(place, self._symbol_needs(symbol))
        key = (symbol, position, place)
        if key in self._reached:
            return self._reached[key]
        reached: dict[int, int] = {}
        if symbol in self._terminals:
            for _, ends, share in self._terminals[symbol].offered(place):
                if ends[position] >= 0:
                    reached[ends[position]] = reached.get(ends[position], 0) + share
        else:
            for weight, symbols in self._rules[symbol]:
                held = {position: weight}
                for part in symbols:
                    following: dict[int, int] = {}
                    for middle, mass in held.items():
                        for end, share in self._reach(part, middle, place).items():
                            following[end] = following.get(end, 0) + _times(mass, share)
                    held = following
                    if part == "/":
                        break
                for end, mass in held.items():
                    reached[end] = reached.get(end, 0) + mass
        self._reached[key] = reached
        return reached

    def _mass(self, stack: _Stack, position: int, place: _Place) -> int:
        """The mass of all ways to end this line on the metre with the symbols of `stack`."""
        key = (position, _masked(place, stack.needs) if stack.needs else _NOWHERE)
        mass = stack.masses.get(key)
        if mass is None:
            mass = 0
            for end, share in self._reach(stack.head, position, place).items():
                # From a full line to no syllable: the line has ended.
                ended = position == METRE_SYLLABLES and end == 0
                if ended or stack.rest is None:
                    mass += share
                else:
                    mass += _times(share, self._mass(stack.rest, end, place))
            stack.masses[key] = mass
        return mass

    def _start(self, symbol: str) -> list[tuple[str, tuple[str, ...], int]]:
        """The terminals `symbol` may start with: (terminal, what follows it, mass)."""
        if symbol in self._terminals:
            return [(symbol, (), _ONE)]
        if symbol not in self._starts:
            merged: dict[tuple[str, tuple[str, ...]], int] = {}
            for weight, symbols in self._rules[symbol]:
                for terminal, rest, share in self._start(symbols[0]):
                    at = (terminal, rest + symbols[1:])
                    merged[at] = merged.get(at, 0) + _times(weight, share)
            self._starts[symbol] = [(*at, mass) for at, mass in merged.items()]
        return self._starts[symbol]

    def start(self, symbol: str) -> _State:
        """The state before anything of `symbol` is written."""
        return self._state({self._stack((symbol,), None): _ONE})

    def _state(self, masses: dict[_Stack | None, int]) -> _State:
        total = sum(masses.values())
        state = [(stack, max(1, (mass << 5) // total)) for stack, mass in masses.items()]
        state.sort(key=lambda item: item[0].symbols if item[0] else ())
        return self._states.setdefault(tuple(state), tuple(state))

    def options(self, state: _State, position: int, place: _Place) -> _Options:
        """What may follow in `state` after `position` syllables; see `after`."""
        needs = _NOBODY
        for stack, _ in state:
            if stack is not None:
                needs |= stack.needs
        key = (state, position, _masked(place, needs))
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = self._build(*key)
        return table

    def _build(self, state: _State, position: int, place: _Place) -> _Options:
        weights: dict[str, int] = {}
        following: dict[str, dict[_Stack | None, int]] = {}
        ends_of: dict[str, int] = {}
        for stack, held in state:
            assert stack is not None, "a sentence may end here or go on: the text would not say"
            for terminal, suffix, share in self._start(stack.head):
                after = self._stack(suffix, stack.rest) if suffix else stack.rest
                masses: dict[int, int] = {}
                for key, ends, part in self._terminals[terminal].offered(place):
                    end = ends[position]
                    if end < 0:
                        continue
                    if end not in masses:
                        done = terminal == "/" or after is None
                        masses[end] = _ONE if done else self._mass(after, end, place)  # type: ignore[arg-type]
                    if not masses[end]:
                        continue
                    mass = held * _times(share, part)
                    ends_of[key] = end
                    weights[key] = weights.get(key, 0) + _times(mass, masses[end])
                    stacks = following.setdefault(key, {})
                    stacks[after] = stacks.get(after, 0) + mass
        total = sum(weights.values())
        assert total, f"nothing can follow {position} syllables of {state}"
        return _Options(
            list(weights),
            [max(1, (weight << 32) // total) for weight in weights.values()],
            [(following[key], ends_of[key]) for key in weights],
        )

    def after(self, options: _Options, chosen: int) -> tuple[_State, int]:
        """The state and the syllables so far once option number `chosen` is written."""
        masses, end = options.then[chosen]
        if isinstance(masses, dict):  # worked out on first use: most options never are chosen
            masses = self._state(masses)
            options.then[chosen] = (masses, end)
        return masses, end


@cache
def _grammar() -> _Grammar:
    return _Grammar(_GRAMMAR, _LINES)


@cache
def _words(key: str, topic: str) -> _Options:
    word_class = LEXICON.classes[key]
    return _Options(word_class.words, word_class.weights(topic))


@cache
def _closing_words(first: str, topic: str) -> _Options:
    """The nouns of one syllable that rhyme with `first`, without itself."""
    rhymes = LEXICON.rhymes[LEXICON.rhyme_of[first]]
    closing = LEXICON.classes["<NR|s|c>"]
    both = zip(closing.words, closing.weights(topic), strict=True)
    offered = {word: weight for word, weight in both if word in rhymes and word != first}
    return _Options(list(offered), list(offered.values()))


# --------------------------------------------------------------------------------------------
# A play.
# --------------------------------------------------------------------------------------------
_NAMES = {name: name.upper() for name in LEXICON.gender_of_name}


@cache
def _literal(keys: tuple[str, ...], weights: tuple[int, ...]) -> _Options:
    return _Options(keys, weights, literal=True)


@cache
def _tokens(keys: tuple[str, ...], weights: tuple[int, ...]) -> _Options:
    return _Options(keys, weights)


class _Stage:
    """One play as a chooser goes through it; nothing here is hidden from the text."""

    def __init__(self, chooser: _Chooser) -> None:
        self.chooser = chooser
        self.topic = ""
        self.cast: list[str] = []
        self.speaker = ""
        self.addressed = ""
        self.recent: deque[tuple[int, str, str]] = deque()  # start, all but the last word, it
        self.recent_starts: Counter[str] = Counter()

    def _pick(self, keys: Sequence[str], weights: Sequence[int]) -> str:
        key = keys[self.chooser.choose(_literal(tuple(keys), tuple(weights)))]
        self.chooser.say(key)
        return key

    def _pick_name(self, names: Sequence[str], weights: Sequence[int] = ()) -> str:
        keys = [_NAMES[name] for name in names]
        key = self._pick(keys, weights or [1] * len(keys))
        return names[keys.index(key)]

    def play(self) -> None:
        """The title, then scenes until FINIS."""
        say = self.chooser.say
        say("THE ")
        self._pick(("TRAGEDY", "COMEDY", "HISTORY"), (3, 2, 1))
        say(" OF ")
        names = list(_NAMES)
        first = self._pick_name(names)
        say(" AND ")
        self._pick_name([name for name in names if name != first])
        say("\n\n")
        for scene in range(1, 1_000_000):
            # Three scenes at least; from the fourth on, each may be the one that is not played.
            if scene <= 3:
                say("SCENE. ")
            elif self._pick(("SCENE. ", "FINIS.\n"), _MORE_SCENES[min(scene, 6)]) != "SCENE. ":
                break
            self.scene()
        self.chooser.end()

    def scene(self) -> None:
        """A place, which gives the topic, those who enter, speeches, a couplet."""
        say = self.chooser.say
        topic_of = {place: topic for topic in TOPICS for place in _PLACES[topic].split("|")}
        self.topic = topic_of[self._pick(list(topic_of), [1] * len(topic_of))]
        say("\n\nEnter ")
        self.cast, self.speaker, self.addressed = [], "", ""
        joined = ""
        while True:
            self.cast.append(self._pick_name([n for n in _NAMES if n not in self.cast]))
            if joined == " and ":
                say(".")
                break
            joined = self._pick((", ", " and "), (2, 3) if len(self.cast) < 4 else (1, 9))
        say("\n\n")
        speeches = 0
        while self.event(speeches):
            speeches += 1
        say("[Exeunt.]\n\n")

    def event(self, speeches: int) -> bool:
        """Someone enters or leaves, a sound, or a speech; False after the couplet."""
        say = self.chooser.say
        others = [name for name in self.cast if name != self.speaker]
        keys = [_NAMES[name] + ":" for name in others]
        weights = [40 if name == self.addressed else 20 for name in others]
        share = sum(weights)
        actions = {"Enter ": share // 24 * (speeches > 0 and len(self.cast) < 5)}
        actions["Exit "] = share // 24 * (speeches > 1 and len(self.cast) > 2)
        actions["["] = share // 16 * (speeches > 0)
        for action, weight in actions.items():
            if weight:
                keys.append(action)
                weights.append(weight)
        key = self._pick(keys, weights)
        if key == "Enter ":
            self.cast.append(self._pick_name([n for n in _NAMES if n not in self.cast]))
            say(".\n\n")
            return True
        if key == "Exit ":
            gone = self._pick_name(self.cast)
            self.cast.remove(gone)
            if gone == self.speaker:
                self.speaker = ""
            if gone == self.addressed:
                self.addressed = ""
            say(".\n\n")
            return True
        if key == "[":
            sounds = _SOUNDS[self.topic].split("|")
            self._pick(sounds, [1] * len(sounds))
            say("]\n\n")
            return True
        previous = self.speaker
        self.speaker = others[keys.index(key)]
        self.addressed = previous
        say("\n")
        return self.speech(speeches)

    def speech(self, speeches: int) -> bool:
        """What the speaker says; False if it was the couplet."""
        say = self.chooser.say
        symbol = "SENTENCE"
        marked = _tokens(("[", _WORD), (3, 17) if speeches < 10 else (2, 3))
        if marked.keys[self.chooser.choose(marked)] == "[":
            say("[")
            others = [name for name in self.cast if name != self.speaker]
            kinds = ["Aside", *("To " + _NAMES[name] for name in others), "Coming forward"]
            close = 0 if speeches < 10 else 12 if speeches < 13 else 60
            weights = [4, *(4 for _ in others), close]
            kind = self._pick(kinds[: None if close else -1], weights[: None if close else -1])
            say("]\n")
            if kind == "Coming forward":
                symbol = "COUPLET"
            self.addressed = others[kinds.index(kind) - 1] if kind.startswith("To ") else ""
        spoken_of = ""
        sentences = 0
        more = True
        while more:
            spoken_of = self.sentence(symbol, spoken_of)
            sentences += 1
            if symbol == "COUPLET":
                break
            ending = _tokens(("/", _WORD), (2, 3) if sentences < 4 else (3, 1))
            more = ending.keys[self.chooser.choose(ending)] != "/"
        say("\n")
        return symbol != "COUPLET"

    def sentence(self, symbol: str, spoken_of: str) -> str:
        """One sentence of one to three lines; the gender of the one spoken of after it."""
        grammar, chooser = _grammar(), self.chooser
        state = grammar.start(symbol)
        gender = LEXICON.gender_of_name.get(self.addressed, "")
        pattern = LEXICON.class_of[self.addressed].pattern if gender else ""
        place = _Place(spoken_of, gender, pattern)
        position, line, start, rhyme = 0, "", chooser.position, ""
        mentioned = spoken_of
        while state != _DONE:
            options = grammar.options(state, position, place)
            forbidden = self._forbidden(line, start) if line else ()
            if forbidden:
                options = self._without(options, forbidden, rhyme)
            chosen = chooser.choose(options)
            key = options.keys[chosen]
            state, position = grammar.after(options, chosen)
            if key == "/":
                before, _, last = line.rpartition(" ")
                self.recent.append((start, before, last))
                self.recent_starts[before] += 1
                if symbol == "COUPLET":
                    rhyme = last
                chooser.say("\n")
                line, start = "", chooser.position
                place = _Place(mentioned, gender, pattern)
                continue
            if key in _PUNCTUATION:
                chooser.say(key)
                continue
            word = key
            if key[0] == "<":
                word = self._word(key, position, rhyme, forbidden)
                if key[1:4] in ("HM|", "HF|"):
                    mentioned = key[2].lower()
            chooser.say(" " + word if line else _capital(word))
            line = f"{line} {word}" if line else word
        return mentioned

    def _offered(self, key: str, rhyme: str) -> _Options:
        """The words of class `key` that may stand here, at the end of a line that is to rhyme."""
        if key.startswith("<NAME|"):
            return _tokens((self.addressed,), (1,))
        return _closing_words(rhyme, self.topic) if rhyme else _words(key, self.topic)

    def _word(self, key: str, position: int, rhyme: str, forbidden: Sequence[str]) -> str:
        ends = position == METRE_SYLLABLES
        options = self._offered(key, rhyme if ends else "")
        if forbidden and ends:
            options = _less(options, forbidden)
        return options.keys[self.chooser.choose(options)]

    def _forbidden(self, line: str, start: int) -> Sequence[str]:
        """The words that would make `line`, begun at `start`, one spoken within the window."""
        while self.recent and self.recent[0][0] < start - REPEAT_WINDOW:
            self.recent_starts[self.recent.popleft()[1]] -= 1
        if not self.recent_starts[line]:
            return ()
        return [last for _, before, last in self.recent if before == line]

    def _without(self, options: _Options, forbidden: Sequence[str], rhyme: str) -> _Options:
        """`options` but those that can only repeat a line; all, should nothing else be left."""
        kept = []
        for i, key in enumerate(options.keys):
            ends = options.then[i][1] == METRE_SYLLABLES
            words: Sequence[str] = [key]
            if key[0] == "<":
                words = self._offered(key, rhyme if ends else "").keys
            if not ends or any(word not in forbidden for word in words):
                kept.append(i)
        if not kept:
            return options
        return options.only(kept)


# Weights of another scene and of the end, by the number of the scene.
_MORE_SCENES = {4: (1, 1), 5: (1, 2), 6: (1, 9)}

_DONE: _State = ((None, 1 << 5),)


def _less(options: _Options, forbidden: Sequence[str]) -> _Options:
    """`options` without the `forbidden` words; all, should nothing else be left."""
    kept = [i for i, key in enumerate(options.keys) if key not in forbidden]
    return options.only(kept) if kept else options


def _capital(word: str) -> str:
    return "'" + word[1:].capitalize() if word[0] == "'" else word[0].upper() + word[1:]


def write_play(seed: int, index: int) -> Play:
    """Play number `index` of `seed`, about `PLAY_BYTES` bytes of ASCII, with its information.

    It depends on (seed, index) alone; the plays of one seed are independent of each other.
    """
    writer = _Writer(seed, index)
    _Stage(writer).play()
    return Play("".join(writer.pieces), math.fsum(writer.bits))


def information_bits(text: str) -> float:
    """-log2 of the probability of the one play in `text`, in bits, from the text alone.

    Raises NotVerse if `write_play` cannot have written it.
    """
    reader = _Reader(text)
    _Stage(reader).play()
    return math.fsum(reader.bits)


# --------------------------------------------------------------------------------------------
# Text that a model wrote.
# --------------------------------------------------------------------------------------------
_SPEAKER = re.compile(r"[A-Z][A-Z ]*:")
_HEADING = re.compile(r"\[.*|(?:Enter|Exit|Exeunt|SCENE|FINIS)\b.*|THE [A-Z]+ OF [A-Z ]+")
_CLOSING = "[Coming forward]"
_WRITTEN = re.compile(r"'?[A-Za-z](?:['-]?[A-Za-z])*")


def _known(word: str) -> str:
    """`word` as the lexicon has it, "" if it has not."""
    return word if word in WORDS else word.lower() if word.lower() in WORDS else ""


def _syllables(word: str) -> int:
    known = _known(word)
    if known:
        return len(LEXICON.class_of[known].pattern)
    groups = len(re.findall(r"[aeiouy]+", word.lower()))
    silent = word.lower().endswith("e") and groups > 1
    return max(1, groups - silent)


def _rhyme(first: str, second: str) -> bool:
    ends = [_WRITTEN.findall(line)[-1:] for line in (first, second)]
    one, two = (_known(end[0]).lower() if end else "" for end in ends)
    rhymes = LEXICON.rhyme_of
    return one != two and one in rhymes and rhymes.get(two) == rhymes[one]


def assess(text: str) -> VerseScores:
    """How much of `text`, cut anywhere and of any quality, is verse.

    The first and the last line may be cut and are left out. Of a word that the lexicon does not
    have, the syllables are guessed from its groups of vowels.
    """
    lines = text.split("\n")[1:-1]
    spoken = [
        bool(line) and not (_SPEAKER.fullmatch(line) or _HEADING.fullmatch(line)) for line in lines
    ]
    words = known = metrical = couplets = rhymed = 0
    for i, line in enumerate(lines):
        if spoken[i]:
            written = _WRITTEN.findall(line)
            words += len(written)
            known += sum(bool(_known(word)) for word in written)
            metrical += abs(sum(map(_syllables, written)) - METRE_SYLLABLES) <= 1
        elif line == _CLOSING and all(spoken[i + 1 : i + 3]) and i + 2 < len(lines):
            couplets += 1
            rhymed += _rhyme(lines[i + 1], lines[i + 2])
    count = sum(spoken)
    return VerseScores(
        words=words,
        known_words=known / words if words else None,
        lines=count,
        metrical_lines=metrical / count if count else None,
        couplets=couplets,
        rhymed_couplets=rhymed / couplets if couplets else None,
    )
