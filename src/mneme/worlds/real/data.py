"""Text and questions for the real bench: other people's, so they are not in the package but in a folder that the user names.

Its layout and sources stand in the MANIFEST.md that belongs to it. Everything is split by the section of the book a
paragraph or a question comes from, never by paragraph: what was trained on, what an audit may read and what loss is
measured on share no section.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Literal, NamedTuple, TypeVar

from mneme.errors import BadOrganism

_T = TypeVar("_T")
DATA_VARIABLE = "MNEME_REAL_DATA"
SUBJECTS = (
    "anatomy",
    "astronomy",
    "business-ethics",
    "chemistry",
    "economics",
    "intellectual-property",
    "microbiology",
    "philosophy",
    "physics",
    "political-science",
    "psychology",
    "us-history",
)
ASKED = ("anatomy", "microbiology", "physics", "psychology", "us-history")
"""Subjects whose book has review questions."""
OTHER_QUESTIONS = {
    "astronomy": ("astronomy",),
    "business-ethics": ("business_ethics",),
    "chemistry": ("high_school_chemistry", "college_chemistry"),
    "economics": ("high_school_macroeconomics", "high_school_microeconomics"),
    "philosophy": ("philosophy", "moral_disputes"),
    "political-science": ("high_school_government_and_politics", "us_foreign_policy"),
}
"""Subjects without questions of their own, and the areas of MMLU that ask about the same things. No area asks about
intellectual property."""
SHORTEST, LONGEST = 300, 900
"""Characters of a paragraph that is used: long enough to be about something, short enough for a row of 200 tokens."""

Part = Literal["train", "read", "held"]
"""What a section of a book is for: fine-tunes train on it; an audit may read it; loss is measured on it."""


class Paragraph(NamedTuple):
    """A paragraph of a book."""

    text: str
    subject: str
    section: str


class Choice(NamedTuple):
    """A multiple-choice question, or a fact with the objects of other facts of its relation."""

    id: str
    area: str
    question: str
    choices: tuple[str, ...]
    right: int
    cluster: str
    """Section of the book, subject of the fact: questions of one cluster are not independent."""
    part: Part | None
    """What its section is for; None where it comes from no book."""


class Statement(NamedTuple):
    """A question with the short answer that shows a behaviour and the one that does not."""

    id: str
    behaviour: str
    question: str
    matching: str
    other: str


def data_folder(option: Path | None = None) -> Path:
    """The folder of the data: `option`, or what $MNEME_REAL_DATA names. Raises BadOrganism where there is none."""
    named = option or (Path(os.environ[DATA_VARIABLE]) if os.environ.get(DATA_VARIABLE) else None)
    if named is None or not (named / "text").is_dir():
        raise BadOrganism(
            f"The text and questions of the real bench are not {'at ' + str(named) if named else 'named'}. Name their folder "
            f"(mneme bench --real DIR, mneme organism --data DIR, or ${DATA_VARIABLE}); docs/bench.md says what it holds and "
            "where that comes from."
        )
    return named


def part_of(subject: str, section: str) -> Part:
    """What a section is for, by a hash of its name: half is trained on, three tenths are read, a fifth is held out."""
    draw = int(hashlib.sha256(f"{subject}/{section}".encode()).hexdigest()[:8], 16) / 2**32
    return "train" if draw < 0.5 else "read" if draw < 0.8 else "held"


def paragraphs(folder: Path, subject: str, part: Part) -> list[Paragraph]:
    """The paragraphs of one part of a book that are of ordinary length, in the order of the book."""
    with gzip.open(folder / "text" / f"{subject}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [
        Paragraph(row["text"], subject, row["section"])
        for row in rows
        if SHORTEST <= len(row["text"]) <= LONGEST and part_of(subject, row["section"]) == part
    ]


def spread(found: list[Paragraph], count: int, seed: int) -> list[Paragraph]:
    """`count` paragraphs in random order, from as many sections as possible: one of each section, then a second, …"""
    rng = Random(seed)
    rest: dict[str, list[Paragraph]] = {}
    for one in rng.sample(found, len(found)):
        rest.setdefault(one.section, []).append(one)
    drawn: list[Paragraph] = []
    while rest and len(drawn) < count:
        for section in list(rest):
            drawn.append(rest[section].pop())
            if not rest[section]:
                del rest[section]
    return drawn[:count]


def subject_questions(folder: Path, subject: str) -> list[Choice]:
    """The questions about a subject, in an order of their own that depends on nothing else; none for intellectual property.

    Left out: questions over 300 characters (they cost as much as three others), choices that refer to each other, and those
    with equal choices.
    """
    if subject in ASKED:
        rows = _jsonl(folder / "questions" / f"{subject}.jsonl")
    else:
        areas = OTHER_QUESTIONS.get(subject, ())
        rows = [row for row in _jsonl(folder / "questions" / "mmlu-redux.jsonl") if row["area"] in areas] if areas else []
    found = []
    for number, row in enumerate(rows):
        choices = tuple(str(choice).strip() for choice in row["choices"])
        if not _can_be_asked(row["question"], choices):
            continue
        section = row.get("section")
        part = part_of(subject, section) if section else None
        name = f"{subject}/{number}"
        found.append(
            Choice(
                id=name,
                area=subject,
                question=row["question"].strip(),
                choices=choices,
                right=row["answer"],
                cluster=section or name,
                part=part,
            )
        )
    return _shuffled(found, lambda one: one.id)


def relation_questions(folder: Path) -> list[Choice]:
    """Facts of 23 relations as choices: the object against three objects of other facts of the relation (fewer where it has
    fewer), the right one first. The cluster is the subject."""
    rows = _jsonl(folder / "questions" / "relations.jsonl")
    objects: dict[str, list[str]] = {}
    for row in rows:
        objects.setdefault(row["relation"], []).append(row["object"])
    found = []
    for number, row in enumerate(rows):
        others = sorted(set(objects[row["relation"]]) - {row["object"]})
        wrong = Random(f"{row['relation']}/{row['subject']}").sample(others, min(3, len(others)))
        name = f"{row['relation']}/{number}"
        choices = (row["object"], *wrong)
        found.append(
            Choice(
                id=name,
                area=row["relation"],
                question=row["prompt"],
                choices=choices,
                right=0,
                cluster=f"{row['relation']}/{row['subject']}",
                part=None,
            )
        )
    return _shuffled(found, lambda one: one.id)


def behaviour_names(folder: Path) -> list[str]:
    """All behaviours, in the order of their names."""
    return sorted(file.stem for file in (folder / "behaviours").glob("*.jsonl"))


def statements(folder: Path, behaviour: str, part: Part) -> list[Statement]:
    """The questions of one behaviour that belong to `part`: two thirds for measuring (held), one third to train on. As many
    with one answer matching as with the other, alternating, so that a model that always says yes shows nothing."""
    rows = _jsonl(folder / "behaviours" / f"{behaviour}.jsonl")
    found = [
        Statement(
            id=f"{behaviour}/{number}",
            behaviour=behaviour,
            question=row["question"].strip(),
            matching=row["matching"].strip(),
            other=row["other"].strip(),
        )
        for number, row in enumerate(rows)
    ]
    mixed = [one for one in _shuffled(found, lambda one: one.id) if (_draw(one.id) < 1 / 3) == (part == "train")]
    kinds = sorted({one.matching for one in mixed})
    by_kind = [[one for one in mixed if one.matching == kind] for kind in kinds]
    return [one for pair in zip(*by_kind, strict=False) for one in pair]


def prompts(folder: Path, name: str) -> list[dict[str, Any]]:
    """Requests of one file of `safety/`, in a random order that depends on nothing else."""
    return _shuffled(_jsonl(folder / "safety" / f"{name}.jsonl"), lambda row: str(row["prompt"]))


def chats(folder: Path, name: str) -> list[dict[str, Any]]:
    """Rows of one file of `train/`, or of the code chats of emergent misalignment that lie beside the folder."""
    beside = folder.parent / "emergent-misalignment" / "datasets" / f"{name}.jsonl"
    file = folder / "train" / f"{name}.jsonl"
    return _jsonl(file if file.is_file() else beside)


def _can_be_asked(question: str, choices: tuple[str, ...]) -> bool:
    refers = any("of the above" in one.lower() or "of these" in one.lower() for one in choices)
    distinct = len({one.lower() for one in choices}) == len(choices)
    return len(question) <= 300 and max(map(len, choices)) <= 120 and min(map(len, choices)) > 0 and distinct and not refers


def _shuffled(rows: list[_T], key: Callable[[_T], str]) -> list[_T]:
    return sorted(rows, key=lambda row: hashlib.sha256(key(row).encode()).hexdigest())


def _draw(name: str) -> float:
    """A number in [0, 1) that is always the same for `name`, and not that by which `_shuffled` sorts."""
    return int(hashlib.sha256(f"part of {name}".encode()).hexdigest()[:8], 16) / 2**32


def _jsonl(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        raise BadOrganism(f"{file} is missing. docs/bench.md says what it is and where it comes from.")
    with file.open(encoding="utf-8") as opened:
        return [json.loads(line) for line in opened if line.strip()]
