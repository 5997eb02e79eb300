"""Runs side by side: known differences by item and by interval, which step did it, the best for the least side effects."""

from pathlib import Path

import numpy as np
import pytest

from mneme.audit.evidence import AuditEvidence
from mneme.cli.compare import show_compare
from mneme.compare.differing import answer_difference, independent_difference, same_items, word_difference
from mneme.compare.run import Audited, compare, lineage_of
from mneme.errors import BadRun
from mneme.report.compare import render_compare
from mneme.report.finished import read_run
from mneme.results import Report
from mneme.results.compare import Lineage
from tests.audit.test_stored import sample_evidence, words
from tests.report.sample import HOSTILE, effect, estimate, sample_report


def report(effects: dict[str, float], *, half: float = 0.02, intended: str = "task", **pair: str) -> Report:
    """Effects with these sizes and half widths; affected from 5 points on."""
    made = [
        effect(
            area,
            0.5,
            value,
            magnitude=estimate(value, value - half, value + half),
            finding="affected" if abs(value) >= 0.05 else "unaffected",
            intended=area == intended,
        )
        for area, value in effects.items()
    ]
    whole = sample_report(effects=made, absent=[])
    return whole.model_copy(update={"pair": whole.pair.model_copy(update=pair)})


def run(name: str, found: Report, evidence: AuditEvidence | None = None) -> Audited:
    """One run as it was read."""
    return Audited(name, Path(name), found, evidence, tuple(one.area for one in found.effects))


def test_by_item_a_small_difference_is_told_that_intervals_do_not_tell() -> None:
    """The second run loses 14 points more of every word of the first area, of which 30 were read; words differ as much among
    each other. Three points more, at every word, are not told from 30 words: those that were not read may be others."""
    first = sample_evidence()
    generator = np.random.default_rng(5)
    change = generator.uniform(-0.5, 0.0, len(first.words.usable))
    made = []
    for more in (0.0, 0.14, 0.03):
        p_true = np.stack([np.full(len(change), 0.95), 0.95 + change - more * first.words.own[0]])
        made.append(first._replace(words=first.words._replace(scores=first.words.scores._replace(p_true=p_true))))
    one, two, hardly = made
    assert same_items(one, two)
    found = word_difference(one, two, 0)
    assert found is not None
    assert found.estimate.value == pytest.approx(-0.14, abs=1e-9)
    assert found.p_value < 0.05
    assert found.estimate.high < 0.0
    unsure = word_difference(one, hardly, 0)
    assert unsure is not None
    assert unsure.p_value > 0.05
    assert unsure.estimate.high > 0.0
    back = word_difference(two, one, 0)
    assert back is not None
    assert back.estimate.value == pytest.approx(0.14, abs=1e-9)
    elsewhere = word_difference(one, two, 1)
    assert elsewhere is not None
    assert elsewhere.estimate.value == 0.0
    assert not same_items(one, one._replace(words=words(7, items=60)))


def test_paired_answers_are_compared_prompt_by_prompt() -> None:
    first = sample_evidence()
    shown = first.answered[4]
    second = first._replace(answered={4: np.stack([shown[0], shown[1] + 0.1])})
    found = answer_difference(first, second, 4)
    assert found is not None
    assert found.estimate.value == pytest.approx(0.1)
    assert answer_difference(first, second._replace(answered={}), 4) is None


def test_the_difference_of_two_intervals_by_hand() -> None:
    """-3 [-7, 0] minus 1 [0, 4]: -4 [-4 - sqrt(16 + 9), -4 + sqrt(9 + 1)]."""
    found = independent_difference(estimate(1, 0, 4, "points"), estimate(-3, -7, 0, "points"))
    assert found.estimate.value == -4.0
    assert found.estimate.low == pytest.approx(-9.0)
    assert found.estimate.high == pytest.approx(-4 + 10**0.5)
    assert found.p_value < 0.05


def test_which_step_did_it() -> None:
    """SFT damaged law, DPO damaged art, the merge nothing more."""
    steps = [
        run("sft", report({"task": 0.3, "law": -0.2, "art": 0.0, "sea": -0.01})),
        run("dpo", report({"task": 0.3, "law": -0.21, "art": -0.3, "sea": -0.02})),
        run("merge", report({"task": 0.3, "law": -0.2, "art": -0.28, "sea": -0.03})),
    ]
    found = lineage_of(steps)
    assert found.relation == "one base"
    assert {row.area: row.did_it for row in found.areas} == {"task": "sft", "law": "sft", "art": "dpo", "sea": ""}
    assert found.best == "sft"


def test_steps_that_follow_each_other_are_steps_themselves() -> None:
    one = run("sft", report({"task": 0.3, "law": -0.2}, base="base", tuned="sft"))
    two = run("dpo", report({"task": 0.0, "law": 0.0}, base="sft", tuned="dpo"))
    found = lineage_of([one, two])
    assert (found.relation, found.differences) == ("steps", [])
    assert {row.area: row.did_it for row in found.areas} == {"task": "sft", "law": "sft"}
    with pytest.raises(BadRun, match="neither one base nor does each begin"):
        lineage_of([one, run("other", report({"law": 0.0}, base="elsewhere"))])


def test_the_best_at_its_task_for_the_least_side_effects() -> None:
    """`half` does half of the task, `clean` as much as `dirty` within noise and no harm: clean."""
    runs = [
        run("dirty", report({"task": 0.42, "law": -0.3, "art": -0.1})),
        run("clean", report({"task": 0.41, "law": -0.01, "art": 0.0})),
        run("half", report({"task": 0.2, "law": 0.0, "art": 0.0})),
    ]
    found = lineage_of(runs)
    assert found.best == "clean"
    assert found.best_why == "It is not shown to do less of its purpose than dirty, and has fewer side effects."
    assert [run.purpose for run in found.runs] == pytest.approx([42.0, 41.0, 20.0])
    assert {(one.first, one.second) for one in found.differences if one.area == "task" and one.q_value < 0.05} == {
        ("dirty", "half"),
        ("clean", "half"),
    }
    without = lineage_of(
        [run(one.name, report({"law": v}, intended="")) for one, v in zip(runs, (0.1, 0.0, 0.06), strict=True)]
    )
    assert (without.best, without.best_why.startswith("It has the least side effects; no run names")) == ("clean", True)


def test_runs_are_compared_with_a_page(tmp_path: Path) -> None:
    for name, value in (("a", -0.3), ("b", 0.0)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(report({"task": 0.2, "law": value}).to_json(), encoding="utf-8")
    found = compare([tmp_path / "a", tmp_path / "b"], out=tmp_path / "out")
    assert read_run(tmp_path / "out") == found
    show_compare(found, tmp_path / "out", json=True)
    page = (tmp_path / "out" / "compare.html").read_text("utf-8")
    assert "Take b" in page
    assert "mneme compare" in page
    for wrong, said in (([tmp_path / "a"], "Give from 2"), ([tmp_path / "a", tmp_path / "gone"], "No report at")):
        with pytest.raises(BadRun, match=said):
            compare(wrong, out=tmp_path / "other")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_text(text: str) -> None:
    found = lineage_of(
        [run(f"{text}1", report({text: 0.2}, base=text, tuned=text)), run(f"{text}2", report({text: 0.0}, base=text))]
    )
    page = render_compare(Lineage.model_validate_json(found.to_json()))
    assert "<script>window" not in page
    assert "<img" not in page
    assert "\x00" not in page
