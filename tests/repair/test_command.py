"""`mneme repair` as a command, its page, and that text which comes from strangers stays text."""

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mneme.cli.main import app, main
from mneme.options.fields import choices_of, specs
from mneme.repair.methods import METHODS
from mneme.repair.options import RepairOptions
from mneme.repair.search import DESCRIPTIONS
from mneme.report.repair import render_repair
from mneme.results import Estimate
from mneme.results.repair import ProbeText, Reaudit, RepairMethod, RepairPoint, RepairReport, SavedRepair
from tests.repair.conftest import Repairable


def share(value: float) -> Estimate:
    """A share with an interval of 0.1 either way."""
    return Estimate(value=value, low=value - 0.1, high=value + 0.1, unit="share", n=20)


def report(text: str = "plain") -> RepairReport:
    """A repair of two methods by hand; `text` stands wherever words come from outside."""
    point = RepairPoint(strength=0.5, closed=share(0.82), lost=share(0.04), selectivity=share(0.78))
    scale = RepairPoint(strength=0.8, closed=share(0.8), lost=share(0.7), selectivity=share(0.1))
    probe = ProbeText(source="target", texts=40, tokens=900, change=1.2, examples=[text])
    methods = [
        RepairMethod(
            method=name,
            description=DESCRIPTIONS[name],
            control=name == "scale",
            points=[chosen],
            chosen=chosen,
            energy_removed=0.3,
            other_change=share(-0.1),
            coherent=share(0.9),
        )
        for name, chosen in (("scale", scale), ("regmean", point))
    ]
    return RepairReport(
        base=text,
        tuned=text,
        adapter=True,
        changed_layers=28,
        goal=0.8,
        target=probe,
        retain=probe,
        other=None,
        methods=methods,
        absent=[],
        chosen="regmean",
        tuned_coherent=share(0.9),
        tuned_other_change=None,
        saved=SavedRepair(kind="adapter", folder="model", rank=4, residual=1e-6),
        reaudit=[
            Reaudit(
                area=text,
                kind="capability",
                intended=False,
                probability_before=0.97,
                probability_after=0.02,
                before=Estimate(value=-0.5, low=-0.6, high=-0.4, unit="accuracy on known tokens", n=30),
                after=Estimate(value=0.0, low=-0.01, high=0.01, unit="accuracy on known tokens", n=30),
            )
        ],
        seed=0,
        versions={"mneme": "0", "torch": "2"},
    )


def test_the_page_says_what_was_undone_and_what_it_cost() -> None:
    page = render_repair(report())
    assert "82 % of the side effect is undone, 4 % of the purpose is lost." in " ".join(page.split())
    assert "To undo as much, scale loses 70 %." in page
    assert "adapter of rank 4" in page
    assert "Audited again" in page
    assert page.count('class="line') == 4
    assert "http" not in re.sub(r"http-equiv", "", page)


def test_text_from_outside_stays_text() -> None:
    page = render_repair(report('<script>alert("x")</script>'))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_every_method_is_a_choice_of_the_command_and_has_words() -> None:
    [field] = [spec for spec in specs(RepairOptions) if spec.name == "method"]
    assert choices_of(field.type) == ("all", *METHODS)
    assert set(DESCRIPTIONS) == set(METHODS)


def test_the_command_writes_model_page_and_record(repairable: Repairable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    asked = ["repair", str(repairable.base), str(repairable.adapter), "--target", str(repairable.target)]
    asked += ["--retain", str(repairable.retain), "--method", "regmean", "--close", "0.3", "--out", str(out), "--json"]
    done = CliRunner().invoke(app, [*asked, "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["chosen"] == "regmean"
    assert (out / "model" / "adapter_model.safetensors").is_file()
    assert (out / "repair.html").read_text().startswith("<!doctype html>")
    assert "Plan: 3 methods" in done.stderr


def test_the_command_exits_with_1_where_nothing_reaches_the_share(repairable: Repairable, tmp_path: Path) -> None:
    asked = ["repair", str(repairable.base), str(repairable.adapter), "--target", str(repairable.target)]
    asked += ["--retain", str(repairable.retain), "--method", "patch", "--steps", "1", "--close", "0.95"]
    done = CliRunner().invoke(app, [*asked, "--out", str(tmp_path), "--threads", "1"])
    assert done.exit_code == 1
    assert "no method closes 0.95 of the gap; no model was written" in done.stderr
    assert not (tmp_path / "model").exists()


def test_bad_input_is_one_sentence_and_exit_code_2(
    repairable: Repairable, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["repair", str(repairable.base), str(repairable.adapter), "--out", str(tmp_path / "out")])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("mneme: No target and no retain text.")
    assert "Traceback" not in said
    assert not (tmp_path / "out").exists()
