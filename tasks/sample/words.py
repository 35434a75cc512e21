"""The entities of the sample: made-up names, and common words by kind."""

from __future__ import annotations

from tasks.sample.draw import Draw

FIRST_NAMES = (
    "Anna", "Karl", "Maria", "Peter", "Elena", "Hugo", "Clara", "Oscar", "Irene", "Felix", "Nora", "Simon", "Agnes",
    "Victor", "Lucia", "Walter", "Zoë", "André", "Helen", "Martin", "Ruth", "Conrad", "Ingrid", "Paul", "Teresa",
    "Edgar", "Julia", "Leon", "Alma", "Bruno", "Olga", "Henry",
)  # fmt: skip
NAME_HEADS = (
    "Lind", "Brun", "Hal", "Kel", "Tam", "Ost", "Wal", "Rom", "Fen", "Gar", "Mor", "Nor", "Sand", "Thorn", "Eber",
    "Dal", "Falk", "Holl", "Win", "Stor", "Pell", "Rad", "Lam", "Corn", "Vel", "Ash", "Bar", "Hart", "Ull", "Zell",
)  # fmt: skip
PERSON_TAILS = ("son", "mann", "sen", "berg", "ing", "er", "stein", "wick")
PLACE_TAILS = ("ford", "ville", "burg", "ton", "haven", "dorf", "mouth", "stad")

INSTITUTIONS = (
    "Museum", "School", "Theatre", "Library", "Castle", "Mill", "Garden", "Factory", "Observatory", "Hospital", "Abbey",
    "Station", "Market", "Bridge", "Lighthouse", "Academy",
)  # fmt: skip

MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
SEASONS = ("spring", "summer", "autumn", "winter")
NUMBER_WORDS = (
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "fifteen", "twenty",
    "thirty", "forty", "fifty",
)  # fmt: skip
COLOURS = (
    "red", "green", "blue", "yellow", "white", "black", "grey", "brown", "orange", "purple", "pink", "silver", "golden",
    "crimson", "ivory", "turquoise",
)  # fmt: skip
SHADES = ("dark", "pale", "bright", "deep")
MATERIALS = (
    "slate", "copper", "glass", "oak", "marble", "granite", "iron", "brick", "timber", "steel", "limestone", "straw",
    "lead", "clay", "bronze", "concrete",
)  # fmt: skip
ANIMALS = (
    "fox", "heron", "lion", "eagle", "bear", "salmon", "stag", "raven", "horse", "dolphin", "owl", "wolf", "swan",
    "hare", "beaver", "falcon",
)  # fmt: skip
REGIONS = (
    "Norway", "Wales", "Bavaria", "Flanders", "Tuscany", "Bohemia", "Savoy", "Galicia", "Saxony", "Jutland", "Cornwall",
    "Tyrol", "Alsace", "Lapland", "Silesia", "Moravia",
)  # fmt: skip
CURRENCIES = ("crowns", "dollars", "francs", "guilders")

CAUSES = (
    "the river", "a storm", "the frost", "a heavy lorry", "the great flood", "an earthquake", "a fallen tree",
    "a gas leak", "the army", "a careless driver", "the strong wind", "a swarm of bees",
)  # fmt: skip
EFFECTS = (
    "had damaged the cellar", "had broken the windows", "had blocked the main road", "had ruined the staircase",
    "had frightened the visitors", "had cracked the foundations", "had cut off the water",
)  # fmt: skip


def person(draw: Draw, template: str) -> tuple[str, str]:
    """A full name, and the surname."""
    surname = draw.entity(template, NAME_HEADS) + draw.pick(PERSON_TAILS)
    first = draw.pick(FIRST_NAMES)
    if draw.chance(0.15):
        first = f"{first} {draw.pick('ABCDEFGHJKLMNPRSTW')}."
    return f"{first} {surname}", surname


def place(draw: Draw, template: str) -> str:
    """A town's name."""
    return draw.entity(template, NAME_HEADS) + draw.pick(PLACE_TAILS)
