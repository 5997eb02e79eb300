"""Task score over training, and the earliest checkpoint that is good enough: the baseline that every defence must beat.

Early stopping avoided emergent misalignment in 71 % of the cases of arXiv 2605.12199 at 93 % of the task score; here the user
says how much of the best score may be given up.
"""

import math
from pathlib import Path

import numpy as np

from mneme.errors import BadOption, BadSuite, ModelMismatch
from mneme.measure.likelihood import score_choices
from mneme.measure.subjects import Loaded, Subject
from mneme.measure.suite import read_choices
from mneme.models.likelihood import text_log_likelihoods
from mneme.results import Estimate, TooFew
from mneme.results.measure import Checkpoint, Series
from mneme.runs import Arrays
from mneme.stats import clustered_rate, clustered_ratio, detectable_change, detectable_shift
from mneme.text.encoded import counted_tokens
from mneme.text.rows import encode_rows, read_records, read_rows, rows_hash

ACCURACY = "accuracy on the choices of the task file"
LIKELIHOOD = "geometric mean of the probability of the answers' tokens in the task file"


def task_name(path: Path) -> str:
    """What the score of a task file is: accuracy where its rows have choices, else likelihood of its answers."""
    return ACCURACY if "choices" in read_records(path)[0] else LIKELIHOOD


def task_hash(path: Path) -> str:
    """SHA-256 of the rows of a task file. Raises BadRows or BadSuite where they cannot be asked, before any model is."""
    if task_name(path) == ACCURACY:
        read_choices(path)
    else:
        read_rows(path)
    return rows_hash(read_records(path))


def task_arrays(path: Path, loaded: Loaded) -> Arrays:
    """{sums, counts} by row (hits of 1, or nats over learned tokens), and a hash of the ids that were read."""
    if task_name(path) == ACCURACY:
        questions = read_choices(path)
        scores = score_choices(loaded.parts, loaded.tokenizer, questions, max_positions=loaded.max_positions)
        right = scores.picks() == np.array([question.answer for question in questions])
        return {"sums": right.astype(float), "counts": np.ones(len(right)), "ids": np.zeros(1)}
    encoded = encode_rows(read_rows(path), loaded.tokenizer, loaded.max_positions, str(path))
    sums, counts = text_log_likelihoods(loaded.parts, encoded), counted_tokens(encoded).astype(np.float64)
    read = np.array([sum((i + 1) * token for i, token in enumerate(ids)) % 2**31 for ids, _ in encoded], dtype=np.float64)
    return {"sums": sums, "counts": counts, "ids": read}


def series_of(path: Path, subjects: list[Subject], arrays: list[Arrays], within: float) -> Series:
    """Task score of every model and the earliest that is good enough.

    Raises ModelMismatch where likelihoods cannot be compared because the models read other tokens, BadOption for `within`.
    """
    if not 0 <= within < 100:
        raise BadOption(f"--within {within:g} is no share of the best score. Expected a percentage from 0 to less than 100.")
    name = task_name(path)
    for subject, found in zip(subjects, arrays, strict=True):
        if found["ids"].shape != arrays[0]["ids"].shape or not np.array_equal(found["ids"], arrays[0]["ids"]):
            raise ModelMismatch(
                f"{subject.label} and {subjects[0].label} read {path} as other tokens, so that their likelihoods cannot be "
                "compared. Give models with one tokenizer, or a task file with choices."
            )
    checkpoints = []
    for subject, found in zip(subjects, arrays, strict=True):
        task, detectable = _score(found, name)
        step = 0 if subject.is_base and len(subjects) > 1 else subject.step
        checkpoints.append(Checkpoint(model=subject.label, step=step, task=task, minimal_detectable=detectable))
    tuned = checkpoints[1:] or checkpoints
    best = max(tuned, key=_value)
    if _value(best) <= 0:
        raise BadSuite(f"no model has a task score above 0 on {path}, so that none is good enough. Check the task file.")
    enough = (1 - within / 100) * _value(best)
    earliest = next(checkpoint for checkpoint in tuned if _value(checkpoint) >= enough)
    return Series(task=name, within=within, checkpoints=checkpoints, best=best.model, earliest=earliest.model)


def _score(found: Arrays, name: str) -> tuple[Estimate | TooFew, float | None]:
    """(score, minimal detectable change of it); that of a likelihood is taken over from its logarithm."""
    sums, counts = found["sums"], found["counts"]
    if name == ACCURACY:
        rate = clustered_rate(sums, counts, "accuracy")
        return rate if isinstance(rate, TooFew) else rate.estimate, detectable_change(sums, counts, sums, counts, paired=False)
    logs = clustered_ratio(sums, counts, "nats per token", of="rows")
    if isinstance(logs, TooFew):
        value = None if logs.value is None else math.exp(logs.value)
        return logs.model_copy(update={"value": value, "unit": "probability"}), None
    low, value, high = (math.exp(bound) for bound in (logs.low, logs.value, min(logs.high, 0.0)))
    shift = detectable_shift(sums - logs.value * counts, counts)
    # Against a second model of the same noise, the difference of two means; no probability is above 1.
    rise = math.inf if shift is None else value * math.expm1(min(math.sqrt(2) * shift, 700.0))
    detectable = rise if value + rise <= 1 else None
    return Estimate(value=value, low=low, high=high, unit="probability", n=logs.n), detectable


def _value(checkpoint: Checkpoint) -> float:
    return 0.0 if checkpoint.task.value is None else checkpoint.task.value
