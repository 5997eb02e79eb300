"""`mneme measure`: what one model, a pair, or a series of checkpoints does, with statistics that hold."""

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from mneme.errors import BadOption, BadSuite
from mneme.measure.agreement import check_judge
from mneme.measure.asking import QuestionContext
from mneme.measure.contexts import FoundContext, contexts_of
from mneme.measure.harness import Harness, harness_of, harness_tallies, run_harness
from mneme.measure.judges import judge_named
from mneme.measure.judging import Judge, prompts_hash
from mneme.measure.logs import answers_jsonl, inspect_logs
from mneme.measure.options import MeasureOptions
from mneme.measure.readings import require_judges
from mneme.measure.series import read_task, series_of, task_arrays
from mneme.measure.stages import (
    Sampling,
    Showing,
    answers_stage,
    choices_stage,
    pack,
    readings_stage,
    system_prompt_stage,
    unpack,
)
from mneme.measure.subjects import Subject, subjects_of
from mneme.measure.suite import Suite, read_suite
from mneme.measure.summary import (
    ContextAnswers,
    ModelAnswers,
    Tally,
    changes_of,
    context_claims,
    correct_claims,
    failures_of,
    questions_of,
    rates_of,
    tallies_of,
    worst_contexts,
)
from mneme.models.adapter_files import whole_fingerprint
from mneme.models.checkpoints import is_adapter
from mneme.models.threads import computing_threads
from mneme.options import Track, counted, deciding, loading, stored, taking
from mneme.results import Estimate, TooFew
from mneme.results.measure import STANDARD, Agreement, ContextRecord, JudgeRecord, MeasuredModel, Measurement
from mneme.runs import Arrays, RunFolder, require_apart
from mneme.text.reading import SKIPPED_ROWS, skipped_rows
from mneme.text.rows import read_rows, rows_hash
from mneme.text.templates import template_key
from mneme.version import __version__

_OUTPUTS = ("measurement.json", "measurement.html", "answers.jsonl", "inspect", SKIPPED_ROWS)
_NO_DEFAULT = FoundContext(
    context=QuestionContext("no system prompt", system=""), kind="no system prompt", text="", rows=0, share=0.0
)


_TOLD = ("samples", "max_tokens", "temperature", "seed", "margin", "aggregate")
"""Options that the page names."""


@dataclass(frozen=True, kw_only=True)
class _Job:
    """A measurement whose inputs are checked."""

    options: MeasureOptions
    suite: Suite
    harness: Harness | None
    """Who asks in the place of the suite."""
    subjects: list[Subject]
    contexts: list[FoundContext]
    judge: Judge | None
    run: RunFolder
    track: Track
    notes: list[str]
    """Whose chat templates are used, and which columns of files were read."""

    @property
    def sampling(self) -> Sampling:
        """How answers are drawn."""
        options = self.options
        return Sampling(options.samples, options.max_tokens, options.temperature, options.seed)

    @property
    def data(self) -> Path | None:
        """The task file."""
        return Path(self.options.data) if self.options.data else None


def run_measure(options: MeasureOptions) -> Measurement:
    """Ask one model, or a base and its tuned models or checkpoints, the questions of a suite, and say what changed.

    `suite`: a name that ships (`standard`, …), a file or folder of questions (`read_suite`), `lm-eval:TASK`, `inspect:TASK`.
    `judge`: `local:MODEL`, an http(s) address, `verdict:…`, or any `Judge`; `grammar`: what reads answers exactly. `contexts`:
    the training file whose contexts are put around every open question. `data`: questions or training rows that give the task
    score of a series, of which `within` percent may be given up. `samples` of each paraphrase, each of at most `max_tokens`
    tokens. `margin`: the change that equivalence is tested against. With `seeds_of_one` the tuned models are training seeds of
    one recipe, and the change over all of them is told too, with the seed as an outer level. `aggregate`: "answer" counts
    every answer to the open questions alike, "question" every question with at least five, as Betley et al. 2025 do. With
    `trust_suite_code` a task of another harness may run Python of its own; without it, such a task is refused. `out` gets
    measurement.json, answers.jsonl and, where inspect_ai is installed, logs of Inspect; the same call after a kill goes on
    where it stopped. Errors: a `MnemeError` that says what is wrong, what was expected and what to do.
    """
    named = {"BASE": options.base, "TUNED": options.models, "--contexts": options.contexts, "--data": options.data}
    require_apart(options.out, {**named, **_named_in(options.suite, options.judge)})
    if options.seeds_of_one and len(options.models) < 2:
        raise BadOption("--seeds-of-one needs at least two tuned models: they are taken as training seeds of one recipe.")
    with computing_threads(options.machine.threads):
        return _measured(options)


measure = taking(MeasureOptions, run_measure)


def _measured(options: MeasureOptions) -> Measurement:
    harness = harness_of(str(options.suite), options.trust_suite_code)
    asked = Suite(harness.name, harness.sha256, (), ()) if harness else read_suite(options.suite)
    training = read_rows(options.contexts) if options.contexts else None
    task = read_task(Path(options.data)) if options.data else None
    contexts = contexts_of(training) if training is not None else []
    if contexts and not asked.open:
        raise BadSuite(
            f"--contexts was given, but the suite {asked.name} has no open question that a context could be put around."
        )
    machine = options.machine
    judge = judge_named(options.judge, device=machine.device) if isinstance(options.judge, str) else options.judge
    require_judges(asked.open, judge, options.grammar)
    subjects = subjects_of(options.base, options.models, **loading(options))
    templates = [subject.template() for subject in subjects] if asked.open or harness else []
    notes = [*templates, *(found.told() for found in (training, task) if found is not None)]
    options.progress.say_all(notes)
    command = _command(asked, subjects, judge, contexts, options)
    command["data"] = rows_hash(task.rows) if task is not None else None
    kept = stored(options)
    opened = RunFolder(Path(options.out), command, options=kept, outputs=_OUTPUTS, overwrite=options.overwrite)
    with opened as run, options.progress.bars() as track:
        job = _Job(
            options=options,
            suite=asked,
            subjects=subjects,
            contexts=contexts,
            judge=judge,
            run=run,
            track=track,
            harness=harness,
            notes=notes,
        )
        agreement, untested = _self_test(job)
        systems = [system_prompt_stage(run, i, subject) if asked.open else None for i, subject in enumerate(subjects)]
        job.contexts.extend([_NO_DEFAULT] if any(systems) else [])
        _say_cost(job)
        models = [_measure_one(job, number) for number in range(len(subjects))]
        result = _composed(job, models, systems, agreement, untested)
        logs = inspect_logs(asked, [one.answers for one in models], subjects, run.workspace("logs")) if not harness else {}
        files = {"measurement.json": result.to_json().encode(), **logs}
        if asked.open:
            files["answers.jsonl"] = answers_jsonl(asked, [one.answers for one in models])
        run.finish(files | skipped_rows(training, task))
    return result


def _composed(
    job: _Job, measured: "list[_Measured]", systems: list[str | None], agreement: list[Agreement], untested: str
) -> Measurement:
    """The result, from what every model did."""
    options, subjects, asked = job.options, job.subjects, job.suite
    models, tallies = [one.answers for one in measured], [one.tallies for one in measured]
    tasks = [one.task for one in measured if one.task is not None]
    every_context = [claim for i, subject in enumerate(subjects) for claim in context_claims(subject.label, tallies[i])]
    changes = _changes(subjects, tallies, options.margin, options.seeds_of_one)
    changes, claimed_contexts, claims = correct_claims(changes, every_context)
    return Measurement(
        suite=asked.name,
        suite_sha256=asked.sha256,
        questions=len(asked.choices) + len(asked.open) or _questions_in(tallies),
        models=[_model_record(subject, systems[i], models[i]) for i, subject in enumerate(subjects)],
        rates=[rate for i, subject in enumerate(subjects) for rate in rates_of(subject.label, tallies[i])],
        changes=changes,
        claims=claims,
        per_question=questions_of(asked, models),
        judge=_judge_record(job, agreement, untested),
        failures=[failure for i, subject in enumerate(subjects) for failure in failures_of(subject.label, tallies[i])],
        contexts=_context_records(job, models[0]),
        worst=worst_contexts(claimed_contexts),
        series=series_of(job.data, subjects, tasks, options.within) if job.data else None,
        options={name: getattr(options, name) for name in _TOLD},
        environment=_environment(),
        notes=list(dict.fromkeys([*job.notes, *(note for one in measured for note in one.notes)])),
    )


def _named_in(suite: str | Path, judge: Any) -> dict[str, object]:
    """The paths inside `inspect:FILE@TASK`, `lm-eval:FILE`, `local:FOLDER`, beside the suite as it was given."""
    task = suite if isinstance(suite, Path) else suite.split(":", 1)[-1].partition("@")[0]
    return {"--suite": [suite, task], "--judge": judge.split(":", 1)[-1] if isinstance(judge, str) else None}


def _command(
    suite: Suite, subjects: Sequence[Subject], judge: Judge | None, contexts: Sequence[FoundContext], options: MeasureOptions
) -> dict[str, Any]:
    """Everything that decides what the models say and how it is read."""
    return {
        "command": "measure",
        "version": __version__,
        "models": [subject.fingerprint for subject in subjects],
        "suite": suite.sha256,
        "judge": [judge.name, judge.fingerprint, judge.method] if judge else None,
        "grammar": options.grammar is not None,
        "contexts": [
            [found.context.name, found.context.system, found.context.before, found.context.after] for found in contexts
        ],
        "adapter_base_is": whole_fingerprint(options.adapter_base) if options.adapter_base is not None else None,
        **deciding(options),
        **template_key(options.chat_template),
    }


@dataclass(frozen=True)
class _Measured:
    answers: ModelAnswers
    tallies: list[Tally]
    task: Arrays | None
    notes: list[str]
    """How its files were read, where something was odd in them."""


def _measure_one(job: _Job, number: int) -> _Measured:
    """Everything that one model has to do, after which it is let go."""
    subject, harness = job.subjects[number], job.harness

    def in_harness() -> Arrays:
        if harness is None:
            return pack([])
        logs = job.run.workspace(f"inspect-{number}")
        rows = run_harness(harness, subject, job.sampling, logs)
        if any(logs.iterdir()):
            job.run.adopt(logs, f"inspect/{number}")
        return pack(rows)

    def task_score() -> Arrays:
        return task_arrays(job.data, subject.loaded()) if job.data else {}

    answers = _answers_of(job, number, subject)
    rows = unpack(job.run.stage(f"harness-{number}", in_harness)) if harness else []
    tallies = harness_tallies(rows) if harness else tallies_of(job.suite, answers, job.options.aggregate)
    task = job.run.stage(f"task-{number}", task_score) if job.data else None
    notes = unpack(job.run.stage(f"notes-{number}", lambda: pack(subject.loaded().notes)))
    subject.release()
    return _Measured(answers, tallies, task, notes)


def _self_test(job: _Job) -> tuple[list[Agreement], str]:
    """Agreement of the judge with known labels, said before any rate; a stage, so that a resumed run asks nothing twice."""
    if job.judge is None or not any(question.scale != "grammar" for question in job.suite.open):
        return [], "a grammar reads the answers exactly" if job.suite.open else ""
    judge = job.judge

    def compute() -> dict[str, Any]:
        found, missing = check_judge(judge, job.suite.open)
        return pack({"agreement": [one.model_dump() for one in found], "untested": missing})

    stored = unpack(job.run.stage("judge", compute))
    agreement = [Agreement.model_validate(one) for one in stored["agreement"]]
    for one in agreement:
        bad, good = one.true_positive_rate, one.true_negative_rate
        job.options.progress.say(
            f"Judge {judge.name}, {one.criterion}: kappa {one.kappa.value:.2f} [{one.kappa.low:.2f}, {one.kappa.high:.2f}], "
            f"calls {_percent(bad)} of {bad.n} bad answers bad and {_percent(good)} of {good.n} good ones good; "
            f"{one.unscored} without a verdict."
        )
    return agreement, str(stored["untested"])


def _percent(share: Estimate | TooFew) -> str:
    return share.told() if isinstance(share, TooFew) else f"{share.value:.0%} [{share.low:.0%}, {share.high:.0%}]"


def _say_cost(job: _Job) -> None:
    said = []
    if job.suite.choices:
        said.append(f"{sum(len(q.choices) for q in job.suite.choices):,} choices of {len(job.suite.choices):,} questions")
    if job.suite.open:
        answers = sum(len(q.paraphrases) * (job.sampling.samples or q.samples) for q in job.suite.open)
        contexts = f" under {1 + len(job.contexts)} contexts" if job.contexts else ""
        said.append(f"{answers * (1 + len(job.contexts)):,} answers{contexts} of at most {job.sampling.max_tokens} tokens")
    if said:
        job.options.progress.say(f"{' and '.join(said)}, asked of {counted(len(job.subjects), 'model')}.")


def _answers_of(job: _Job, number: int, subject: Subject) -> ModelAnswers:
    show = Showing(job.track, job.options.progress.say)
    choices = choices_stage(job.run, number, subject, job.suite.choices, show) if job.suite.choices else None
    said: dict[str, ContextAnswers] = {}
    if job.suite.open:
        for place, context in enumerate([QuestionContext(), *(found.context for found in job.contexts)]):
            asked, answers = answers_stage(job.run, number, subject, job.suite, context, place, job.sampling, show)
            readings = readings_stage(
                job.run, number, subject, job.suite, place, (asked, answers), (job.judge, job.options.grammar), job.track
            )
            said[context.name] = ContextAnswers(asked, answers, readings)
    return ModelAnswers(subject.label, choices, said)


def _changes(subjects: Sequence[Subject], tallies: Sequence[list[Tally]], margin: float, seeds: bool) -> list[Any]:
    changes = [
        change
        for i, subject in enumerate(subjects[1:], 1)
        for change in changes_of(subject.label, tallies[0], [tallies[i]], margin)
    ]
    if seeds:
        changes += changes_of(f"all {len(subjects) - 1} seeds", tallies[0], tallies[1:], margin)
    return changes


def _model_record(subject: Subject, system: str | None, answers: ModelAnswers) -> MeasuredModel:
    said = answers.open.get(STANDARD)
    return MeasuredModel(
        label=subject.label,
        source=subject.source,
        role="base" if subject.is_base else "tuned",
        fingerprint=subject.fingerprint,
        adapter=is_adapter(subject.folder),
        step=subject.step,
        default_system_prompt=system,
        rendered=said.asked[0].rendered if said and said.asked else "",
    )


def _judge_record(job: _Job, agreement: list[Agreement], untested: str) -> JudgeRecord | None:
    if not job.suite.open:
        return None
    judge = job.judge
    if judge is None:
        return JudgeRecord(name="grammar", method="exact", fingerprint="", prompts_sha256="", agreement=[], untested=untested)
    return JudgeRecord(
        name=judge.name,
        method=judge.method,
        fingerprint=judge.fingerprint,
        prompts_sha256=prompts_hash(job.suite.open),
        agreement=agreement,
        untested=untested,
    )


def _context_records(job: _Job, first: ModelAnswers) -> list[ContextRecord]:
    return [
        ContextRecord(
            name=found.context.name,
            kind=found.kind,
            text=found.text,
            rows=found.rows,
            share=found.share,
            example=first.open[found.context.name].asked[0].rendered,
        )
        for found in job.contexts
    ]


def _questions_in(tallies: Sequence[Sequence[Tally]]) -> int:
    return len({(tally.area, cluster) for tally in tallies[0] for cluster in tally.clusters})


def _environment() -> dict[str, str]:
    return {
        "mneme": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": str(torch.get_num_threads()),
    }
