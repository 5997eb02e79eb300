"""`mneme unlearn` as a shell sees it."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from mneme.cli.main import app
from mneme.cli.unlearn import UnlearnName, lines_of
from mneme.results import Estimate
from mneme.results.unlearn import (
    Relearning,
    StepLosses,
    TextChange,
    Unlearning,
    UnlearningEnvironment,
    UnlearningSettings,
    UnlearningText,
    WeightChange,
)
from mneme.unlearn.settings import METHODS

runner = CliRunner()


def estimate(value: float, unit: str = "nats per token") -> Estimate:
    return Estimate(value=value, low=value - 0.1, high=value + 0.1, unit=unit, n=24)


def sample() -> Unlearning:
    """A record by hand."""
    text = UnlearningText(source="f.txt", sha256="0" * 64, documents=24, tokens=192)
    share = estimate(0.5, "share of known tokens")
    change = TextChange(
        nll_before=estimate(0.5), nll_after=estimate(2.0), change=estimate(1.5), kept=share, measured_documents=24
    )
    nothing = change.model_copy(update={"kept": None})
    return Unlearning(
        model="base",
        fingerprint="0" * 64,
        result="model",
        settings=UnlearningSettings(
            method="npo",
            steps=2,
            learning_rate=1e-5,
            beta=0.1,
            forget_weight=1.0,
            retain_weight=1.0,
            retain_loss="nll",
            layers=[],
            batch_documents=16,
            max_tokens=512,
            lora_rank=None,
            seed=0,
            defaults="arXiv 2404.05868",
        ),
        forget_text=text,
        retain_text=text,
        weights=WeightChange(changed_tensors=3, total_tensors=20, relative=0.0123),
        forget=change,
        retain=nothing,
        relearning=[
            Relearning(
                kind="related",
                documents=10,
                steps=50,
                learning_rate=1e-5,
                kept_before=share,
                kept_after=estimate(0.8, "share of known tokens"),
                change=estimate(-1.0),
            )
        ],
        losses=[StepLosses(step=1, forget=1.0, retain=2.0), StepLosses(step=2, forget=0.5, retain=None)],
        environment=UnlearningEnvironment(
            mneme="0", python="3", torch="2", transformers="5", peft="0", device="cpu", threads=1
        ),
    )


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Puts a hand-made record in place of the job; holds what it was called with."""
    seen: dict[str, Any] = {}

    def pretend(model: str, **options: object) -> Unlearning:
        seen.update(model=model, **options)
        return sample()

    module = ModuleType("mneme.unlearn.run")
    module.unlearn = pretend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mneme.unlearn.run", module)
    return seen


def test_every_option_is_handed_over(called: dict[str, Any], tmp_path: Path) -> None:
    line = (
        "unlearn base --forget f.txt --retain r.jsonl --method rmu --lora 8 --steps 7 --lr 0.001 --beta 2 --forget-weight 3 "
        "--retain-weight 4 --retain-loss kl --layers 3,2 --batch 5 --max-tokens 64 --relearn 9 --seed 6 --threads 2 "
        f"--out {tmp_path}"
    )
    done = runner.invoke(app, line.split())
    assert done.exit_code == 0, done.output
    called.pop("console")
    assert called == {
        "model": "base",
        "forget": "f.txt",
        "retain": "r.jsonl",
        "method": "rmu",
        "lora": 8,
        "steps": 7,
        "learning_rate": 0.001,
        "beta": 2.0,
        "forget_weight": 3.0,
        "retain_weight": 4.0,
        "retain_loss": "kl",
        "layers": [2, 3],
        "batch_documents": 5,
        "max_tokens": 64,
        "relearn_documents": 9,
        "seed": 6,
        "out": tmp_path,
        "threads": 2,
        "device": "cpu",
        "trust_remote_code": False,
        "overwrite": False,
    }


def test_json_is_the_record_alone_on_stdout(called: dict[str, Any]) -> None:
    done = runner.invoke(app, ["unlearn", "base", "--forget", "f.txt", "--retain", "r.txt", "--json"])
    assert json.loads(done.stdout) == json.loads(sample().to_json())
    assert "Audit it: mneme audit base runs/unlearn/model --corpus FILE" in done.stderr


def test_every_figure_has_its_interval_and_number() -> None:
    assert lines_of(sample()) == [
        "npo, 2 steps at 1e-05: 3 of 20 tensors changed, by 1.23% of their norm.",
        "forget: kept 50.0% [40.0%, 60.0%] of what was known; 0.500 -> 2.000 nats per token (+1.500 [+1.400, +1.600], "
        "24 texts)",
        "retain: nothing was known of it; 0.500 -> 2.000 nats per token (+1.500 [+1.400, +1.600], 24 texts)",
        "relearning from 10 related texts: kept 50.0% [40.0%, 60.0%] -> 80.0% [70.0%, 90.0%] of what was known unseen",
    ]


def test_the_methods_of_the_command_are_those_of_the_job() -> None:
    assert tuple(method.value for method in UnlearnName) == METHODS


def test_both_texts_are_required() -> None:
    done = runner.invoke(app, ["unlearn", "base", "--forget", "f.txt"])
    assert done.exit_code == 2
    assert "--retain" in done.output
