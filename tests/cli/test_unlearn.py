"""`mneme unlearn` as a shell sees it."""

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

from mneme.cli.main import app
from mneme.cli.unlearn import lines_of
from mneme.options import Machine, Training
from mneme.results.unlearn import Unlearning
from mneme.unlearn.options import UnlearnOptions
from tests.report.runs import sample_unlearning as sample

runner = CliRunner()


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[UnlearnOptions]:
    """Puts a hand-made record in place of the job; holds what it was called with. Pages go to a folder of the test."""
    monkeypatch.chdir(tmp_path)
    seen: list[UnlearnOptions] = []

    def pretend(options: UnlearnOptions) -> Unlearning:
        seen.append(options)
        return sample()

    module = ModuleType("mneme.unlearn.run")
    module.run_unlearn = pretend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mneme.unlearn.run", module)
    return seen


def test_every_option_is_handed_over(called: list[UnlearnOptions], tmp_path: Path) -> None:
    line = (
        "unlearn base --forget f.txt --retain r.jsonl --method rmu --lora 8 --steps 7 --lr 0.001 --beta 2 --forget-weight 3 "
        "--retain-weight 4 --retain-loss kl --layers 3,2 --batch 5 --max-tokens 64 --relearn 9 --seed 6 --threads 2 "
        f"--out {tmp_path}"
    )
    done = runner.invoke(app, line.split())
    assert done.exit_code == 0, done.output
    assert called == [
        UnlearnOptions(
            "base",
            forget="f.txt",
            retain="r.jsonl",
            method="rmu",
            beta=2.0,
            forget_weight=3.0,
            retain_weight=4.0,
            retain_loss="kl",
            layers=[2, 3],
            max_tokens=64,
            relearn=9,
            seed=6,
            out=str(tmp_path),
            training=Training(lora_rank=8, steps=7, learning_rate=0.001, batch=5),
            machine=Machine(threads=2),
        )
    ]


def test_json_is_the_record_alone_on_stdout(called: list[UnlearnOptions]) -> None:
    done = runner.invoke(app, ["unlearn", "base", "--forget", "f.txt", "--retain", "r.txt", "--json"])
    assert json.loads(done.stdout) == json.loads(sample().to_json())
    assert "Audit it: mneme audit base runs/unlearn/model --corpus FILE" in done.stderr


def test_every_figure_has_its_interval_and_number() -> None:
    assert lines_of(sample()) == [
        "50 % of what was recalled of the text to forget is still there; nothing was recalled of the text to keep before.",
        "npo, 2 steps at 1e-05: 3 of 20 tensors changed, by 1.23% of their norm.",
        "forget: kept 50.0% [40.0%, 60.0%] of what was recalled; 0.500 -> 2.000 nats per token (+1.500 [+1.400, +1.600], "
        "24 texts)",
        "retain: nothing was recalled of it; 0.500 -> 2.000 nats per token (+1.500 [+1.400, +1.600], 24 texts)",
        "relearning from 10 related texts: kept 50.0% [40.0%, 60.0%] -> 80.0% [70.0%, 90.0%] of what was recalled of unseen "
        "texts",
    ]


def test_both_texts_are_required() -> None:
    done = runner.invoke(app, ["unlearn", "base", "--forget", "f.txt"])
    assert done.exit_code == 2
    assert "--retain" in done.output
