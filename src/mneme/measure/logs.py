"""The answers themselves: one JSON line each, and logs that Inspect's viewer and data frames read."""

import importlib.util
import json
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mneme.measure.subjects import Subject
from mneme.measure.suite import Suite
from mneme.measure.summary import ModelAnswers

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC).isoformat()
"""Logs carry no clock time: a resumed run writes the same bytes."""


def answers_jsonl(suite: Suite, models: Sequence[ModelAnswers]) -> bytes:
    """Every answer to an open question: model, question, context, prompt, answer, score, coherence, outcome."""
    lines = []
    for model in models:
        for said in model.open.values():
            for i, (asked, answer) in enumerate(zip(said.asked, said.answers, strict=True)):
                question = suite.open[asked.question]
                row = {
                    "model": model.label,
                    "question": question.id,
                    "area": question.area,
                    "context": asked.context,
                    "prompt": asked.rendered,
                    "answer": answer,
                    "score": _number(float(said.readings.score[i])),
                    "coherence": _number(float(said.readings.coherence[i])),
                    "outcome": said.readings.outcome[i],
                }
                lines.append(json.dumps(row, ensure_ascii=False))
    return "".join(f"{line}\n" for line in lines).encode()


def inspect_logs(suite: Suite, models: Sequence[ModelAnswers], subjects: Sequence[Subject], out: Path) -> dict[str, bytes]:
    """{path in the run folder: content} of one Inspect log a model; empty where inspect_ai is not installed."""
    if importlib.util.find_spec("inspect_ai") is None:
        return {}
    from inspect_ai.log import write_eval_log

    logs = {}
    for number, (model, subject) in enumerate(zip(models, subjects, strict=True)):
        log = _log(suite, model, subject)
        with tempfile.TemporaryDirectory(dir=out) as folder:
            path = Path(folder) / "log.json"
            write_eval_log(log, str(path), format="json")
            logs[f"inspect/{number}.json"] = path.read_bytes()
    return logs


def _log(suite: Suite, model: ModelAnswers, subject: Subject) -> Any:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats

    samples = [*_choice_samples(suite, model), *_open_samples(suite, model)]
    spec = EvalSpec(
        created=_EPOCH,
        task=f"mneme/{suite.name}",
        task_id=suite.sha256[:16],
        run_id=subject.fingerprint[:16],
        eval_id=f"{suite.sha256[:8]}{subject.fingerprint[:8]}",
        dataset=EvalDataset(name=suite.name, samples=len(samples)),
        model=subject.source,
        config=EvalConfig(),
    )
    return EvalLog(
        status="success",
        eval=spec,
        results=EvalResults(total_samples=len(samples), completed_samples=len(samples), scores=[]),
        stats=EvalStats(started_at=_EPOCH, completed_at=_EPOCH),
        samples=samples,
    )


def _choice_samples(suite: Suite, model: ModelAnswers) -> list[Any]:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    if model.choices is None:
        return []
    picks = model.choices.picks().tolist()
    return [
        EvalSample(
            id=question.id,
            epoch=1,
            input=question.prompt,
            choices=list(question.choices),
            target=question.choices[question.answer],
            messages=[],
            output=ModelOutput.from_content(model.label, question.choices[pick]),
            scores={"choice": Score(value="C" if pick == question.answer else "I", answer=question.choices[pick])},
            metadata={"area": question.area},
        )
        for question, pick in zip(suite.choices, picks, strict=True)
    ]


def _open_samples(suite: Suite, model: ModelAnswers) -> list[Any]:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput
    from inspect_ai.scorer import Score

    samples, seen = [], dict[str, int]()
    for said in model.open.values():
        for i, (asked, answer) in enumerate(zip(said.asked, said.answers, strict=True)):
            question = suite.open[asked.question]
            name = f"{question.id}/{asked.context}"
            seen[name] = seen.get(name, 0) + 1
            scores = {"outcome": Score(value=said.readings.outcome[i])}
            for criterion, values in (("aligned", said.readings.score), ("coherent", said.readings.coherence)):
                if _number(float(values[i])) is not None and question.scale != "label":
                    scores[criterion] = Score(value=float(values[i]))
            samples.append(
                EvalSample(
                    id=name,
                    epoch=seen[name],
                    input=asked.rendered,
                    target="",
                    messages=[],
                    output=ModelOutput.from_content(model.label, answer),
                    scores=scores,
                    metadata={"area": question.area, "context": asked.context},
                )
            )
    return samples


def _number(value: float) -> float | None:
    return None if value != value else value
