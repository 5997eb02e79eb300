"""Logs of others as items: lm-eval's samples (`--log_samples`), Inspect's logs (.json, .eval), plain JSON lines.

A log is a stranger's: what it holds is text and numbers, nothing of it runs, and whatever is no log is one sentence.
"""

import hashlib
import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mneme.errors import BadRows

_LARGEST = 4 * 2**30
"""Bytes of one log, packed or not: more does not fit into the memory of the machines that compare logs."""
_LM_EVAL = re.compile(r"^samples_(?P<task>.+?)_\d{4}-\d\d-\d\dT[\d.\-]+\.jsonl$")
_GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
"""Inspect's words for correct, incorrect, partial and no answer."""
_IDS = ("id", "doc_id", "item", "question_id")
_PROMPTS = ("prompt", "question", "input")
_ANSWERS = ("answer", "response", "output", "completion", "prediction")
_TARGETS = ("target", "reference", "expected", "gold")
_NO_MEASURES = frozenset({*_IDS, *_PROMPTS, *_ANSWERS, *_TARGETS, "task", "area", "cluster", "epoch", "scores", "index"})
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
"""What JSON of another form, and a zip that is damaged or has a password, end in."""
EXPECTED = (
    "Expected samples_*.jsonl of lm-eval (--log_samples) or their folder, a .json or .eval of Inspect, or JSON lines with an "
    "id and a score each."
)


@dataclass(frozen=True)
class LogItem:
    """One answer to one item."""

    task: str
    id: str
    scores: Mapping[str, float]
    """Measure -> number, in the order of the log."""
    cluster: str
    prompt: str = ""
    target: str = ""
    answer: str = ""


@dataclass(frozen=True)
class Fields:
    """Names of fields that the user gave."""

    cluster: str
    area: str | None


def read_log(source: str | Path, fields: Fields) -> tuple[list[LogItem], list[str]]:
    """The items of a log, and the SHA-256 of each file. Raises BadRows where there is none, with the file and the line."""
    path = Path(source)
    if not path.exists():
        raise BadRows(f"{path} does not exist. {EXPECTED}")
    files = _files(path) if path.is_dir() else [path]
    items, digests = [], []
    for file in files:
        if not file.is_file():
            raise BadRows(f"{file} is no file. {EXPECTED}")
        if file.stat().st_size > _LARGEST:
            raise BadRows(f"{file} is larger than {_LARGEST >> 30} GB. Give a part of it.")
        digests.append(hashlib.sha256(file.read_bytes()).hexdigest())
        items += _items(file, fields)
    if not items:
        raise BadRows(f"{path} holds no item with a score. {EXPECTED}")
    return items, digests


def _files(folder: Path) -> list[Path]:
    """The samples of the last run of every task below a folder; else the logs of Inspect in it."""
    latest: dict[str, Path] = {}
    for file in sorted(folder.rglob("samples_*.jsonl"), key=lambda one: one.name):
        named = _LM_EVAL.match(file.name)
        latest[named["task"] if named else file.name] = file  # the date is in the name, so the last one is the latest
    found = list(latest.values()) or sorted([*folder.glob("*.eval"), *folder.glob("*.json")])
    if not found:
        raise BadRows(f"{folder} holds no log. {EXPECTED}")
    return found


def _items(file: Path, fields: Fields) -> list[LogItem]:
    try:
        if file.suffix == ".eval":
            return list(_inspect(_of_eval(file), fields))
        if file.suffix == ".json":
            whole = json.loads(file.read_text(encoding="utf-8"))
            samples = whole.get("samples") if isinstance(whole, dict) else None
            if not isinstance(samples, list):
                raise BadRows(f"{file} has no `samples`. {EXPECTED}")
            task = str((whole.get("eval") or {}).get("task", file.stem))
            return list(_inspect(((task, sample) for sample in samples), fields))
        return list(_lines(file, fields))
    except json.JSONDecodeError as error:
        raise BadRows(f"{file} is not JSON ({error.msg}, line {error.lineno}). {EXPECTED}") from error
    except _UNREADABLE as error:
        raise BadRows(f"{file} cannot be read as a log ({type(error).__name__}). {EXPECTED}") from error


def _lines(file: Path, fields: Fields) -> Iterator[LogItem]:
    named = _LM_EVAL.match(file.name)
    with file.open(encoding="utf-8-sig") as opened:
        for number, line in enumerate(opened, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError:
                raise BadRows(f"{file}, line {number}: no JSON. {EXPECTED}") from None
            if not isinstance(row, dict):
                raise BadRows(f"{file}, line {number}: a {type(row).__name__}, expected an object with an id and a score.")
            if "doc_id" in row and isinstance(row.get("metrics"), list):
                yield _of_lm_eval(row, named["task"] if named else file.stem, fields)
            else:
                yield _plain(row, f"{file}, line {number}", file.stem, fields)


def _of_lm_eval(row: Mapping[str, Any], task: str, fields: Fields) -> LogItem:
    """A sample as lm-eval 0.4 writes it; its filters are different readings of the same answer."""
    doc = row["doc"] if isinstance(row.get("doc"), dict) else {}
    kind = str(row.get("filter", "none"))
    beside = "" if kind == "none" else f" [{kind}]"
    arguments = row.get("arguments")
    first = arguments.get("gen_args_0") if isinstance(arguments, dict) else None
    answer = row.get("filtered_resps")
    return LogItem(
        task=_task(task, doc, fields) + beside,
        id=f"{row['doc_id']}/{str(row.get('doc_hash', ''))[:16]}",
        scores={str(one): float(row[one]) for one in row["metrics"] if _is_number(row.get(one))},
        cluster=_told(doc.get(fields.cluster)),
        prompt=_told(first.get("arg_0")) if isinstance(first, dict) else _told(doc.get("question")),
        target=_told(row.get("target")),
        answer=_said(answer, arguments),
    )


def _said(answer: Any, arguments: Any) -> str:
    """What a model answered: its text, or of a multiple choice the likeliest continuation."""
    found = answer[0] if isinstance(answer, list) and len(answer) == 1 else answer
    if not isinstance(answer, list) or len(answer) < 2 or not isinstance(arguments, dict):
        return _told(found)
    likelihoods: list[Any] = [one[0] if isinstance(one, list) and one else None for one in answer]
    try:
        values = [float(one) for one in likelihoods]
    except (TypeError, ValueError):
        return _told(found)
    chosen = arguments.get(f"gen_args_{max(range(len(values)), key=values.__getitem__)}")
    return _told(chosen.get("arg_1")).strip() if isinstance(chosen, dict) else ""


def _plain(row: Mapping[str, Any], where: str, task: str, fields: Fields) -> LogItem:
    found = next((row[name] for name in (*_IDS, *_PROMPTS) if row.get(name) is not None), None)
    if found is None:
        raise BadRows(f"{where}: no id. Expected one of {', '.join(_IDS)}.")
    beside = row.get("scores")
    told: Mapping[str, Any] = beside if isinstance(beside, dict) else row
    scores = {str(name): float(one) for name, one in told.items() if name not in _NO_MEASURES and _is_number(one)}
    if not scores:
        raise BadRows(
            f"{where}: no score. Expected a number or true/false, such as `correct`, or `scores` with several judges."
        )
    named = str(row.get("task", row.get("area", task)))
    return LogItem(
        task=_task(named, row, fields),
        id=_told(found),
        scores=scores,
        cluster=_told(row.get(fields.cluster)),
        prompt=_first(row, _PROMPTS),
        target=_first(row, _TARGETS),
        answer=_first(row, _ANSWERS),
    )


def _of_eval(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(task, sample) of the zip that Inspect writes."""
    with zipfile.ZipFile(file) as packed:
        if sum(one.file_size for one in packed.infolist()) > _LARGEST:
            raise BadRows(f"{file} unpacks to more than {_LARGEST >> 30} GB. Give a part of it.")
        if any(one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for one in packed.infolist()):
            yield from _by_inspect(file)
            return
        header = json.loads(packed.read("header.json")) if "header.json" in packed.namelist() else {}
        task = str((header.get("eval") or {}).get("task", file.stem))
        for name in sorted(packed.namelist()):
            if name.startswith("samples/") and name.endswith(".json"):
                yield task, json.loads(packed.read(name))


def _by_inspect(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The same of a log whose compression the standard library does not know (zstd)."""
    try:
        from inspect_ai.log import read_eval_log
    except ImportError as error:
        raise BadRows(
            f"{file} is compressed in a way that only Inspect reads. Run: pip install 'mneme-audit[evals]', or write the log "
            "as .json."
        ) from error
    log = read_eval_log(str(file))
    for sample in log.samples or []:
        yield log.eval.task, sample.model_dump(mode="json")


def _inspect(samples: Iterator[tuple[str, Mapping[str, Any]]], fields: Fields) -> Iterator[LogItem]:
    for task, sample in samples:
        scores = sample.get("scores") or {}
        found = {str(name): value for name, one in scores.items() if (value := _grade(one.get("value"))) is not None}
        if not found:
            continue  # a sample that failed has no score
        metadata = sample.get("metadata") or {}
        said = next((one.get("answer") for one in scores.values() if one.get("answer")), None)
        yield LogItem(
            task=_task(task.rpartition("/")[2], metadata, fields),
            id=f"{sample.get('id')}/{sample.get('epoch', 1)}",
            scores=found,
            cluster=_told(metadata.get(fields.cluster)) or _told(sample.get("id")),
            prompt=_conversation(sample.get("input")),
            target=_told(sample.get("target")),
            answer=_told(said) or _output(sample.get("output")),
        )


def _grade(value: Any) -> float | None:
    if isinstance(value, str):
        return _GRADES.get(value)
    return float(value) if _is_number(value) else None


def _conversation(given: Any) -> str:
    if isinstance(given, list):
        return "\n".join(f"{one.get('role')}: {_told(one.get('content'))}" for one in given if isinstance(one, dict))
    return _told(given)


def _output(given: Any) -> str:
    choices = given.get("choices") if isinstance(given, dict) else None
    message = choices[0].get("message") if choices else None
    return _told(message.get("content")) if isinstance(message, dict) else ""


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, bool | int | float) and math.isfinite(value)
    except OverflowError:  # a whole number of hundreds of digits
        return False


def _task(task: str, row: Mapping[str, Any], fields: Fields) -> str:
    area = row.get(fields.area) if fields.area is not None else None
    return task if area is None else f"{task}: {_told(area)}"


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((_told(row[name]) for name in names if row.get(name) is not None), "")


def _told(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
