"""Judging on the real bench: no family judges itself, grey cells decide nothing, figures by hand; kept results read back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mneme.bench.real.cells import CellChange, Verdict
from mneme.bench.real.judging import (
    RealCell,
    Said,
    base_rate,
    covered,
    equal_mass_ece,
    families_alarmed,
    judge,
    real_figures,
    spearman,
    target_alone,
)
from mneme.bench.real.kept import real_cells, signal_predictors
from mneme.bench.real.measured import key_of_items, read_kept, write_kept
from mneme.bench.real.signals import SIGNALS
from mneme.results import Estimate
from mneme.stats import Rate


def placed(pair: str, family: str, area: str, change: float, verdict: Verdict, *, target: bool = False) -> RealCell:
    rate = Rate(Estimate(value=change, low=change, high=change, unit="nats", n=50), 0.05, 49.0, 0.5)
    return RealCell(pair, family, ("knowledge", area), target, CellChange(rate, rate, verdict, 0.3, None, None, 0.3))


def bench(families: int = 4, areas: int = 10) -> list[RealCell]:
    """A fine-tune a family; areas with an even number changed, by more the higher."""
    return [
        placed(f"p{f}", f"f{f}", f"a{a}", -0.1 * a * (a % 2 == 0), "material" if a % 2 == 0 and a else "immaterial")
        for f in range(families)
        for a in range(areas)
    ]


def sizes(cells: list[RealCell], scale: dict[str, float]) -> dict[str, dict[tuple[str, str], Said]]:
    found: dict[str, dict[tuple[str, str], Said]] = {}
    for one in cells:
        size = scale.get(one.family, 1.0) * (abs(one.truth.size.estimate.value) + 0.01)
        found.setdefault(one.pair, {})[one.cell] = Said(size, -1)
    return found


def test_a_predictor_that_sees_all_is_right_everywhere() -> None:
    cells = bench()
    found = real_figures(cells, judge(cells, sizes(cells, {})), np.ones(len(cells), dtype=bool), seed=0)
    assert {name: found[name].value for name in ("accuracy", "F1", "recall", "direction")} == dict.fromkeys(
        ("accuracy", "F1", "recall", "direction"), 1.0
    )
    assert found["rank correlation"].value == pytest.approx(1.0)
    assert found["accuracy"].n == 4


def test_a_family_is_judged_by_the_others_alone() -> None:
    """Family 0 speaks in units a thousand times larger: to curves that have not seen it everything there looks changed."""
    cells = bench()
    outcome = judge(cells, sizes(cells, {"f0": 1000.0}))
    assert outcome.probability[:10].min() > 0.5
    own = [placed(one.pair, "f1", one.cell[1], one.truth.size.estimate.value, one.truth.verdict) for one in cells]
    with pytest.raises(KeyError):
        judge(own, {})
    assert judge(own, sizes(own, {})).probability.tolist() == [0.5] * 40  # one family: nothing to fit on


def test_grey_cells_count_for_brier_alone() -> None:
    cells = bench()
    grey = [*cells, placed("p0", "f0", "z", -5.0, "grey")]
    told = sizes(grey, {})
    told["p0"]["knowledge", "z"] = Said(9.0, 1, probability=1.0)
    where = np.ones(len(grey), dtype=bool)
    found = real_figures(grey, judge(grey, told), where, seed=0)
    assert found["accuracy"].value == 1.0
    outcome = judge(grey, told)
    without = outcome._replace(probability=np.append(outcome.probability[:-1], 0.3))  # its truth is 0.3
    assert found["Brier"].value - real_figures(grey, without, where, seed=0)["Brier"].value == pytest.approx(0.7**2 / 41)


def test_a_size_that_was_larger_where_nothing_changed_raises_no_alarm() -> None:
    """In the other families the smaller half is material: the share of material cells is said of every size."""
    cells = [placed(f"p{f}", f"f{f}", str(i), 1.0, ("material", "immaterial")[i // 4]) for f in range(3) for i in range(8)]
    told = {f"p{f}": {one.cell: Said(1.0 + float(one.cell[1])) for one in cells if one.pair == f"p{f}"} for f in range(3)}
    assert judge(cells, told).probability.tolist() == pytest.approx([0.5] * 24)
    turned = {name: {cell: Said(10.0 - said.size) for cell, said in of.items()} for name, of in told.items()}
    found = judge(cells, turned).probability.reshape(3, 8)
    assert (found[:, :4] > 0.5).all()
    assert (found[:, 4:] < 0.5).all()


def test_ranks_and_calibration_by_hand() -> None:
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([1.0, 4.0, 9.0])) == pytest.approx(1.0)
    assert spearman(np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 2.0])) == pytest.approx(-np.sqrt(3) / 2)
    assert spearman(np.ones(3), np.arange(3.0)) == 0.0
    assert equal_mass_ece(np.full(20, 0.25), np.array([1.0, 0.0] * 10)) == pytest.approx(0.25)
    assert equal_mass_ece(np.array([0.0, 1.0] * 10), np.array([0.0, 1.0] * 10)) == 0.0


def test_what_is_known_without_looking() -> None:
    cells = [placed("p0", "f0", "a", 1.0, "material", target=True), placed("p1", "f1", "a", 0.0, "immaterial")]
    cells += [placed("p2", "f2", "a", 0.0, "immaterial"), placed("p2", "f2", "b", 0.0, "grey")]
    rate = base_rate(cells)
    assert rate["p0"]["knowledge", "a"].probability == pytest.approx(1 / 4)  # 0 of 2 clear cells elsewhere
    assert rate["p2"]["knowledge", "a"].probability == pytest.approx(2 / 4)
    assert [target_alone(cells)[f"p{i}"]["knowledge", "a"].probability for i in range(3)] == [1.0, 0.0, 0.0]
    assert covered(cells, [rate, {"p0": rate["p0"]}]) == cells[:1]


def test_alarms_are_counted_by_fine_tune() -> None:
    cells = [placed(f"n{i}", "null", area, 0.0, "immaterial") for i in range(3) for area in "ab"]
    cells += [placed("n3", "null", "a", 1.0, "material")]
    outcome = judge(cells, {one.pair: {other.cell: Said(1.0, 0, 0.0) for other in cells} for one in cells})
    assert families_alarmed(cells, outcome) == (0, 3)
    assert families_alarmed(cells, outcome._replace(probability=np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.9, 1.0]))) == (2, 3)


def test_kept_results_make_cells_and_predictors(tmp_path: Path) -> None:
    items: dict[str, Any] = {
        "knowledge/0": {"physics": [{"cluster": f"s{i}", "tokens": [1, 1], "right": 0} for i in range(20)]},
        "behaviours/0": {"narcissism": [{"cluster": f"b{i}", "tokens": [1, 1], "right": 0} for i in range(20)]},
    }
    write_kept(tmp_path / "items.json", items)
    for name, lower in (("base", 0.0), ("int4-seed0", 1.0)):
        nats = {g: {a: [[-lower * (1 + 0.01 * (i % 3)) - 0.1 * i, -1.0] for i in range(20)] for a in items[g]} for g in items}
        kept = {g: {"key": key_of_items(items[g]), "nats": nats[g]} for g in items}
        write_kept(tmp_path / "measured" / f"{name}.json", kept)
    cells = real_cells(tmp_path)
    assert [(one.pair, one.family, one.cell, one.truth.verdict) for one in cells] == [
        ("int4", "edit", ("knowledge", "physics"), "material"),
        ("int4", "edit", ("behaviour", "narcissism"), "material"),
    ]
    signal = {"physics": [1.0, 3.0], "chats": [0.5]}
    read = {"weights": 0.1, "areas": {a: dict.fromkeys(SIGNALS, values) for a, values in signal.items()}}
    write_kept(tmp_path / "signals" / "int4-seed0.json", read)
    told = signal_predictors(tmp_path, cells)
    assert told["loss_change, of the area"]["int4"]["knowledge", "physics"] == Said(2.0, -1)
    assert told["loss_change, of the area"]["int4"]["behaviour", "narcissism"] == Said(0.5, 0)
    assert told["kl_tuned_to_base, of all text"]["int4"]["knowledge", "physics"] == Said(1.25, 0)


def test_answers_to_other_questions_are_left_out(tmp_path: Path) -> None:
    items = {"knowledge/0": {"physics": [1]}, "knowledge/1": {"physics": [2]}}
    told = {place: {"key": key_of_items(items["knowledge/0"]), "nats": {"x": [[1, [2]], [3]]}} for place in items}
    write_kept(tmp_path / "a.json", told)
    assert read_kept(tmp_path / "a.json", items) == {"knowledge/0": told["knowledge/0"]}
    assert '"x":[[1,[2]],[3]]' in (tmp_path / "a.json").read_text()
    assert read_kept(tmp_path / "b.json", items) == {}
