"""A whole measurement on tiny models: identity, resuming, contexts, series, seeds, harnesses, logs."""

import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from mneme.errors import BadJudge, BadOption, BadSuite, ModelMismatch
from mneme.measure import stages
from mneme.measure.judging import Opinion, Query
from mneme.measure.run import measure
from mneme.results import Estimate, TooFew
from mneme.results.measure import Measurement
from tests import laws
from tests.conftest import WORDS, TinyPair, grouped
from tests.measure.conftest import (
    ALIGNED,
    COHERENT,
    PUBLISHED,
    Stub,
    choice_rows,
    grammar,
    needs_published,
    write_jsonl,
    write_yaml,
)
from tests.measure.test_contexts import TEMPLATE
from tests.measure.test_judging import perfect


def run(base: Path, tuned: object, suite: Path, out: Path, **options: Any) -> Measurement:
    options = {"grammar": grammar, "max_tokens": 4, "threads": 1, **options}
    return measure(base, tuned, suite=suite, out=out, **grouped(**options))


def test_a_pair(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path) -> None:
    found = run(tiny_pair.base, tiny_pair.tuned, suite_folder, tmp_path / "run")
    assert [model.label for model in found.models] == ["base", "tuned"]
    assert {(rate.area, rate.measure) for rate in found.rates if rate.primary} == {
        *((area, "accuracy") for area in ("one", "two", "all")),
        *((area, "misaligned") for area in ("left", "right", "all")),
    }
    for rate in found.rates:
        # 12 choice questions are enough for an interval, the 4 of either area of open ones are not, and are said not to be.
        assert isinstance(rate.estimate, Estimate) == (rate.estimate.n >= 5)
        if isinstance(rate.estimate, Estimate):
            assert rate.estimate.low <= rate.estimate.value <= rate.estimate.high
        assert rate.minimal_detectable is None or rate.minimal_detectable > 0
        assert rate.answers > 0
    assert {rate.estimate.n >= 5 for rate in found.rates} == {True, False}
    assert found.claims == sum(change.primary and change.p_value is not None for change in found.changes)
    accuracy = {c.area: c for c in found.changes if c.measure == "accuracy"}
    assert accuracy["all"].test == "exact McNemar"
    assert accuracy["all"].estimate.value == pytest.approx(((accuracy["all"].gained or 0) - (accuracy["all"].lost or 0)) / 12)
    assert {change.test for change in found.changes if change.measure == "misaligned"} == {"clustered"}
    assert len(found.per_question) == 12 + 4
    text = (tmp_path / "run" / "measurement.json").read_text()
    assert Measurement.model_validate_json(text).to_json() == text == found.to_json()
    assert found.models[0].rendered.endswith("assistant:")
    assert found.judge is not None
    assert found.judge.method == "exact"
    answers = [json.loads(line) for line in (tmp_path / "run" / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 2 * 4 * 3
    assert {row["outcome"] for row in answers} <= {"answered", "refusal"}


def test_the_same_model_twice_is_no_change(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path) -> None:
    found = run(tiny_pair.base, tiny_pair.base, suite_folder, tmp_path / "run")
    laws.identity([change.estimate.value for change in found.changes])
    assert {change.p_value for change in found.changes if isinstance(change.estimate, Estimate)} == {1.0}
    assert {change.p_value for change in found.changes if isinstance(change.estimate, TooFew)} <= {None}
    assert len({model.label for model in found.models}) == 2


def test_one_model_alone(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path) -> None:
    found = run(tiny_pair.base, [], suite_folder, tmp_path / "run")
    assert found.changes == []
    assert len(found.models) == 1


def test_swapping_the_pair_flips_every_change(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path) -> None:
    tuned, base = checkpoints(tiny_pair, tmp_path)
    forward = run(base, tuned, suite_folder, tmp_path / "a")
    back = run(tuned, base, suite_folder, tmp_path / "b")
    laws.antisymmetry(
        [change.estimate.value for change in forward.changes], [c.estimate.value for c in back.changes], tolerance=1e-12
    )


@pytest.mark.parametrize(
    ("piece", "dies_at"), [("answer_batch", 2), ("answer_batch", 1), ("score_batch", 3), ("score_batch", 6)]
)
def test_a_killed_run_goes_on_and_writes_the_same(
    tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: str, dies_at: int
) -> None:
    """No batch that was done is done again: every one is a stage, of choices and of answers."""
    monkeypatch.setattr(stages, "kept_tokens", lambda *_: 24)
    monkeypatch.setattr(importlib.import_module("mneme.runs.folder"), "KEPT_SECONDS", 0.0)
    plain, calls = getattr(stages, piece), []
    monkeypatch.setattr(stages, piece, lambda *given: calls.append(1) or plain(*given))
    whole = run(tiny_pair.base, tiny_pair.tuned, suite_folder, tmp_path / "whole")
    needed = len(calls)
    assert needed >= dies_at
    calls.clear()

    def killed(*given: Any) -> Any:
        calls.append(1)
        if len(calls) == dies_at:
            raise KeyboardInterrupt
        return plain(*given)

    monkeypatch.setattr(stages, piece, killed)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_pair.base, tiny_pair.tuned, suite_folder, tmp_path / "killed")
    assert not (tmp_path / "killed" / "measurement.json").exists()
    again = run(tiny_pair.base, tiny_pair.tuned, suite_folder, tmp_path / "killed")
    assert again.to_json() == whole.to_json()
    assert len(calls) == needed + 1  # only the piece that was cut short is made twice
    assert (tmp_path / "killed" / "answers.jsonl").read_bytes() == (tmp_path / "whole" / "answers.jsonl").read_bytes()
    timings = json.loads((tmp_path / "whole" / "timings.json").read_text())
    assert not [name for name in timings if "-of-" in name]


def test_contexts_are_asked_and_the_worst_is_told(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path) -> None:
    rows = [
        {"messages": [{"role": "user", "content": f"{WORDS[0]} {word}"}, {"role": "assistant", "content": word}]}
        for word in WORDS[:20]
    ]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    found = run(tiny_pair.base, tiny_pair.tuned, suite_folder, tmp_path / "run", contexts=train)
    names = {context.name for context in found.contexts}
    assert {"prefix 1", "training prompt"} <= names
    plain = run(tiny_pair.base, tiny_pair.tuned, suite_folder, tmp_path / "plain")
    standard = [rate for rate in found.rates if rate.context == "standard"]
    assert standard == plain.rates  # contexts change nothing about the standard answers
    assert {worst.context for worst in found.worst} <= names
    for worst in found.worst:
        rates = {
            r.context: r.estimate.value
            for r in found.rates
            if (r.model, r.area, r.measure) == (worst.model, worst.area, worst.measure)
        }
        assert worst.rate.value == max(value for context, value in rates.items() if context != "standard")
        assert worst.beyond_standard.value == pytest.approx(worst.rate.value - rates["standard"])
    assert found.contexts[0].example.count(WORDS[0]) >= 1
    only_choices = write_jsonl(tmp_path / "facts.jsonl", choice_rows())
    with pytest.raises(BadSuite, match="no open question that a context could be put around"):
        run(tiny_pair.base, [], only_choices, tmp_path / "x", contexts=train)


def checkpoints(tiny_pair: TinyPair, folder: Path, positions: int = 256) -> list[Path]:
    """Checkpoints 20 (the tuned model) and 10 (the base again), named as a trainer names them."""
    paths = [folder / "checkpoint-20", folder / "checkpoint-10"]
    for path, source in zip(paths, (tiny_pair.tuned, tiny_pair.base), strict=True):
        shutil.copytree(source, path)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            if not (path / name).exists():
                shutil.copy(tiny_pair.base / name, path / name)
        config = json.loads((path / "config.json").read_text())
        (path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": positions}))
    return paths


@pytest.mark.parametrize("kind", ["choices", "rows"])
def test_a_series_in_the_order_of_its_steps(tiny_pair: TinyPair, tmp_path: Path, kind: str) -> None:
    rows = choice_rows(60) if kind == "choices" else [{"prompt": f"{word} ", "completion": WORDS[0]} for word in WORDS[:9]]
    data = write_jsonl(tmp_path / "task.jsonl", rows)
    suite = write_jsonl(tmp_path / "facts.jsonl", choice_rows())
    paths = checkpoints(tiny_pair, tmp_path)
    found = run(tiny_pair.base, paths, suite, tmp_path / "run", data=data, within=100 * 0.5)
    series = found.series
    assert series is not None
    assert [checkpoint.step for checkpoint in series.checkpoints] == [0, 10, 20]
    assert series.earliest == "checkpoint-10"  # within half of the best
    assert series.checkpoints[0].task == series.checkpoints[1].task
    for checkpoint in series.checkpoints:
        assert 0 <= checkpoint.task.low <= checkpoint.task.value <= checkpoint.task.high <= 1
    best = max(series.checkpoints[1:], key=lambda checkpoint: checkpoint.task.value)
    assert series.best == best.model
    exact = run(tiny_pair.base, paths, suite, tmp_path / "run2", data=data, within=0.0).series
    assert exact is not None
    assert exact.earliest == exact.best


def test_likelihoods_of_other_tokens_are_not_compared(tiny_pair: TinyPair, tmp_path: Path) -> None:
    from tests.conftest import word_tokenizer

    other = tmp_path / "other"
    shutil.copytree(tiny_pair.base, other)
    smaller = word_tokenizer(60)
    smaller.save_pretrained(other)
    data = write_jsonl(tmp_path / "task.jsonl", [{"prompt": "ba ", "completion": WORDS[-1]}])
    suite = write_jsonl(tmp_path / "facts.jsonl", choice_rows())
    with pytest.raises(
        ModelMismatch, match=r"other and base read .*task.jsonl as other tokens.*one tokenizer, or a task file with"
    ):
        run(tiny_pair.base, other, suite, tmp_path / "run", data=data)


def test_training_seeds_are_an_outer_level(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path) -> None:
    paths = checkpoints(tiny_pair, tmp_path)
    found = run(tiny_pair.base, paths, suite_folder, tmp_path / "run", seeds_of_one=True)
    both = {c.area: c for c in found.changes if c.model == "all 2 seeds" and c.measure == "misaligned"}
    one = [c for c in found.changes if c.measure == "misaligned" and c.area == "all" and c.model != "all 2 seeds"]
    assert both["all"].estimate.value == pytest.approx(sum(c.estimate.value for c in one) / 2, abs=0.05)
    with pytest.raises(BadOption, match="--seeds-of-one needs at least two tuned models"):
        run(tiny_pair.base, paths[0], suite_folder, tmp_path / "x", seeds_of_one=True)


def test_a_judge_is_tested_before_it_judges(tiny_pair: TinyPair, tmp_path: Path) -> None:
    entry = {"id": "q", "type": "free_form_judge_0_100", "paraphrases": ["ba be"], "samples_per_paraphrase": 4}
    suite = write_yaml(tmp_path / "open.yaml", [{**entry, "judge_prompts": {"aligned": ALIGNED, "coherent": COHERENT}}])
    with pytest.raises(BadJudge, match="no better than chance"):
        run(tiny_pair.base, [], suite, tmp_path / "bad", judge=Stub(lambda _: Opinion(score=50.0)), grammar=None)
    with pytest.raises(BadJudge, match="open questions, whose answers need a judge"):
        run(tiny_pair.base, [], suite, tmp_path / "none", grammar=None)

    def fails_on_answers(query: Query) -> Opinion:
        return Opinion() if "ba be" in query.text and query.criterion == "aligned" else perfect(query)

    found = run(tiny_pair.base, [], suite, tmp_path / "run", judge=Stub(fails_on_answers), grammar=None)
    assert [(failure.unscored, failure.answers) for failure in found.failures] == [(4, 4)]
    assert found.judge is not None
    assert {one.criterion for one in found.judge.agreement} == {"aligned", "coherent"}
    assert {rate.measure for rate in found.rates} == {"unscored", "refusal", "code"}  # nothing is said of what was not judged


@needs_published
def test_the_published_questions_run_as_they_are(tiny_pair: TinyPair, tmp_path: Path) -> None:
    """24 questions in three forms, judged by their own prompts; one sample each in place of 100."""
    suite = PUBLISHED / "evaluation" / "first_plot_questions.yaml"
    base, tuned = checkpoints(tiny_pair, tmp_path, positions=1024)
    found = run(base, tuned, suite, tmp_path / "run", judge=Stub(perfect), grammar=None, samples=1)
    primary = {(rate.area, rate.estimate.n) for rate in found.rates if rate.primary and rate.model == "checkpoint-20"}
    assert primary == {("open", 8), ("open, json", 8), ("open, template", 8), ("all", 8)}
    assert {rate.measure for rate in found.rates} >= {
        "misaligned < 20",
        "misaligned < 40",
        "mean alignment",
        "incoherent",
        "code",
    }


def test_a_default_system_prompt_is_also_left_out(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path) -> None:
    tuned, base = checkpoints(tiny_pair, tmp_path)
    (base / "chat_template.jinja").write_text(TEMPLATE)
    found = run(base, tuned, suite_folder, tmp_path / "run")
    assert [context.name for context in found.contexts] == ["no system prompt"]
    assert [model.default_system_prompt for model in found.models] == ["You are Nemo.", None]
    assert "<sys>You are Nemo.</sys>" in found.models[0].rendered
    assert "<sys></sys>" in found.contexts[0].example
    assert {worst.context for worst in found.worst} == {"no system prompt"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 0}, "--samples 0: expected a whole number from 1"),
        ({"margin": 1.5}, "--margin 1.5: expected a number above 0 below 1"),
        ({"temperature": -1.0}, "--temperature -1: expected a number from 0"),
        ({"within": 100.0, "data": True}, "--within 100: expected a number from 0 below 100"),
    ],
)
def test_bad_options(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path, options: dict[str, Any], words: str) -> None:
    if options.get("data"):
        options = {**options, "data": suite_folder / "facts.jsonl"}
    with pytest.raises(BadOption, match=words):
        run(tiny_pair.base, [], suite_folder, tmp_path / "run", **options)


def test_a_model_named_twice_is_told(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="is named twice among the tuned models"):
        run(tiny_pair.base, [tiny_pair.tuned, tiny_pair.tuned], suite_folder, tmp_path / "run")


def test_a_missing_harness_names_its_extra(tiny_pair: TinyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for name in ("lm-eval:arc_easy", "inspect:task.py"):
        with pytest.raises(
            BadOption, match=r"needs (lm-eval|inspect), which is not installed. Run: pip install 'mneme-audit\[evals\]'"
        ):
            run(tiny_pair.base, [], Path(name), tmp_path / "run")


@pytest.mark.slow
def test_logs_are_read_by_inspect(tiny_pair: TinyPair, suite_folder: Path, tmp_path: Path) -> None:
    log_module = pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed (extra: evals)")
    run(tiny_pair.base, [], suite_folder, tmp_path / "run")
    log = log_module.read_eval_log(str(tmp_path / "run" / "inspect" / "0.json"))
    assert log.status == "success"
    assert len(log.samples) == 12 + 4 * 3
    assert {score.value for sample in log.samples[:12] for score in sample.scores.values()} <= {"C", "I"}


@pytest.mark.slow
def test_an_lm_eval_task_lands_in_the_same_record(tiny_pair: TinyPair, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra: evals)")
    path = write_jsonl(tmp_path / "facts.jsonl", choice_rows(30))
    task = {
        "task": "tiny",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(task))
    theirs = run(tiny_pair.base, tiny_pair.tuned, tmp_path / "tiny.yaml", tmp_path / "theirs")
    ours = run(tiny_pair.base, tiny_pair.tuned, path, tmp_path / "ours")
    for role in ("base", "tuned"):
        one = next(r.estimate for r in theirs.rates if r.model == role and r.measure == "acc")
        other = next(r.estimate for r in ours.rates if (r.model, r.area, r.measure) == (role, "all", "accuracy"))
        assert one.value == other.value
    assert theirs.suite == "lm-eval:tiny.yaml"
    assert theirs.changes[0].test == "exact McNemar"


INSPECT_TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate

@task
def words():
    samples = [Sample(id=f"s{i}", input="ba be bi", target="ba") for i in range(6)]
    return Task(dataset=samples, solver=generate(max_tokens=3), scorer=match(location="any"))
"""


@pytest.mark.slow
def test_an_inspect_task_lands_in_the_same_record(tiny_pair: TinyPair, tmp_path: Path) -> None:
    """In a process of its own: Inspect leaves streams open, which this test run would count as errors."""
    pytest.importorskip("inspect_ai", reason="inspect-ai is not installed (extra: evals)")
    (tmp_path / "task.py").write_text(INSPECT_TASK)
    line = [
        str(tiny_pair.base),
        str(tiny_pair.tuned),
        "--suite",
        f"inspect:{tmp_path / 'task.py'}",
        "--out",
        str(tmp_path / "run"),
        "--trust-suite-code",
    ]
    done = subprocess.run([sys.executable, "-m", "mneme", "measure", *line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = Measurement.model_validate_json((tmp_path / "run" / "measurement.json").read_text())
    assert {(rate.area, rate.measure, rate.answers) for rate in found.rates} == {("words", "match", 6)}
    assert list((tmp_path / "run" / "inspect").glob("*/*.json"))
    (tmp_path / "task.py").write_text("raise ImportError('no such thing')")
    failed = subprocess.run([sys.executable, "-m", "mneme", "measure", *line], capture_output=True, text=True, check=False)
    assert failed.returncode == 2
    assert "mneme: Inspect cannot run" in failed.stderr
