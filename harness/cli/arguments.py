"""What several verbs' arguments have in common."""

from __future__ import annotations

import argparse
import csv
import io
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from harness.errors import QuantboardError, did_you_mean

Verb = Callable[[argparse.Namespace], int]
"""Runs a verb with its parsed arguments and returns the exit code."""

Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"
"""Where verbs are added: what `ArgumentParser.add_subparsers` returns."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest known word, as all other faults of input are said."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        if unknown := re.fullmatch(r"(\S+): invalid choice: '(.*)' \(choose from (.*)\)", message, re.DOTALL):
            option, word, known = unknown.groups()
            names = [name.strip("'") for name in known.split(", ")]
            message = f"{option}: unknown value '{word}'{did_you_mean(word, names)}"
        message = message.replace("the following arguments are required:", "this is missing:")
        raise QuantboardError(f"{self.prog}: {message} ({self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; but what is left over is a fault of the verb, which knows the options that are near."""
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
            word = rest[0].partition("=")[0]
            near = did_you_mean(word, known) if word.startswith("-") else ""
            self.error(f"'{word}' is not known here{near if 'did you mean' in near else ''}")
        return found, rest


def add_verb(verbs: Verbs, name: str, verb: Verb, text: str) -> Parser:
    """A verb with `--json`, which every verb has."""
    parser = verbs.add_parser(name, help=text, description=text)
    parser.set_defaults(verb=verb)
    parser.add_argument("--json", action="store_true", help="print JSON only, with unrounded figures")
    return parser


def add_suite(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suite", metavar="SUITE", help="name of a suite, such as sample, or path of a suite file")


def add_data(parser: argparse.ArgumentParser, default: str = "the hub") -> None:
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=_folder,
        help="folder with the data, or 'sample' (generated, small), or 'real' (the hub, never the sample);"
        f" default: {default}",
    )


def add_rows(parser: argparse._ActionsContainer) -> None:
    """How rows and outputs of models are read: `--labels`, `--skip-bad-rows`."""
    parser.add_argument(
        "--labels",
        type=_names,
        default=[],
        metavar="A,B",
        help="names of the classes in the order of the model's outputs, where it calls them LABEL_0, LABEL_1 ...",
    )
    parser.add_argument(
        "--skip-bad-rows", action="store_true", help="leave out rows that cannot be used, and count them"
    )


def add_columns(parser: argparse._ActionsContainer) -> None:
    """How a labelled file is read: `--text`, `--text-pair`, `--label`, `--task-kind`, and what `add_rows` adds."""
    for name, what in (("text", "text"), ("text-pair", "second text"), ("label", "class or the number")):
        parser.add_argument(f"--{name}", metavar="COLUMN", help=f"the column of the {what}; default: guessed")
    parser.add_argument(
        "--task-kind", metavar="KIND", help="classification, pair, regression ...; default: the model's head"
    )
    add_rows(parser)


def suite_name(text: str) -> str:
    """An argument's type: a name that a suite may have."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", text):
        raise argparse.ArgumentTypeError("use small letters, digits, '.', '_' and '-' only")
    return text


def share(text: str) -> float:
    """An argument's type: a number above 0 and at most 1."""
    value = positive_number(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"'{text}' is more than 1; give a share such as 0.99")
    return value


def _names(text: str) -> list[str]:
    """Names between commas, as the csv module reads them."""
    names = [name.strip() for name in next(csv.reader([text], skipinitialspace=True), [])]
    if len(names) < 2 or not all(names) or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of different names; write A,B,C")
    return names


def csv_line(names: Iterable[str]) -> str:
    """Names as `--labels` takes them."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(names)
    return line.getvalue()


def add_executor(parser: argparse._ActionsContainer) -> None:
    """Where cells run: `--executor`, `--address`, `--artefacts`."""
    parser.add_argument(
        "--executor",
        choices=["local", "ray"],
        default="local",
        help="run cells here (local), or on the nodes of a Ray cluster that runs already (ray; docs/cluster.md)",
    )
    parser.add_argument(
        "--address", metavar="HOST:PORT", help="of the head of the Ray cluster; default: the cluster of this machine"
    )
    parser.add_argument(
        "--artefacts",
        metavar="URL",
        type=_place,
        help="folder or fsspec URL (s3://..., gs://...) in which nodes share checkpoints, ONNX files, tokens and scores;"
        " default: each makes its own",
    )


def _place(text: str) -> str:
    """A URL as it is, or a folder in full: nodes have other working folders."""
    return text if "://" in text else str(Path(_folder(text)).expanduser().resolve())


def add_tasks(parser: argparse._ActionsContainer) -> None:
    parser.add_argument("--task", action="append", default=[], metavar="NAME", help="only this task (may be repeated)")


def add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder of the records; default: results/ of the checkout, else of the working folder",
    )


def whole(text: str) -> int:
    """A whole number. Raises ArgumentTypeError, as the other types here do."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def positive(text: str) -> int:
    """A whole number of at least 1."""
    value = whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _folder(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty; name a folder")
    return text


def data_words(data: str | None) -> list[str]:
    """`--data` for a command that others can repeat. A folder becomes DIR: its path means nothing on another machine."""
    if not data:
        return []
    return ["--data", data if data in ("sample", "real") else "DIR"]


def positive_number(text: str) -> float:
    """An argument's type: a finite number above 0."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return value
