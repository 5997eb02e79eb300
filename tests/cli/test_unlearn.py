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
from mneme.unlearn.options import UnlearnOptions

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
def called(monkeypatch: pytest.MonkeyPatch) -> list[UnlearnOptions]:
    """Puts a hand-made record in place of the job; holds what it was called with."""
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
