"""Facts about institutions, each stated by a sentence and asked for by a question. `squad_v1`, `qnli` and the corpus use them.

A question (who founded, when opened, how many people ...) names one kind of fact, and most contexts state one fact of each
kind. So a model trained from random weights learns to answer without first learning to compare names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tasks.sample import words
from tasks.sample.draw import Draw


@dataclass(frozen=True)
class Value:
    """An answer. lead: words before it that belong to the sentence only ("on" 3 May). short: a shorter answer that is right too."""

    text: str
    short: str
    lead: str = ""


@dataclass(frozen=True)
class Relation:
    """A kind of fact. In sentences {a} is the answer with its lead, {S} and {s} are the institution's name (capitalized or
    not), {n} is its noun (museum). The first two sentences name the institution, so they can state facts of several.
    """

    value: Callable[[Draw, str], Value]
    sentences: tuple[str, ...]
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """A sentence with an answer at character `start`, and the question for it."""

    sentence: str
    question: str
    value: Value
    start: int


@dataclass(frozen=True)
class Institution:
    """The subject of an article."""

    name: str
    noun: str


def _person(draw: Draw, template: str) -> Value:
    full, surname = words.person(draw, template)
    return Value(full, surname)


def _date(draw: Draw, template: str) -> Value:
    year = draw.number(template, 1780, 2000)
    form = draw.below(4)
    if form == 0:
        month = draw.pick(words.MONTHS)
        return Value(f"{1 + draw.below(28)} {month} {year}", f"{month} {year}", "on ")
    if form == 1:
        return Value(f"{draw.pick(words.MONTHS)} {year}", str(year), "in ")
    if form == 2:
        return Value(f"the {draw.pick(words.SEASONS)} of {year}", str(year), "in ")
    return Value(str(year), str(year), "in ")


def _where(draw: Draw, template: str) -> Value:
    region = draw.entity(template, words.REGIONS)
    lead, text = draw.pick(
        (("in ", "the hills of"), ("near ", "the border of"), ("in ", "the forests of"), ("in ", "the north of"))
    )
    return Value(f"{text} {region}", region, lead)


def _count(draw: Draw, template: str) -> Value:
    form = draw.below(4)
    if form == 0:
        word = draw.entity(template, words.NUMBER_WORDS)
        return Value(word, word)
    number = draw.number(template, 13, 990)
    if form == 1:
        return Value(f"about {number}", str(number))
    return Value(str(number), str(number))


def _length(draw: Draw, template: str) -> Value:
    number = str(draw.number(template, 12, 400))
    if draw.chance(0.3):
        number = f"{number}.{1 + draw.below(9)}"
    return Value(f"{number} {draw.pick(('metres', 'feet', 'yards'))}", number)


def _cost(draw: Draw, template: str) -> Value:
    number = draw.number(template, 2, 95)
    form = draw.below(3)
    if form == 0:
        return Value(f"£{number},000", f"{number},000")
    if form == 1:
        return Value(f"{number} million {draw.pick(words.CURRENCIES)}", f"{number} million")
    return Value(f"{number},500 {draw.pick(words.CURRENCIES)}", f"{number},500")


def _colour(draw: Draw, template: str) -> Value:
    colour = draw.entity(template, words.COLOURS)
    form = draw.below(3)
    if form == 0:
        return Value(f"{draw.pick(words.SHADES)} {colour}", colour)
    if form == 1:
        text = f"{colour} and {_another(draw, template, words.COLOURS, colour)}"
        return Value(text, text)
    return Value(colour, colour)


def _material(draw: Draw, template: str) -> Value:
    material = draw.entity(template, words.MATERIALS)
    if draw.chance(0.4):
        material = f"{material} and {_another(draw, template, words.MATERIALS, material)}"
    return Value(material, material)


def _another(draw: Draw, template: str, pool: tuple[str, ...], than: str) -> str:
    while (entity := draw.entity(template, pool)) == than:
        pass
    return entity


def _animal(draw: Draw, template: str) -> Value:
    animal = draw.entity(template, words.ANIMALS)
    colour = draw.pick(words.COLOURS)
    article = "an" if colour[0] in "aeiou" else "a"
    return Value(f"{article} {colour} {animal}", animal)


def _reason(draw: Draw, template: str) -> Value:
    text = f"{draw.entity(template, words.CAUSES)} {draw.pick(words.EFFECTS)}"
    return Value(text, text)


RELATIONS: dict[str, Relation] = {
    "founder": Relation(
        _person,
        (
            "{S} was founded by {a}.",
            "The founder of {s} was {a}, a rich merchant.",
            "It was {a} who founded {s}.",
            "{a} founded the {n} after a long journey.",
            "The {n} was founded by {a} and some friends.",
        ),
        ("Who founded {s}?", "Who was the founder of {s}?", "By whom was {s} founded?"),
    ),
    "designer": Relation(
        _person,
        (
            "The main hall of {s} was designed by {a}.",
            "An architect called {a} designed the main hall of {s}.",
            "Its main hall was designed by {a}, an architect.",
            "{a} designed the main hall.",
        ),
        ("Who designed the main hall of {s}?", "Which architect designed the main hall of {s}?", "By whom was the main hall of {s} designed?"),
    ),
    "opened": Relation(
        _date,
        (
            "{S} opened its doors {a}.",
            "The gates of {s} were first opened {a}.",
            "It first opened {a}, to great applause.",
            "The {n} was opened {a} by the mayor.",
        ),
        ("When did {s} open?", "When was {s} first opened?", "In which year did {s} open its doors?"),
    ),
    "fire": Relation(
        _date,
        (
            "A fire destroyed the tower of {s} {a}.",
            "{S} lost its tower to a fire {a}.",
            "A fire broke out {a} and destroyed the tower.",
            "The tower burned down {a} in a great fire.",
        ),
        ("When did the tower of {s} burn down?", "When did {s} lose its tower to a fire?", "In which year did a fire destroy the tower of {s}?"),
    ),
    "place": Relation(
        _where,
        (
            "{S} stands {a}.",
            "Visitors find {s} {a}.",
            "It lies {a}, far from the railway.",
            "The {n} stands {a}, beside a small lake.",
        ),
        ("Where does {s} stand?", "Where is {s}?", "In what place can visitors find {s}?"),
    ),
    "staff": Relation(
        _count,
        (
            "At {s}, {a} people are employed.",
            "{S} gives work to {a} people.",
            "It employs {a} people all year round.",
            "The {n} has a staff of {a} people.",
        ),
        ("How many people work at {s}?", "How many people does {s} employ?", "What is the number of people employed at {s}?"),
    ),
    "length": Relation(
        _length,
        (
            "The front of {s} is {a} long.",
            "{S} has a front {a} long.",
            "Its front measures {a} from end to end.",
            "From end to end the front measures {a}.",
        ),
        ("How long is the front of {s}?", "What is the length of the front of {s}?", "What does the front of {s} measure?"),
    ),
    "cost": Relation(
        _cost,
        (
            "Building {s} cost {a}.",
            "The city paid {a} for {s}.",
            "In the end the city had to pay {a}.",
            "The {n} cost {a}, much less than planned.",
        ),
        ("How much did {s} cost?", "How much was paid for {s}?", "What did the city pay for {s}?"),
    ),
    "colour": Relation(
        _colour,
        (
            "The walls of {s} are painted {a}.",
            "{S} is known for its {a} walls.",
            "Its walls were painted {a} by local children.",
            "Painted {a}, the walls can be seen from afar.",
        ),
        ("What colour are the walls of {s}?", "Which colour do the walls of {s} have?", "In what colour are the walls of {s} painted?"),
    ),
    "material": Relation(
        _material,
        (
            "The roof of {s} is made of {a}.",
            "{S} has a roof made of {a}.",
            "Its roof was built from {a} in three months.",
            "The builders used much {a} for the roof.",
        ),
        ("What is the roof of {s} made of?", "From which material was the roof of {s} built?", "What was used to build the roof of {s}?"),
    ),
    "emblem": Relation(
        _animal,
        (
            "The emblem of {s} shows {a}.",
            "{S} has {a} as its emblem.",
            "Its emblem is {a} under a crown.",
            "Above the door one sees {a}, the emblem of the {n}.",
        ),
        ("What does the emblem of {s} show?", "What is the emblem of {s}?", "Which animal is the emblem of {s}?"),
    ),
    "reason": Relation(
        _reason,
        (
            "{S} was closed for a year because {a}.",
            "Because {a}, {s} had to close for a while.",
            "It was closed for some weeks because {a}.",
            "The {n} once had to close because {a}.",
        ),
        ("Why was {s} closed?", "Why did {s} have to close?", "For what reason was {s} closed?"),
    ),
}  # fmt: skip

FILLERS = (
    "Many families come at the weekend.",
    "School classes are welcome in the morning.",
    "A small shop sells maps and postcards.",
    "There is a quiet café behind the main building.",
    "Most guests arrive by train or by bicycle.",
    "The neighbours are proud of it.",
    "Concerts take place in the courtyard.",
    "Nobody knows how old the cellar is.",
)


def institution(draw: Draw) -> Institution:
    """An institution whose name this split may use."""
    noun = draw.pick(words.INSTITUTIONS)
    return Institution(f"{words.place(draw, noun)} {noun}", noun.lower())


def tell(draw: Draw, subject: Institution, kind: str, *, named: bool = False) -> Fact:
    """A new fact of this kind about the institution. named: in a sentence with its name."""
    relation = RELATIONS[kind]
    template = draw.pick(relation.sentences[:2] if named else relation.sentences)
    value = relation.value(draw, template)
    sentence, value, start = state(subject, template, value)
    return Fact(sentence, ask(draw, subject, kind), value, start)


def state(subject: Institution, template: str, value: Value) -> tuple[str, Value, int]:
    """The sentence that a relation's template makes of this answer, the answer as it is in the sentence, and where it starts."""
    before, after = template.split("{a}")
    lead = fill(subject, before) + value.lead
    text, short = value.text, value.short
    if not lead:
        text, short = text[0].upper() + text[1:], short[0].upper() + short[1:] if text.startswith(short) else short
    return lead + text + fill(subject, after), Value(text, short, value.lead), len(lead)


def ask(draw: Draw, subject: Institution, kind: str) -> str:
    """A question for facts of this kind."""
    return fill(subject, draw.pick(RELATIONS[kind].questions))


def fill(subject: Institution, text: str) -> str:
    """The text with the institution in place of {S}, {s} and {n}."""
    return text.replace("{S}", f"The {subject.name}").replace("{s}", f"the {subject.name}").replace("{n}", subject.noun)
