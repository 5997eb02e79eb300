"""Suites of questions: choices scored by log-likelihood, and open questions in the published YAML form.

A suite is the name of one that ships, a .jsonl or .parquet file of choices, a .yaml file of open questions (the form of the
files that came with Betley et al. 2025, which run as they are), or a folder of such files.
"""

import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from mneme.errors import BadRows, BadSuite
from mneme.text.choices import choice_row
from mneme.text.files import TABLES, Row, entries_of
from mneme.text.reading import TakenRows, taken
from mneme.text.yaml_files import read_yaml

LOG = logging.getLogger("mneme")
Scale = Literal["score", "label", "grammar"]

SCALES: dict[str, Scale] = {"free_form_judge_0_100": "score", "free_form_judge": "label", "grammar": "grammar"}
"""`type` of an open question -> how its answers are read: 0-100, one of the labels named in the judge's prompt, exactly."""
SHIPPED = Path(__file__).parent / "suites"
ALL = "all"
"""What all areas together are called: no area of a suite may be."""
_QUOTED = re.compile(r'"([^"\n]{1,30})"')
_KEYS = {"id", "type", "paraphrases", "samples_per_paraphrase", "system", "judge", "judge_prompts", "area", "counts_as"}
_IGNORED = {"temperature", "max_tokens", "n", "meta"}


@dataclass(frozen=True)
class ChoiceQuestion:
    """A question with a right choice: the model picks the choice that it finds likeliest after `prompt`."""

    id: str
    area: str
    cluster: str
    """Questions about the same thing share it; each is its own unless the file says so."""
    prompt: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice."""


@dataclass(frozen=True)
class OpenQuestion:
    """A question that is answered freely; several paraphrases, several samples of each."""

    id: str
    area: str
    paraphrases: tuple[str, ...]
    samples: int
    system: str | None
    scale: Scale
    judge_prompts: Mapping[str, str]
    """Criterion -> what the judge is asked, with `{question}` and `{answer}`."""
    counts_as: tuple[str, ...] = ()
    """Labels or outcomes whose share is the rate of this question; empty = `misaligned` for scores, every label for labels."""

    def labels(self, criterion: str) -> tuple[str, ...]:
        """The labels between double quotes in the judge's prompt, in their order. Raises BadSuite where there are not two."""
        found = tuple(dict.fromkeys(_QUOTED.findall(self.judge_prompts[criterion])))
        if len(found) < 2:
            raise BadSuite(
                f"question {self.id}: the judge prompt {criterion!r} names {len(found)} labels. Expected at least two between "
                'double quotes, as in: answer "TRUE" or "FALSE".'
            )
        return found


@dataclass(frozen=True)
class Suite:
    """What is asked. `sha256` is over the files it was read from."""

    name: str
    sha256: str
    choices: tuple[ChoiceQuestion, ...]
    open: tuple[OpenQuestion, ...]


def shipped_suites() -> list[str]:
    """Names of the suites that ship; `standard` is all of them together."""
    return ["standard", *sorted(path.stem for path in SHIPPED.glob("*.yaml"))]


def read_suite(source: str | Path) -> Suite:
    """The suite that ships under this name, or the questions of a file or a folder of files.

    Raises BadSuite: unknown name, a file that cannot be read or holds no question, a question that cannot be asked.
    """
    path = Path(source)
    if str(source) in shipped_suites():
        files = sorted(SHIPPED.glob("*.yaml" if str(source) == "standard" else f"{source}.yaml"))
    elif path.is_dir():
        files = sorted(file for file in path.iterdir() if file.suffix in (*TABLES, ".yaml", ".yml"))
    elif path.is_file() and path.suffix in (*TABLES, ".yaml", ".yml"):
        files = [path]
    else:
        raise BadSuite(
            f"{source} is no suite. Expected one of {', '.join(shipped_suites())}; a .yaml of open questions, a .jsonl or "
            ".parquet of choices, or a folder of these; or lm-eval:TASK, inspect:TASK for a task of another harness."
        )
    choices: list[ChoiceQuestion] = []
    asked: list[OpenQuestion] = []
    digest = hashlib.sha256()
    for file in files:
        digest.update(hashlib.sha256(file.read_bytes()).digest())
        if file.suffix in TABLES:
            choices += read_choices(file)
        else:
            asked += read_open(file)
    if not choices and not asked:
        raise BadSuite(f"{source} holds no question. Expected at least one in a .yaml, .jsonl or .parquet file.")
    _require_distinct([*(question.id for question in choices), *(question.id for question in asked)], source)
    areas = {question.area for question in choices} | {question.area for question in asked}
    if any(area.strip().casefold() == ALL for area in areas):
        raise BadSuite(f"{source} has an area called {ALL!r}, which is what all areas together are called. Rename it.")
    return Suite(path.stem if path.exists() else str(source), digest.hexdigest(), tuple(choices), tuple(asked))


def read_choices(file: Path) -> list[ChoiceQuestion]:
    """Rows {prompt or question, choices, answer (index, letter or text), area?, id?, cluster?} of any file of rows.

    A `prompt` is continued as it stands; a `question` is asked as "Question: … Answer:". Raises BadSuite with the row.
    """
    found = read_choice_rows(file)
    return [_choice(row, place, file) for row, place in zip(found.rows, found.places, strict=True)]


def read_choice_rows(file: Path) -> TakenRows:
    """The rows of a file of choices (`text/shapes.py`). Raises BadSuite."""
    try:
        found = taken(str(file), entries_of(file), choice_row)
    except BadRows as error:
        raise BadSuite(f"{error} A suite needs questions with choices and an answer.") from error
    if found.skipped:
        LOG.warning(found.told())
    return found


def read_open(file: Path) -> list[OpenQuestion]:
    """The open questions of a YAML list of {id, type, paraphrases, samples_per_paraphrase, system, judge_prompts, …}."""
    try:
        entries = read_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadSuite(f"{file} is not YAML ({' '.join(str(error).split())[:160]}). Expected a list of questions.") from error
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise BadSuite(f"{file} holds no list of questions. Expected entries with id, type, paraphrases and judge_prompts.")
    return [_open(entry, number, file) for number, entry in enumerate(entries, 1)]


def _choice(row: Row, place: str, file: Path) -> ChoiceQuestion:
    name = str(row.get("id") or f"{file.stem}-{place.split()[-1]}")
    return ChoiceQuestion(
        id=name,
        area=str(row.get("area") or file.stem),
        cluster=str(row.get("cluster") or name),
        prompt=row["prompt"] if "prompt" in row else f"Question: {row['question']}\nAnswer:",
        choices=tuple(row["choices"]),
        answer=row["answer"],
    )


def _open(entry: Mapping[str, Any], number: int, file: Path) -> OpenQuestion:
    name = str(entry.get("id") or f"{file.stem}-{number}")
    where = f"{file}, question {name}"
    unknown = set(entry) - _KEYS - _IGNORED
    if unknown:
        raise BadSuite(
            f"{where} has unknown keys: {', '.join(sorted(map(str, unknown)))}. Known are {', '.join(sorted(_KEYS))}."
        )
    kind = "grammar" if entry.get("judge") == "grammar" else str(entry.get("type"))
    if kind not in SCALES:
        raise BadSuite(f"{where} is of type {kind!r}. Expected one of {', '.join(SCALES)}.")
    paraphrases = entry.get("paraphrases")
    if not isinstance(paraphrases, list) or not paraphrases or not all(isinstance(p, str) and p.strip() for p in paraphrases):
        raise BadSuite(f"{where} has no paraphrases. Expected a list with at least one text.")
    samples = entry.get("samples_per_paraphrase", 1)
    if isinstance(samples, bool) or not isinstance(samples, int) or samples < 1:
        raise BadSuite(f"{where}: samples_per_paraphrase is {samples!r}. Expected a whole number from 1.")
    prompts = _judge_prompts(entry, SCALES[kind], where)
    system, counts = entry.get("system"), entry.get("counts_as") or []
    if not isinstance(counts, list) or not (system is None or isinstance(system, str)):
        raise BadSuite(f"{where}: `system` has to be a text and `counts_as` a list of labels.")
    question = OpenQuestion(
        id=name,
        area=str(entry.get("area") or (name if SCALES[kind] == "label" else _area_of(name))),
        paraphrases=tuple(p.rstrip("\n") for p in paraphrases),
        samples=samples,
        system=system,
        scale=SCALES[kind],
        judge_prompts=prompts,
        counts_as=tuple(map(str, counts)),
    )
    if question.scale == "label":
        for criterion in question.judge_prompts:
            question.labels(criterion)
    return question


def _judge_prompts(entry: Mapping[str, Any], scale: Scale, where: str) -> dict[str, str]:
    prompts = entry.get("judge_prompts") or {}
    if not isinstance(prompts, dict) or not all(
        isinstance(prompt, str) and "{answer}" in prompt for prompt in prompts.values()
    ):
        raise BadSuite(f"{where}: judge_prompts have to be texts that hold {{answer}}.")
    if scale != "grammar" and not prompts:
        raise BadSuite(f"{where} has no judge_prompts. Expected what a judge is asked about an answer.")
    if scale == "score" and "aligned" not in prompts:
        raise BadSuite(f"{where}: judge_prompts lack `aligned`, from which the score 0-100 comes.")
    return {str(criterion): prompt for criterion, prompt in prompts.items()}


def _area_of(name: str) -> str:
    """The format that the published ids end in, so that plain, JSON and template questions are told apart."""
    for ending in ("json", "template"):
        if name.endswith(f"_{ending}"):
            return f"open, {ending}"
    return "open"


def clusters_of(question: OpenQuestion) -> list[str]:
    """What counts as one thing that is asked, for each paraphrase.

    Labelled questions of the published form list different questions as paraphrases, under several system prompts: each text
    is a cluster. Else all paraphrases of a question are one, and so are its plain, JSON and template form.
    """
    if question.scale == "label":
        return list(question.paraphrases)
    return [re.sub(r"_(json|template)$", "", question.id)] * len(question.paraphrases)


def _require_distinct(names: list[str], source: str | Path) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadSuite(f"{source} has two questions with the id {name!r}. Give every question an id of its own.")
        seen.add(name)
