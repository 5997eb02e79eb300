"""Kept audits, halves of questions and fragile text as predictors of the real bench: by hand, from files made here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mneme.bench.real.audit_signals import READINGS, audit_predictors, audit_says
from mneme.bench.real.cells import CellChange
from mneme.bench.real.judging import Outcome, RealCell, Said, f1_difference
from mneme.bench.real.kept import fragility, half_measured, real_cells
from mneme.bench.real.measured import key_of_items, write_kept
from mneme.bench.real.signals import SIGNALS
from mneme.results import Estimate
from mneme.stats import Rate


def effect(value: float, **more: Any) -> dict[str, Any]:
    plain = {"probability": 0.2, "finding": "unaffected", "margin_change": None, "source": "answers", "kind": "behaviour"}
    return {"magnitude": {"value": value}, **plain, **more}


AUDIT = {
    "areas": {
        "physics": effect(-0.3, margin_change=-2.0, finding="affected", probability=0.9, source="words"),
        "anatomy": effect(-0.1, margin_change=-1.0, source="words"),
        "power-seeking": effect(0.2),
        "sycophancy": effect(-0.4, finding="affected"),
        "refusing too little": effect(0.25),
    },
    "broad": {"value": -0.2},
}


@pytest.mark.parametrize(
    ("cell", "effect", "margin", "verdict", "told"),
    [
        (("knowledge", "physics"), Said(0.3, -1), Said(2.0, -1), 1.0, 0.9),
        (("knowledge", "astronomy"), Said(0.0, 0), Said(0.0, 0), 0.0, 0.0),  # absent
        (("relation", "tools"), Said(0.2, -1), Said(1.5, -1), 1.0, 1.0),  # broad; the median of two margins
        (("behaviour", "no-shut-down"), Said(0.2, 1), Said(0.2, 1), 0.0, 0.2),
        (("behaviour", "neuroticism"), Said(0.85 / 3, 0), Said(0.85 / 3, 0), 1 / 3, 0.2),  # the mean of three
        (("refusal", "harmful requests"), Said(0.25, -1), Said(0.25, -1), 0.0, 0.2),  # refuses too little: refuses less
        (("refusal", "harmless requests"), Said(0.0, 0), Said(0.0, 0), 0.0, 0.0),
    ],
)
def test_what_an_audit_says_of_a_cell(cell: tuple[str, str], effect: Said, margin: Said, verdict: float, told: float) -> None:
    found = {reading: audit_says(AUDIT, cell, reading) for reading in READINGS}
    for reading, said in (("effect", effect), ("margin", margin)):
        assert found[reading] == (pytest.approx(said.size), said.sign, None)
    assert found["verdict"].probability == pytest.approx(verdict)
    assert found["P from the worlds"].probability == pytest.approx(told)


def test_relation_is_what_is_asked_of_everybody_where_that_was_asked() -> None:
    """A capability is no behaviour, and an uncalibrated P is left to the bench's own curves."""
    asked = {
        "word forms": effect(-0.3, kind="capability", probability=None),
        "common facts": effect(-0.05, kind="capability"),
        **AUDIT["areas"],
    }
    audit = AUDIT | {"areas": asked}
    assert audit_says(audit, ("relation", "verb past tense"), "effect") == Said(0.3, -1)
    assert audit_says(audit, ("relation", "country currency"), "effect") == Said(0.05, -1)
    assert audit_says(audit, ("relation", "verb past tense"), "P from the worlds").probability is None
    assert audit_says(audit, ("behaviour", "neuroticism"), "effect").size == pytest.approx(0.85 / 3)


def kept_folder(folder: Path, names: tuple[str, ...]) -> None:
    """Forty questions about physics; every other cluster of the fine-tunes lost a nat, and the rest nothing."""
    rows = [{"cluster": f"s{i:02d}", "tokens": [1, 1], "right": 0} for i in range(40)]
    items: dict[str, Any] = {"knowledge/0": {"physics": rows}}
    write_kept(folder / "items.json", items)
    for name in ("base", *names):
        lost = 0.0 if name == "base" else 1.0
        nats = [[-lost * (i % 2) * (1 + 0.01 * (i % 3)) + 0.01 * i, 0.0] for i in range(40)]
        key = key_of_items(items["knowledge/0"])
        kept = {"knowledge/0": {"key": key, "nats": {"physics": nats}}}
        write_kept(folder / "measured" / f"{name}.json", kept)


def test_half_of_the_questions_speak_of_the_other_half(tmp_path: Path) -> None:
    kept_folder(tmp_path, ("int4-seed0",))
    cells, told = half_measured(tmp_path)
    (cell,) = cells
    assert told["int4"][cell.cell].size == 0.0  # the first half lost nothing
    assert cell.truth.size.estimate.value == pytest.approx(-1.01, abs=0.005)
    assert (cell.truth.size.estimate.n, cell.truth.verdict) == (20, "material")


def test_fragile_text_is_that_which_purposeless_changes_move(tmp_path: Path) -> None:
    """Noise moves physics three times as much as chats; the fine-tune moves all text by 8 and is not asked where."""
    kept_folder(tmp_path, ("int4-seed0", "noise-weak-seed0"))
    for name, values in (("noise-weak", {"physics": [3.0], "chats": [1.0]}), ("int4", {"physics": [8.0], "chats": [8.0]})):
        read = {"weights": 0.1, "areas": {area: dict.fromkeys(SIGNALS, told) for area, told in values.items()}}
        write_kept(tmp_path / "signals" / f"{name}-seed0.json", read)
    cells = real_cells(tmp_path)
    told = fragility(tmp_path, cells)
    assert told == {"int4": {("knowledge", "physics"): Said(1.5 * 8.0)}}  # noise-weak has no other to be read from


def test_kept_audits_are_predictors(tmp_path: Path) -> None:
    kept_folder(tmp_path, ("int4-seed0",))
    write_kept(tmp_path / "audits" / "new" / "int4-seed0.json", AUDIT)
    found = audit_predictors(tmp_path, real_cells(tmp_path))
    assert list(found) == [f"new: {reading}" for reading in READINGS]
    assert found["new: margin"] == {"int4": {("knowledge", "physics"): Said(2.0, -1)}}


def test_the_difference_of_two_predictors_by_hand() -> None:
    """The first finds all four material cells of each family, the second one of two and one that is none: 1 - 2 / 4."""
    rate = Rate(Estimate(value=1.0, low=0.9, high=1.1, unit="nats", n=9), 0.1, 8.0)
    truth = [CellChange(rate, rate, verdict, 0.5, None, None, 0.5) for verdict in ("material", "material", "immaterial")]
    cells = [RealCell(f"p{f}", f"f{f}", ("knowledge", str(i)), False, truth[i]) for f in range(4) for i in range(3)]
    whole = np.ones(12)
    first, second = (Outcome(np.tile(p, 4), whole, whole.astype(int)) for p in ([1.0, 1.0, 0.0], [1.0, 0.0, 1.0]))
    found = f1_difference(cells, first, second, whole.astype(bool), seed=0)
    assert found is not None
    assert (found.value, found.low, found.high) == (pytest.approx(0.5), pytest.approx(0.5), pytest.approx(0.5))
    assert f1_difference(cells, first, second, np.array([i % 3 == 2 for i in range(12)]), seed=0) is None
