"""The grammar of sentences and the stage directions, as data. grammar.py compiles it.

One symbol per line: "NAME = weight: symbols | weight: symbols". Small letters and punctuation stand
for themselves, "/" ends a line. Capitals name another symbol or a class of the lexicon (".c"/".v":
only words that start with a consonant/vowel sound). "word?m" may be used if the man or woman last
spoken of in this speech is a man (f: a woman). "#" makes one rule for each kind of subject (m he,
f she, n it, p they, i, u thou, w we), "#mfn" only for m, f and n.
"""

GRAMMAR = """
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
FT#mfn = 3: VTS | 1: VTD | 1: VTP
FT#piw = 3: VT0 | 1: VTD | 1: VTP
FI#mfn = 3: VIS | 1: VID | 1: VIP
FI#piw = 3: VI | 1: VID | 1: VIP
MOD#mfn = MOD3
MOD#piw = MOD0
MODu = 4: dost | 4: shalt | 3: wilt | 3: canst | 3: must | 1: didst
MOD3 = 4: doth | 4: shall | 4: will | 3: must | 2: may | 2: can | 1: would | 1: should | 1: did
MOD0 = 2: do | 4: shall | 4: will | 3: must | 2: may | 2: can | 1: would | 1: could | 1: did
NOT#mfn = NOT3
NOT#piw = NOT0
NOT3 = 3: doth | 3: shall | 3: will | 2: must | 1: may | 1: should
NOT0 = 2: do | 3: shall | 3: will | 2: must | 1: may | 1: would
HAVE#mfn = 4: hath | 1: had
HAVE#piw = 4: have | 1: had
NOTu = 3: dost | 3: shalt | 2: wilt
HAVEu = hast
BE#mfn = 4: is | 1: was
BE#pw = 4: are | 1: were
BEi = 4: am | 1: was
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
LINES = (
    *("MAIN", "MAINN", "SUB", "AND", "REL", "LIKE", "PART", "INF", "ASK", "BID", "CRY"),
    *("FIRST", "SECOND"),
)
SUBJECTS = "mfnpiuw"
PUNCTUATION = (",", ";", ":", ".", "!", "?")

SETTINGS = {
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
SOUNDS = {
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
