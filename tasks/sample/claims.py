"""What follows from a fact, what it rules out and what it leaves open: the hypotheses of `mnli` and `rte`.

As in the real data, a claim's own words often give its label away ("never" for what is ruled out, a new detail for what is
left open: Gururangan et al., Annotation Artifacts in Natural Language Inference Data, NAACL 2018). That much a small model
learns at once; the rest asks whether premise and claim are of one kind.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Claims:
    """About a kind of fact; {S}, {s} and {n} as in `facts.Relation`."""

    follows: tuple[str, ...]
    ruled_out: tuple[str, ...]
    open: tuple[str, ...]


CLAIMS: dict[str, Claims] = {
    "founder": Claims(
        ("Somebody founded {s}.", "{S} has some founder."),
        ("Nobody ever founded {s}.", "{S} never had a founder."),
        ("The founder of {s} was married twice.", "The founder of {s} was also a painter."),
    ),
    "designer": Claims(
        ("Somebody designed the main hall.", "The hall of {s} has some architect."),
        ("Nobody ever designed the hall of {s}.", "The hall never had an architect."),
        ("The architect of the hall was also a painter.", "The architect was married twice."),
    ),
    "opened": Claims(
        ("{S} was opened at some time.", "The doors of {s} were opened some day."),
        ("{S} was never opened.", "Nobody ever opened the doors of {s}."),
        ("{S} was opened on a rainy day.", "Many children were there when {s} opened."),
    ),
    "fire": Claims(
        ("There was some fire at {s}.", "Some part of {s} burned down."),
        ("There was never a fire at {s}.", "No part of {s} ever burned."),
        ("The fire was started by children.", "The fire at {s} began on a rainy day."),
    ),
    "place": Claims(
        ("{S} stands somewhere.", "One can find {s} in some place."),
        ("{S} stands nowhere.", "Nobody can ever find {s}."),
        ("Many children live beside {s}.", "{S} will also move to another street."),
    ),
    "staff": Claims(
        ("Some people work at {s}.", "{S} gives work to somebody."),
        ("Nobody works at {s}.", "{S} never employed people."),
        ("The people at {s} also sing together.", "The people of the {n} earn a lot of money."),
    ),
    "length": Claims(
        ("{S} has some length.", "Somebody measured {s}."),
        ("Nobody ever measured {s}.", "{S} was never measured."),
        ("The front of {s} will also be cleaned soon.", "The longest wall is covered with flowers."),
    ),
    "cost": Claims(
        ("Somebody paid for {s}.", "{S} cost some money."),
        ("Nobody ever paid for {s}.", "{S} never cost any money."),
        ("The money for {s} was also borrowed.", "The money came from another city."),
    ),
    "colour": Claims(
        ("The walls of {s} have some colour.", "Somebody painted the walls."),
        ("The walls of {s} were never painted.", "Nobody ever painted the walls of {s}."),
        ("The walls will also be cleaned soon.", "The walls of {s} are covered with flowers."),
    ),
    "material": Claims(
        ("{S} has some roof.", "Somebody built the roof of {s}."),
        ("{S} never had a roof.", "Nobody ever built a roof for {s}."),
        ("The roof of {s} will also be cleaned soon.", "Birds live under the roof of {s}."),
    ),
    "emblem": Claims(
        ("{S} has some emblem.", "Some animal is the emblem of {s}."),
        ("{S} never had an emblem.", "No animal is the emblem of the {n}."),
        ("The emblem was also drawn by children.", "The emblem of {s} was made in another city."),
    ),
    "reason": Claims(
        ("{S} was closed for some time.", "For some reason {s} had to close."),
        ("{S} was never closed.", "{S} never had to close."),
        ("Many children were sad when {s} was closed.", "{S} was closed on a rainy day."),
    ),
}  # fmt: skip

GENRES = {
    "matched": ("{}", "The guide says: {}", "From a newspaper: {}"),
    "mismatched": ("My friends write in their postcards: {}", "A painter on the train, to the mayor: {}"),
}
"""How premises of `mnli` are introduced; the mismatched ones occur in one split of dev only."""
