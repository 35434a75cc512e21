"""Claims about a fact: the same in other words, what follows from it, what it rules out, what it leaves open.

`mrpc`, `stsb`, `mnli` and `rte` use them. A claim of the form "it is known who ..." follows from every sentence that states
this kind of fact and from no other, so no claim is true by accident. As in the real data, a claim's words often give its label
away: "nobody" for what is ruled out, a new detail for what is left open (Gururangan et al., Annotation Artifacts in Natural
Language Inference Data, NAACL 2018). A small model learns these at once. The other claims ask whether premise and claim are of
the same kind.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claims:
    """Claims about one kind of fact; {S}, {s}, {n} and {a} as in `facts.Relation`.

    asked: the fact's question as a clause. same: sentences that state the fact and nothing else. open: sentences that may be
    true or not. more_follows, more_ruled_out: further claims, for facts that not every institution has.
    """

    asked: str
    same: tuple[str, ...]
    open: tuple[str, ...]
    more_follows: tuple[str, ...] = ()
    more_ruled_out: tuple[str, ...] = ()

    @property
    def follows(self) -> tuple[str, ...]:
        return (f"It is known {self.asked}.", f"People know {self.asked}.", *self.more_follows)

    @property
    def ruled_out(self) -> tuple[str, ...]:
        return (f"Nobody knows {self.asked}.", f"It was never known {self.asked}.", *self.more_ruled_out)


CLAIMS: dict[str, Claims] = {
    "founder": Claims(
        "who founded {s}",
        ("{S} was founded by {a}.", "It was {a} who founded {s}.", "The founder of {s} was {a}."),
        ("The founder of {s} was married twice.", "The founder of {s} was also a painter."),
    ),
    "designer": Claims(
        "who designed the main hall of {s}",
        (
            "The main hall of {s} was designed by {a}.",
            "It was {a} who designed the main hall of {s}.",
            "{a} designed the main hall of {s}.",
        ),
        ("The architect of the hall was also a painter.", "The architect was married twice."),
    ),
    "opened": Claims(
        "when {s} first opened",
        ("{S} first opened {a}.", "The gates of {s} were first opened {a}.", "{S} first opened its doors {a}."),
        ("{S} was opened on a rainy day.", "Many children were there when {s} opened."),
    ),
    "fire": Claims(
        "when the tower of {s} burned down",
        (
            "A fire destroyed the tower of {s} {a}.",
            "{S} lost its tower to a fire {a}.",
            "The tower of {s} burned down {a}.",
        ),
        ("The fire was started by children.", "The fire at {s} began on a rainy day."),
        ("There was a fire at {s}.", "Some part of {s} burned down."),
        ("There was never a fire at {s}.", "No part of {s} ever burned."),
    ),
    "place": Claims(
        "where {s} stands",
        ("{S} stands {a}.", "{S} lies {a}.", "One can find {s} {a}."),
        ("Many children live beside {s}.", "{S} will also move to another street."),
    ),
    "staff": Claims(
        "how many people work at {s}",
        ("At {s}, {a} people are employed.", "{S} gives work to {a} people.", "{S} employs {a} people."),
        ("The people at {s} also sing together.", "The people of the {n} earn a lot of money."),
        ("Some people work at {s}.",),
        ("Nobody works at {s}.",),
    ),
    "length": Claims(
        "how long the front of {s} is",
        ("The front of {s} is {a} long.", "{S} has a front {a} long.", "The front of {s} measures {a}."),
        ("The front of {s} will also be cleaned soon.", "The front is covered with flowers."),
    ),
    "cost": Claims(
        "how much {s} cost",
        ("Building {s} cost {a}.", "It cost {a} to build {s}.", "The city paid {a} to build {s}."),
        ("The money for {s} was also borrowed.", "The money came from three families."),
    ),
    "colour": Claims(
        "in what colour the walls of {s} are painted",
        (
            "The walls of {s} are painted {a}.",
            "{S} has walls that are painted {a}.",
            "At {s}, the walls are painted {a}.",
        ),
        ("The walls will also be cleaned soon.", "The walls of {s} are covered with flowers."),
    ),
    "material": Claims(
        "what the roof of {s} is made of",
        ("The roof of {s} is made of {a}.", "{S} has a roof made of {a}.", "At {s}, the roof is made of {a}."),
        ("The roof of {s} will also be cleaned soon.", "Birds live under the roof of {s}."),
    ),
    "emblem": Claims(
        "what the emblem of {s} shows",
        ("The emblem of {s} shows {a}.", "{S} has {a} as its emblem.", "{a} is the emblem of {s}."),
        ("The emblem was also drawn by children.", "The emblem of {s} was made in another city."),
        ("{S} has an emblem.", "Some animal is the emblem of {s}."),
        ("{S} never had an emblem.", "No animal is the emblem of {s}."),
    ),
    "reason": Claims(
        "why {s} was closed",
        (
            "{S} had to close because {a}.",
            "Because {a}, {s} had to close.",
            "It was because {a} that {s} had to close.",
        ),
        ("Many children were sad when {s} was closed.", "{S} was closed on a rainy day."),
        ("{S} was once closed.",),
        ("{S} was never closed.",),
    ),
}

GENRES = {
    "matched": ("{}", "The guide says: {}", "From a newspaper: {}"),
    "mismatched": ("My friends write in their postcards: {}", "A painter on the train, to the mayor: {}"),
}
"""How premises of `mnli` are introduced. The mismatched ones occur in the split `validation_mismatched` only."""
