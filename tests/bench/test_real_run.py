"""`mneme bench --real` around what takes hours: what an audit is given, what is kept, and what is written at the end."""

import json
from pathlib import Path

import pytest

from mneme.bench.real import run
from mneme.bench.real.measured import key_of_items, write_kept
from mneme.bench.real.signals import SIGNALS
from mneme.cli.bench import bench
from mneme.errors import BadOption, BadOrganism
from mneme.predict.areas import read_areas
from mneme.worlds.real.data import SUBJECTS, Paragraph

TUNED = ("int4", "gsm8k", "insecure")
"""Of three families."""


def test_what_an_audit_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Books take turns, in text that may be read; areas are subjects and what ships with paired answers, no question."""
    asked: list[str] = []

    def book(_: Path, subject: str, part: str) -> list[Paragraph]:
        asked.append(part)
        return [Paragraph(f"{subject} {i}", subject, f"m{i}") for i in range(30)]

    monkeypatch.setattr(run, "paragraphs", book)
    rows = [json.loads(line)["text"] for line in run.write_corpus(tmp_path, tmp_path).read_text("utf-8").splitlines()]
    assert set(asked) == {"read"}
    assert len(rows) == 12 * run.READ_PARAGRAPHS
    assert [row.split()[0] for row in rows[:13]] == [*SUBJECTS, SUBJECTS[0]]
    areas = read_areas(run.write_areas(tmp_path))
    assert [area.name for area in areas if area.kind == "capability"] == [*SUBJECTS, "word forms", "common facts"]
    assert {"power-seeking", "refusing too much", "refusing too little"} <= {area.name for area in areas}


def test_names_are_checked() -> None:
    assert run.real_names(["int4", "gsm8k"]) == ["gsm8k", "int4"]  # in the order of the recipes
    with pytest.raises(BadOption, match=r"no real fine-tune called chaos\. Give some of: forget-"):
        run.real_names(["chaos"])


def test_missing_data_stop_the_command_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(BadOrganism, match="text and questions of the real bench are not at"):
        bench(real=tmp_path, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_end_is_a_record_of_all_predictors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three fine-tunes that were measured and read before: real.json says what the tables say."""
    kept = tmp_path / "out" / "real"
    rows = [{"cluster": f"s{i}", "tokens": [1, 1], "right": 0} for i in range(30)]
    items = {"knowledge/0": {"physics": rows, "anatomy": rows}}
    write_kept(kept / "items.json", items)
    for name, lost in (("base", 0.0), *((f"{one}-seed0", 1.0) for one in TUNED)):
        nats = {
            area: [[-lost * (area == "physics") * (1 + 0.01 * (i % 3)) + 0.01 * i, 0.0] for i in range(30)]
            for area in items["knowledge/0"]
        }
        write_kept(
            kept / "measured" / f"{name}.json", {"knowledge/0": {"key": key_of_items(items["knowledge/0"]), "nats": nats}}
        )
        areas = {"physics": [4.0], "anatomy": [0.1], "chats": [0.1]}
        read = {"weights": 0.1, "areas": {area: dict.fromkeys(SIGNALS, told) for area, told in areas.items()}}
        if name != "base":
            write_kept(kept / "signals" / f"{name}.json", read)
    monkeypatch.setattr(run, "real_place", lambda data, kept: run.RealPlace(data, kept))
    done: list[str] = []
    monkeypatch.setattr(run, "measure_real", lambda *_: done.append("measured"))
    monkeypatch.setattr(run, "audit_real", lambda *_: done.append("audited"))
    monkeypatch.setattr(run, "arms_real", lambda *_: done.append("read"))
    found = run.bench_real(tmp_path, tmp_path / "out", say=print)
    assert done == ["measured", "audited", "read", "measured"]
    assert (tmp_path / "out" / "real.json").read_text("utf-8") == found.to_json()
    assert sorted(found.fine_tunes) == sorted(TUNED)
    told = {one.predictor: one for one in found.scores if one.scenario == "knowledge"}
    assert (told["base rate"].cells, told["base rate"].material, told["base rate"].pairs) == (6, 3, 3)
    assert told["kl_tuned_to_base, of the area"].figures["accuracy"].value == 1.0
    assert told["kl_tuned_to_base, of all text"].figures["accuracy"].value == pytest.approx(0.5)
