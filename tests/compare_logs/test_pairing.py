"""Two logs of JSON lines whose answer is known: by hand, from scipy, and from statsmodels."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from mneme.cli.compare_logs import show_logs
from mneme.compare_logs.pairing import flips_of, judges_of, log_changes, pair_logs
from mneme.compare_logs.reading import Fields, LogItem, read_log
from mneme.compare_logs.run import compare_logs
from mneme.errors import BadRows
from mneme.gate.policy import Policy
from mneme.gate.run import gate_of
from mneme.results.compare_logs import LogComparison
from tests.report.sample import effect, sample_report


def items(values: dict[str, list[float]], task: str = "law", clusters: list[str] | None = None) -> list[LogItem]:
    """One item a number, with these measures."""
    count = len(next(iter(values.values())))
    return [
        LogItem(
            task=task,
            id=str(i),
            scores={name: each[i] for name, each in values.items()},
            cluster="" if clusters is None else clusters[i],
            prompt=f"question {i}",
            target="yes",
            answer=f"answer {i}",
        )
        for i in range(count)
    ]


def two(lost: int, gained: int, right: int, wrong: int) -> tuple[list[LogItem], list[LogItem]]:
    """Both logs with these counts of a two-by-two table."""
    first = [1.0] * lost + [0.0] * gained + [1.0] * right + [0.0] * wrong
    second = [0.0] * lost + [1.0] * gained + [1.0] * right + [0.0] * wrong
    return items({"acc": first}), items({"acc": second})


@pytest.mark.parametrize(("lost", "gained", "right", "wrong"), [(1, 0, 9, 0), (15, 3, 50, 32), (4, 4, 80, 12), (0, 0, 9, 9)])
def test_mcnemar_is_that_of_scipy_and_statsmodels(lost: int, gained: int, right: int, wrong: int) -> None:
    pairs, alone = pair_logs(*two(lost, gained, right, wrong))
    [change] = log_changes(pairs, 0.05)
    assert (change.test, change.lost, change.gained, alone) == ("exact McNemar", lost, gained, {})
    table = np.array([[right, lost], [gained, wrong]])
    assert change.p_value == pytest.approx(min(1.0, mcnemar(table, exact=True).pvalue), rel=1e-9)
    if lost + gained:
        assert change.p_value == pytest.approx(stats.binomtest(lost, lost + gained).pvalue, rel=1e-9)
    assert change.change.plain == pytest.approx((gained - lost) / (lost + gained + right + wrong))


def test_mcnemar_by_hand() -> None:
    """5 lost, 1 gained: 2 (C(6,0) + C(6,1)) / 2^6 = 14 / 64."""
    [change] = log_changes(pair_logs(*two(5, 1, 10, 4))[0], 0.05)
    assert change.p_value == pytest.approx(14 / 64, rel=1e-12)
    assert (change.first, change.second) == (15 / 20, 11 / 20)


def test_items_of_one_cluster_are_one_question() -> None:
    """Ten passages of ten questions, all of a passage alike: the interval is that of ten questions and not of a hundred."""
    names = [f"passage {i // 10}" for i in range(100)]
    first, second = [1.0] * 100, [0.0] * 20 + [1.0] * 80
    [alone] = log_changes(pair_logs(items({"acc": first}), items({"acc": second}))[0], 0.05)
    clustered_items = items({"acc": first}, clusters=names), items({"acc": second}, clusters=names)
    [clustered] = log_changes(pair_logs(*clustered_items)[0], 0.05)
    assert (alone.test, clustered.test) == ("exact McNemar", "clustered")
    assert alone.change.value == clustered.change.value == pytest.approx(-0.2)
    assert clustered.change.n == 10
    assert clustered.change.high - clustered.change.low > 1.5 * (alone.change.high - alone.change.low)
    assert alone.p_value < 0.001 < clustered.p_value


def test_swapping_the_logs_flips_the_sign() -> None:
    first, second = two(15, 3, 50, 32)
    [there], [back] = (log_changes(pair_logs(*each)[0], 0.05) for each in ((first, second), (second, first)))
    assert there.change.value == pytest.approx(-back.change.value)
    assert (there.change.low, there.change.high) == pytest.approx((-back.change.high, -back.change.low))
    assert (there.p_value, there.lost) == (back.p_value, back.gained)


def test_a_log_against_itself_changed_nothing() -> None:
    first, _ = two(15, 3, 250, 132)
    [change] = log_changes(pair_logs(first, first)[0], 0.05)
    assert (change.change.value, change.p_value, change.lost, change.gained) == (0.0, 1.0, 0, 0)
    assert change.equivalent
    assert change.not_worse


def test_scores_on_a_scale_and_without_one() -> None:
    generator = np.random.default_rng(0)
    marks = generator.uniform(20, 80, 40)
    first = items({"mark": marks.tolist(), "loss": (marks / 7 - 40).tolist()})
    second = items({"mark": (marks - 10).tolist(), "loss": (marks / 7 - 39 + generator.normal(0, 0.1, 40)).tolist()})
    mark, loss = log_changes(pair_logs(first, second)[0], 0.05)
    assert (mark.change.unit, mark.change.value) == ("score 0-100", pytest.approx(-10))
    assert (mark.higher_is_better, loss.higher_is_better) == (True, False)
    assert (loss.primary, loss.p_holm) == (False, None)
    assert loss.change.low < 1.0 < loss.change.high
    assert mark.p_value < 0.01
    assert not mark.not_worse


def test_holm_is_over_the_tasks() -> None:
    first, second = two(5, 1, 10, 4)
    other = (
        [LogItem(**{**vars(one), "task": "art"}) for one in first],
        [LogItem(**{**vars(one), "task": "art"}) for one in second],
    )
    changes = log_changes(pair_logs([*first, *other[0]], [*second, *other[1]])[0], 0.05)
    assert [change.p_holm for change in changes] == [pytest.approx(28 / 64)] * 2


def test_flips_go_both_ways_with_their_text() -> None:
    flips = flips_of(pair_logs(*two(2, 1, 3, 3))[0])
    assert [(flip.id, flip.lost, flip.prompt) for flip in flips] == [
        ("0", True, "question 0"),
        ("1", True, "question 1"),
        ("2", False, "question 2"),
    ]


def test_judges_agree_beyond_chance() -> None:
    """By hand: 8 of 10 alike, both say yes half the time: kappa (0.8 - 0.5) / 0.5 = 0.6."""
    one, other = [1.0] * 5 + [0.0] * 5, [1.0] * 4 + [0.0] * 5 + [1.0]
    [judges] = judges_of(pair_logs(items({"a": one, "b": other}), items({"a": one, "b": other}))[0])
    assert (judges.first, judges.second, judges.answers, judges.same) == ("a", "b", 20, pytest.approx(0.8))
    assert judges.kappa == pytest.approx(0.6)


def test_items_of_one_log_alone_are_counted_and_repeats_are_paired_in_order() -> None:
    first, second = two(2, 1, 3, 3)
    pairs, alone = pair_logs([*first, first[0]], second[1:])
    assert (len(pairs[0].first), alone) == (8, {"law": 2})


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    """JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def rows(right: list[bool], **more: object) -> list[dict[str, object]]:
    """Items as people have them."""
    return [{"id": i, "correct": value, "prompt": f"q{i}", "answer": "a", **more} for i, value in enumerate(right)]


def test_json_lines_are_compared_with_a_page_and_a_forecast(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", rows([True] * 30 + [False] * 10, task="us law exams"))
    second = write(tmp_path / "b.jsonl", rows([False] * 20 + [True] * 10 + [False] * 10, task="us law exams"))
    (tmp_path / "run").mkdir()
    report = sample_report(effects=[effect("law", 0.9, -0.4, finding="affected"), effect("art", 0.1, 0.0)])
    (tmp_path / "run" / "report.json").write_text(report.to_json(), encoding="utf-8")
    found = compare_logs(first, second, audit=tmp_path / "run", out=tmp_path / "out")
    [change] = found.changes
    assert (change.change.value, change.forecast.value, change.forecast_said) == (-0.5, -0.4, "law: affected")
    assert len((tmp_path / "out" / "flips.jsonl").read_text("utf-8").splitlines()) == 20
    assert len(found.flips) == 12
    stored = (tmp_path / "out" / "logs.json").read_text("utf-8")
    assert LogComparison.model_validate_json(stored) == found
    show_logs(found, tmp_path / "out", json=True)
    assert "us law exams got worse" in (tmp_path / "out" / "logs.html").read_text("utf-8")
    result = gate_of(found, Policy())
    assert (result.outcome, result.checks[0].area) == ("fail", "us law exams")


BAD = {
    "gone": (None, "does not exist"),
    "no JSON": ("x\n", "line 1: no JSON"),
    "a number": ("3\n", "line 1: a int, expected an object"),
    "no id": ('{"correct": true}\n', "line 1: no id. Expected one of id, doc_id"),
    "no score": ('{"id": 1, "answer": "x"}\n', "line 1: no score"),
    "NaN": ('{"id": 1, "score": NaN}\n', "line 1: no score"),
    "empty": ("", "holds no item with a score"),
    "not UTF-8": (b"\xff\xfe{}", "cannot be read as a log"),
    "a doc without metrics": ('{"doc_id": 1, "metrics": "acc"}\n', "line 1: no score"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_log_is_one_sentence(tmp_path: Path, name: str) -> None:
    content, words = BAD[name]
    path = tmp_path / "log.jsonl"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(BadRows, match=words) as found:
        read_log(path, Fields("cluster", None))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04", b"{}", b'{"samples": 3}', b'{"samples": [3]}', b'{"samples": [{"scores": 3}]}']
)
@pytest.mark.parametrize("suffix", [".eval", ".json"])
def test_what_is_no_log_of_inspect_is_one_sentence(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"log{suffix}").write_bytes(content)
    with pytest.raises(BadRows):
        read_log(tmp_path / f"log{suffix}", Fields("cluster", None))


def test_logs_without_a_common_item_are_refused(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.jsonl", rows([True], task="x")), write(tmp_path / "b.jsonl", rows([True], task="y"))
    with pytest.raises(BadRows, match="No item with a score is in both"):
        compare_logs(first, second, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
