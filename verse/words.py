"""The words of verse, about 1,200 base words, with their topics and stress patterns. Data only.

A stress pattern has one letter per syllable: w weak, s strong, x either. The middle or last
syllable of a word like "mariner" counts as strong, as in verse of the time.

Not here: inflection (morphology.py) and word classes (lexicon.py).
"""

TOPICS = ("sea", "war", "court", "wood", "night", "law", "gold", "feast", "love", "church")
TOPIC_BOOST = 10  # factor on a word's weight in a scene of its own topic

# Speakers, as lines call them; headings write them in capitals.
MALE_NAMES = """
s: Quince Giles Hugh Mark Jaques Fitch
sw: Walter Orlo Duncan Edmund Julius Xerxes Conrad Victor Zadok Philip
ws: Laurent Eugene
sws: Benedick Florizel Lysander
"""
FEMALE_NAMES = """
s: Kate Blanche Joan Ruth Maud Jane
sw: Viola Zara Juno Helen Yvonne Wanda Portia Phebe Audrey Marian
ws: Diane Irene
sws: Rosalind Imogen Xanthippe
"""

# Rhymes: one class a line. N: singular nouns (none starts with a vowel sound; at least two of one
# syllable in each class, so that a second line can always be closed), A: adjectives, V: verbs
# without an object. ^ marks a word of two syllables, weak then strong; = one without comparison.
RHYMES = """
N night light sight knight flight height plight fight spite delight^ A bright white right=
N day way play clay ray bay A gay grey V stay pray sway decay^ delay^
N heart part dart cart start V depart^
N hand land band sand strand brand A grand V stand
N mind rind hind A kind blind
N face grace place race lace space disgrace^ A base
N tree knee bee key sea fee plea A free V flee agree^
N king ring spring string wing thing sting V sing cling
N bird word herd A absurd^=
N sword board cord hoard reward^
N death breath
N fold mould A cold bold old
N stone throne bone moan groan tone A lone= prone= V atone^
N sky cry lie sigh spy pie A high shy dry sly V die fly
N tear spear year peer beer A dear clear drear= severe^= V appear^
N dream stream beam gleam team scheme
N sheep heap A deep cheap steep V weep creep sleep leap
N song throng wrong A strong long
N moon tune noon spoon boon V swoon
N star scar bar guitar^ A far=
N war shore door floor store core A poor sore V roar soar
N blood flood bud mud
N crown gown town frown clown A brown V drown
N ground hound sound mound A round profound^=
N head bed thread bread A red dead=
N gate fate state date plate mate debate^ A late great V wait
N fool stool school pool rule tool A cool
N wine vine line shrine pine sign design^ A fine divine^= V shine repine^
N feast beast priest
N ship lip whip hip V slip trip
N grave cave knave wave A brave V rave
N bell spell cell shell V dwell rebel^
N truth youth tooth
N blade maid shade spade glade parade^ V fade
N flame name shame game dame A tame lame
N dust trust crust distrust^ A just=
N hill mill bill quill A still chill=
N sail tale veil gale whale tail nail A pale frail stale V fail prevail^ wail
N cheek week creek beak A meek weak bleak unique^= V speak
N bride side tide pride guide A wide V ride glide abide^
N cloud shroud crowd A proud loud
N storm form swarm A warm
N chain rain pain brain lane train A plain vain= V reign remain^ complain^
N soul bowl goal hole coal V stroll
N breast nest guest jest chest quest request^ A blest= V rest
N lute flute fruit suit root brute A mute= V dispute^
N glass lass pass mass
N rock clock lock flock dock block shock V mock knock
N cross loss moss
N debt net threat A wet V fret
N purse verse hearse nurse curse
N tomb doom room gloom broom
N vow brow bough cow plough
N law jaw claw straw paw flaw A raw
N thief grief leaf chief sheaf belief^ A brief
N thorn corn horn morn scorn A torn= forlorn^= V mourn
N snow foe woe crow blow show A low slow V grow glow
N sin skin pin chin A thin V begin^ spin
N meal wheel heel seal V kneel
N price vice slice dice advice^ A nice
N vault fault assault^
N judge grudge
N cloak joke yoke stroke
N hawk stalk walk V talk
N dove glove
"""
# The topic of the rhyming words that have one.
RHYME_TOPICS = """
sea: wave shore ship sea sail tide storm gale whale rock bay dock net sand creek
war: war sword knight spear blood wound scar blade foe shock fight flight
court: king throne crown state peer gown guide suit clown
wood: tree bird leaf bud rose thorn grass vine hill hind glade bough bee spring flower nest pine
night: night moon star sky dream light cloud shade gleam bed sleep
law: law judge thief plea bar wrong right chain fault cell debate
gold: coin price purse debt fee hoard store bill chest key reward lock
feast: feast wine bowl meal beer bread fruit guest plate jest cup pie song crust
love: heart lip cheek bride lute sigh face tear breast dove glove vow lace delight
church: soul bell cross tomb priest shrine grave sin mass vault shroud death hearse belief
"""

# topic category pattern: words, the frequent first ("-": no topic). Categories: N things, NA
# what is not counted, HM and HF men and women, A adjectives, AL those that make an adverb in -ly,
# VT verbs with an object, VI verbs without.
WORDS_BY_TOPIC = """
sea N s: mast deck rope oar port fish gulf hull buoy surge coast wreck
sea N sw: anchor harbour vessel island ocean current compass channel lantern mermaid cable galley
sea N ws: lagoon
sea N sws: argosy
sea NA s: foam spray brine
sea NA sw: thunder weather water
sea HM sw: sailor captain pilot boatman seaman pirate helmsman fisher
sea HM sws: mariner admiral
sea HF sw: siren
sea HF s: nymph
sea A sw: briny stormy foaming windy sunken wat'ry storm-tossed
sea AL s: swift calm smooth rough
sea VT s: steer haul moor sink
sea VT ws: becalm
sea VI s: float drift swim
sea VI sw: founder voyage flounder
sea N wsw: horizon
sea VT sws: navigate
sea A sws: sea-beaten
sea A wsws: tempestuous
war N s: shield drum host camp fort bow lance trench siege flag truce
war N sw: battle army banner trumpet arrow cannon weapon helmet armour charger dagger
war N ws: attack defeat retreat campaign
war N sws: victory enemy
war N wsw: encampment alarum
war NA s: strife rage steel
war NA sw: valour courage slaughter conquest glory fury
war HM sw: soldier captive general warrior archer sergeant hero
war HM wsw: commander lieutenant
war HM ws: recruit
war HF s: scout
war A sw: bloody warlike iron martial dreadful blood-stained
war A ws: unarmed
war A wsw: triumphant
war AL s: fierce stern
war AL sw: valiant furious
war VT s: strike wound smite slay charge
war VT sw: conquer vanquish plunder shatter
war VT ws: defend assault subdue besiege invade oppose
war VI s: bleed march charge
war VI sw: perish triumph
war VI ws: retire
war VI wsw: surrender
war A wsws: victorious
war HF sws: heroine amazon
court N s: court robe hall stage mask dance fan
court N sw: palace sceptre castle chamber honour title mirror ribbon velvet favour carpet pageant
court N ws: estate decree
court N sws: embassy retinue courtesy
court N wsw: procession pavilion ambition
court NA s: pomp rank
court NA sw: greatness duty flatt'ry splendour
court HM s: prince duke earl page
court HM sw: courtier monarch herald tyrant steward jester
court HM sws: chancellor chamberlain
court HF s: queen
court HF sw: princess duchess countess empress
court A sw: royal noble courtly crimson gilded princely sovereign
court A ws: august
court AL sw: gracious haughty
court A sw: stately
court AL ws: polite
court AL wsw: majestic
court VT s: serve grant greet
court VT sw: flatter banish counsel
court VT ws: obey command exalt appoint dismiss attend
court VI s: bow dance kneel
court VI sw: curtsy
court VI ws: preside
court NA sws: majesty
court HM wsws: ambassador
court A swsw: silver-footed
wood N s: rose wood grove brook branch hedge thrush lark fawn fox bloom fern path
wood N sw: garden forest flower lily meadow blossom acorn cottage willow fountain ivy summer
wood N sw: winter petal orchard river valley apple
wood N sws: nightingale violet butterfly wilderness
wood NA s: grass dew
wood NA sw: clover honey sunshine
wood HM s: swain
wood HM sw: shepherd hunter woodman gardener ploughman hermit
wood HF sw: milkmaid dryad shepherdess
wood A s: green wild
wood A sw: leafy mossy fragrant flow'ry verdant rural hollow thorny
wood A sws: evergreen honey-sweet
wood AL s: fresh sweet soft
wood AL sw: tender
wood VT s: plant pluck prune hunt graze
wood VT sw: gather scatter cover
wood VT ws: entwine
wood VI s: roam droop
wood VI sw: wander flourish wither
wood VI ws: unfold
night N s: ghost owl lamp bat torch mist
night N sw: planet shadow midnight candle evening vision comet pillow moonbeam slumber phantom
night N ws: eclipse
night N sws: canopy firmament nightingale
night NA s: frost
night NA sw: darkness silence twilight starlight heaven moonlight
night NA wsw: enchantment
night HM sw: watchman sleeper dreamer prowler
night HM wsw: magician
night HF s: witch
night HF sw: fairy goddess
night A s: dark dim
night A sw: silver starry sable dusky gloomy sleepless moonlit golden moon-struck
night A sws: shadowy
night AL sw: silent secret
night AL s: faint strange
night VT s: haunt watch
night VT sw: darken
night VT ws: bewitch conceal enchant
night VI sw: glimmer twinkle shiver
night VI ws: awake arise
night A wsws: mysterious
night HM wsws: astronomer
law N s: crime jail oath cause writ
law N sw: prison sentence statute witness gallows warrant juror verdict fetter scaffold
law N ws: offence appeal
law N sws: argument evidence penalty testament
law N wsw: confession acquittal
law NA s: proof
law NA sw: justice reason treason mercy freedom
law NA wsw: injustice
law HM s: clerk
law HM sw: lawyer traitor prisoner gaoler robber sheriff
law HM wsw: attorney
law HF sw: plaintiff
law HF s: scold
law A sw: lawful guilty wicked legal crooked
law A ws: unjust
law A sws: criminal innocent
law AL sw: honest
law AL s: strict
law VT s: try plead hang bind swear
law VT sw: pardon punish question
law VT ws: accuse condemn convict acquit arrest deny
law VI ws: confess
law VT sws: prosecute
law VI sws: testify
gold N s: pound loan trade scale pearl gem
gold N sw: treasure diamond ducat penny jewel bargain fortune coffer ruby ledger casket
gold N ws: account amount
gold N sws: property usury
gold N wsw: possession
gold NA s: gold wealth thrift
gold NA sw: riches money plenty profit av'rice
gold HM sw: merchant miser banker beggar debtor broker goldsmith
gold HM sws: usurer creditor
gold HF s: heir
gold HF sw: heiress
gold A s: rich
gold A sw: costly wealthy precious greedy worthless glitt'ring thrifty
gold A wsw: expensive
gold AL sw: lavish
gold VT s: buy sell pay lend spend owe
gold VT sw: borrow barter measure squander
gold VT ws: possess exchange redeem
gold VI s: thrive
gold VI sw: prosper
gold VI ws: increase
gold N wsws: inheritance
feast N s: roast toast cake spice dish cheese pear plum knife
feast N sw: supper banquet table goblet kitchen dinner music pudding tavern fiddle kettle barrel
feast N sw: onion
feast N sws: company minstrelsy appetite melody
feast NA s: mirth ale meat
feast NA sw: laughter hunger pleasure sugar pepper
feast HM s: cook
feast HM sw: butler drunkard minstrel fiddler glutton vintner baker
feast HM wsw: musician companion
feast HF s: wench
feast HF sw: hostess dancer singer
feast A s: drunk
feast A sw: merry hungry jolly thirsty roasted buttered
feast A sws: plentiful
feast A wsw: delicious
feast AL s: ripe
feast AL sw: cheerful joyful
feast VT s: taste drink eat pour carve
feast VT sw: swallow season
feast VT ws: devour prepare
feast VI s: laugh
feast VI sw: revel stagger
feast VI ws: rejoice carouse
love N s: kiss eye glance blush smile arm charm pledge
love N sw: letter sonnet beauty bosom passion token cupid promise finger
love N ws: embrace caress
love N sws: valentine
love N wsw: affection devotion
love NA s: love
love NA sw: longing kindness rapture folly fancy sorrow
love NA ws: desire despair
love HM s: groom
love HM sw: lover suitor husband poet rival bridegroom
love HM wsw: admirer
love HF s: wife
love HF sw: sweetheart maiden daughter widow
love A s: fair coy
love A sw: gentle lovely faithful blushing faithless jealous amorous star-crossed lovesick
love AL s: fond true
love AL sw: constant careless
love AL sws: passionate
love VT s: woo wed
love VT sw: cherish marry comfort
love VT ws: adore betray console
love VI sw: languish linger
church N s: church prayer spire choir hymn pew psalm
church N sw: altar temple chapel steeple cloister coffin bible angel demon candlestick spirit
church N sw: relic
church N ws: remorse
church N sws: sepulchre monument miracle sacrament
church N wsw: cathedral religion communion
church NA s: faith hope
church NA sw: virtue patience penance
church NA wsw: repentance salvation
church HM s: monk saint
church HM sw: abbot bishop pilgrim friar sexton prophet sinner
church HM sws: cardinal
church HF s: nun
church HF sw: abbess
church A sw: holy sacred pious sinful mortal ghostly heav'nly
church A ws: devout
church A wsw: immortal eternal
church AL sw: humble solemn
church AL ws: sincere
church AL s: chaste
church VT s: bless preach save
church VT sw: hallow bury worship
church VT ws: forgive repent baptise implore
church VI sw: suffer
church VI ws: ascend
- N s: world house book bridge road wall dog horse cat goose hat coat
- N sw: mountain window morning number picture city village story ladder trouble danger
- N sw: errand bottle monkey donkey pigeon feather
- N ws: event mistake surprise
- N sws: memory history remedy prophecy
- N wsw: occasion opinion confusion umbrella
- NA s: time peace health strength joy
- NA sw: wisdom nature nothing something madness envy anger
- NA sws: liberty poverty
- HM s: man boy son dunce rogue
- HM sw: father brother villain neighbour servant scholar doctor tailor stranger uncle
- HM sws: gentleman messenger
- HF s: girl aunt
- HF sw: mother sister woman
- HF sws: grandmother
- A s: black small tall blue
- A sw: little ancient weary empty heavy happy simple woollen famous crafty
- A sw: silly painted ragged wooden foreign
- A ws: unknown unkind obscure
- A sws: dangerous
- A wsw: unhappy ungrateful
- AL s: sad glad quick mild vast
- AL sw: foolish bitter patient sudden pleasant stubborn modest clever cruel awkward
- AL sws: generous miserable
- VT s: see hold keep seek find know lose break steal bring praise take leave hear touch hide fear
- VT s: bear win teach catch shun mend burn call shake ask
- VT sw: follow answer carry study alter
- VT ws: forget behold despise forsake pursue deserve defy receive refuse destroy reveal
- VT ws: admire persuade neglect salute describe
- VT wsw: remember discover imagine abandon
- VI s: live fall rise wake think come run
- VI sw: tremble travel whisper vanish stumble hurry whistle falter
- VI ws: return endure
- VI wsw: continue
- HM wsws: philosopher
"""

# base: past and participle; one word where they are the same.
IRREGULAR_VERBS = """
see saw seen/hold held/keep kept/seek sought/find found/know knew known/lose lost
break broke broken/steal stole stolen/bring brought/take took taken/leave left/hear heard
hide hid hidden/bear bore borne/win won/teach taught/catch caught/shake shook shaken
forget forgot forgotten/behold beheld/forsake forsook forsaken/fall fell fallen/rise rose risen
wake woke woken/think thought/come came/run ran/stand stood/sleep slept/weep wept/creep crept
sing sang sung/cling clung/flee fled/fly flew flown/speak spoke spoken/ride rode ridden
go went gone/grow grew grown/begin began begun/shine shone/spin spun/abide abode/strike struck
smite smote smitten/slay slew slain/sink sank sunk/bleed bled/swim swam swum/buy bought
sell sold/pay paid/lend lent/spend spent/eat ate eaten/drink drank drunken/wed wedded/hang hanged
bind bound/swear swore sworn/forgive forgave forgiven/kneel knelt/arise arose arisen
awake awoke awoken/leap leapt/dwell dwelt/steer steered/swell swelled
"""

PLURALS = {
    "man": "men", "woman": "women", "gentleman": "gentlemen", "boatman": "boatmen",
    "seaman": "seamen", "woodman": "woodmen", "ploughman": "ploughmen", "watchman": "watchmen",
    "helmsman": "helmsmen", "wife": "wives", "knife": "knives", "thief": "thieves",
    "leaf": "leaves", "sheaf": "sheaves", "goose": "geese", "tooth": "teeth", "sheep": "",
    "fish": "fishes", "gallows": "", "kin": "",
    "monarch": "monarchs", "hero": "heroes", "belief": "beliefs", "grief": "griefs",
    "chief": "chiefs", "breast": "", "dice": "", "advice": "", "mud": "", "blood": "", "dust": "",
    "music": "",
    "armour": "", "evidence": "", "usury": "", "remorse": "", "bread": "", "spite": "", "moss": "",
    "velvet": "", "gloom": "", "clay": "", "beer": "", "corn": "",
}  # fmt: skip

# Words of closed classes, each a class of its own; pattern: words.
FUNCTION_WORDS = """
w: the a an my thy his her our their of to and than
x: i thou he she we me thee him us who what why how where when if though while since
x: till as like that this these those which whose is are am art was were hath have hast had
x: doth do dost did didst shall shalt will wilt must may can canst would could should let not no all
x: more so too but yet for nor here there with from in on by near through
x: go o come 'tis 'twas such o'er good thus tell give bid
sw: every never under over
ws: upon beneath beyond among against above behind within without before because until
ws: although unless whene'er where'er alas methinks farewell
"""
# What one calls the person spoken to, by that person's gender, with "my", "good" or "sweet".
TITLES = {"TM": "s: lord sir liege\nsw: master cousin", "TF": "sw: lady madam mistress"}
