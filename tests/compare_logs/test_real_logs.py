"""Logs that the real lm-eval and Inspect write here: read, paired, and equal to McNemar by hand, scipy and statsmodels."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from mneme.compare_logs.run import compare_logs
from mneme.results.compare_logs import LogChange
from tests.conftest import WORDS, TinyPair, word_tokenizer

pytestmark = pytest.mark.slow
ITEMS = 40


def same_as_others(change: LogChange, first: list[float], second: list[float]) -> None:
    """The p of McNemar of these numbers, by hand, from scipy and from statsmodels."""
    lost = sum(a > b for a, b in zip(first, second, strict=True))
    gained = sum(a < b for a, b in zip(first, second, strict=True))
    right = sum(a == b == 1 for a, b in zip(first, second, strict=True))
    assert (change.lost, change.gained, change.items) == (lost, gained, len(first))
    table = np.array([[right, lost], [gained, len(first) - lost - gained - right]])
    assert change.p_value == pytest.approx(min(1.0, mcnemar(table, exact=True).pvalue), rel=1e-9)
    if lost + gained:
        assert change.p_value == pytest.approx(stats.binomtest(lost, lost + gained).pvalue, rel=1e-9)
    assert change.change.value == pytest.approx((gained - lost) / len(first))


def test_logs_of_lm_eval(tiny_pair: TinyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models of the tiny pair answer a task of two choices; lm-eval's own tracker writes the samples."""
    lm_eval = pytest.importorskip("lm_eval")
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoModelForCausalLM

    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    generator = np.random.default_rng(0)
    lines = [
        {
            "question": " ".join(generator.choice(WORDS, 6)),
            "choices": generator.choice(WORDS, 2).tolist(),
            "answer": int(i % 2),
        }
        for i in range(ITEMS)
    ]
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    (tmp_path / "task" / "tiny.yaml").write_text(
        f"task: tiny\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {tmp_path / 'task' / 'rows.jsonl'}\n"
        'test_split: test\noutput_type: multiple_choice\ndoc_to_text: "{{question}}"\ndoc_to_choice: "{{choices}}"\n'
        "doc_to_target: answer\nmetric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n",
        encoding="utf-8",
    )
    manager = TaskManager(include_path=str(tmp_path / "task"), include_defaults=False)
    values = []
    for side, folder in (("first", tiny_pair.base), ("second", tiny_pair.tuned)):
        model = AutoModelForCausalLM.from_pretrained(folder)
        if side == "second":
            model.lm_head.weight.data = model.lm_head.weight.data.roll(7, 0)  # a change large enough to flip answers
        found = lm_eval.simple_evaluate(
            HFLM(pretrained=model, tokenizer=word_tokenizer(), batch_size=8, device="cpu"),
            tasks=["tiny"],
            task_manager=manager,
            log_samples=True,
            bootstrap_iters=0,
        )
        values.append([float(sample["acc"]) for sample in sorted(found["samples"]["tiny"], key=lambda one: one["doc_id"])])
        tracker = EvaluationTracker(output_path=str(tmp_path / side))
        tracker.general_config_tracker.model_name_sanitized = side
        tracker.date_id = "2026-11-28T10-00-00.000000"
        tracker.save_results_samples("tiny", found["samples"]["tiny"])
    compared = compare_logs(tmp_path / "first", tmp_path / "second", out=tmp_path / "out")
    same_as_others(compared.primary()[0], *values)
    assert (compared.primary()[0].task, compared.unpaired) == ("tiny", {})
    flip = compared.flips[0]
    line = next(line for line in lines if line["question"] == flip.prompt)
    assert {flip.before, flip.after} == set(line["choices"])


@pytest.mark.filterwarnings("ignore")  # of Inspect itself
def test_logs_of_inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock model answers sums, right and wrong as planned; one log as JSON, the other as .eval."""
    inspect_ai = pytest.importorskip("inspect_ai")
    from inspect_ai import Task
    from inspect_ai.dataset import Sample
    from inspect_ai.model import ModelOutput, ModelUsage, get_model
    from inspect_ai.scorer import includes, match

    monkeypatch.chdir(tmp_path)
    planned = [[float(i % 4 > 0) for i in range(ITEMS)], [float(i % 3 > 0) for i in range(ITEMS)]]
    samples = [Sample(input=f"{i}+1=", target=str(i + 1), id=f"s{i}", metadata={"area": "adding"}) for i in range(ITEMS)]
    logs = []
    for side, form in enumerate(("json", "eval")):
        usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else the mock would count with a tokenizer
        outputs = []
        for i, right in enumerate(planned[side]):
            output = ModelOutput.from_content("mockllm/model", str(i + 1) if right else "no idea")
            output.usage = usage
            outputs.append(output)
        [log] = inspect_ai.eval(
            Task(dataset=samples, scorer=[match(), includes()], name="sums"),
            model=get_model("mockllm/model", custom_outputs=outputs),
            log_dir=str(tmp_path / form),
            log_format=form,
            display="none",
            max_connections=1,
            max_samples=1,
        )
        assert log.status == "success", log.error
        logs.append(next((tmp_path / form).glob(f"*.{form}")))
    compared = compare_logs(*logs, out=tmp_path / "out")
    first, second = compared.changes
    assert (first.task, first.measure, second.measure) == ("sums", "match", "includes")
    same_as_others(first, *planned)
    assert compared.judges[0].same > 0.9
    assert any(flip.prompt == f"{int(flip.target) - 1}+1=" for flip in compared.flips)
