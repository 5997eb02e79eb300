"""The whole job on a model that knows two sets of texts: one goes, the other stays; what cannot be done is said."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from mneme.errors import BadCorpus, BadModel, BadOption, MnemeError, UnlearningFailed
from mneme.models import fitting
from mneme.models.pair import load_pair
from mneme.options import Machine, Progress, Training
from mneme.results.unlearn import Unlearning
from mneme.unlearn.run import unlearn
from tests.conftest import grouped, keep_every
from tests.unlearn.conftest import Known


def console() -> Console:
    return Console(file=io.StringIO(), width=400)


def run(known: Known, out: Path, **options: Any) -> Unlearning:
    given = {"forget": known.forget, "retain": known.retain, "steps": 25, "learning_rate": 3e-3, "threads": 1}
    return unlearn(known.model, out=out, **grouped(**{"console": console(), **given, **options}))


@pytest.mark.parametrize(("method", "lora"), [("npo", None), ("npo", 4), ("grad-diff", None)])
def test_the_forget_set_goes_and_the_retain_set_stays(known: Known, tmp_path: Path, method: str, lora: int | None) -> None:
    """Planted: both sets are known by heart before."""
    said = console()
    result = run(
        known, tmp_path / "out", method=method, lora_rank=lora or 0, learning_rate=2e-2 if lora else 3e-3, console=said
    )
    assert result.forget.kept is not None
    assert result.retain.kept is not None
    assert result.forget.kept.value < 0.3
    assert result.retain.kept.value > 0.9
    assert result.forget.change.low > 1.0
    assert result.forget.nll_after.value - result.forget.nll_before.value == pytest.approx(result.forget.change.value)
    assert [row.step for row in result.losses] == list(range(1, 26))
    assert json.loads((tmp_path / "out" / "unlearn.json").read_text())["schema"] == "mneme.unlearning/1"
    assert Unlearning.model_validate_json((tmp_path / "out" / "unlearn.json").read_text()) == result
    plan = said.file.getvalue().splitlines()[0]  # type: ignore[attr-defined]
    assert plan.startswith(f"Plan: 25 steps of {method} on 8 texts of either set, ")
    assert " s here, peak memory about " in plan
    pair = load_pair(known.model, tmp_path / "out" / "model")
    assert pair.adapter is (lora is not None)
    assert result.weights.changed_tensors > 0
    assert 0 < result.weights.relative < 1


def test_relearning_is_measured_on_texts_that_the_attack_did_not_see(known: Known, tmp_path: Path) -> None:
    result = run(known, tmp_path / "out", relearn=12)
    related, unrelated = result.relearning
    assert (related.kind, unrelated.kind) == ("related", "unrelated")
    assert related.change.n == unrelated.change.n == 12
    assert related.documents == 12
    assert related.kept_before is not None
    assert related.kept_after is not None
    assert related.kept_after.value >= related.kept_before.value


def test_a_killed_run_ends_with_the_same_bytes(known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(known, tmp_path / "one")
    keep, kept = fitting._keep, []
    keep_every(monkeypatch, 1)

    def kill(*given: Any) -> None:
        keep(*given)
        kept.append(given)
        if len(kept) == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(fitting, "_keep", kill)
    with pytest.raises(KeyboardInterrupt):
        run(known, tmp_path / "two")
    assert not (tmp_path / "two" / "unlearn.json").exists()
    assert not (tmp_path / "two" / "model").exists()
    monkeypatch.setattr(fitting, "_keep", keep)
    run(known, tmp_path / "two")
    for name in ("unlearn.json", "model/model.safetensors"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_finished_run_is_repeated_from_its_stages(known: Known, tmp_path: Path) -> None:
    first = run(known, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "model")
    assert run(known, tmp_path / "out") == first
    assert (tmp_path / "out" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"learning_rate": 0.0}, UnlearningFailed, r"the weights did not change in 25 steps of npo at a learning rate of 0; "),
        (
            {"steps": 1, "learning_rate": 1e-5},
            UnlearningFailed,
            r"the forget set is still answered after 1 steps of npo: .* nats per token \[.*\]; of the tokens it knew, 100% "
            r"are still its first choice \[\d+%, 100%\]\. No model was written\. Give more --steps",
        ),
        ({"relearn": 24}, BadOption, r"--relearn 24 needs more texts than that to forget .* there are 24 and 24"),
        ({"max_tokens": 1}, BadOption, r"--max-tokens 1: expected a whole number from 2"),
    ],
)
def test_what_fails_says_so_and_writes_no_model(
    known: Known, tmp_path: Path, options: dict[str, Any], kind: type[MnemeError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        run(known, tmp_path / "out", **options)
    assert not (tmp_path / "out" / "model").exists()
    assert not (tmp_path / "out" / "unlearn.json").exists()


def test_texts_that_are_not_two_sets(known: Known, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BadCorpus, match="are the same text"):
        run(known, out, retain=known.forget)
    mixed, empty = tmp_path / "mixed.txt", tmp_path / "empty.txt"
    mixed.write_text("\n".join((*known.retain_texts, *known.forget_texts[:3])))
    with pytest.raises(BadCorpus, match=rf"3 of 24 texts of --forget are also in --retain, first '{known.forget_texts[0]}'"):
        run(known, out, retain=mixed)
    empty.write_text("")
    for given in ({"forget": empty}, {"retain": empty}):
        with pytest.raises(BadCorpus, match=r"empty.txt is empty"):
            run(known, out, **given)
    assert not out.exists()


def test_models_that_cannot_be_unlearned_so(known: Known, tmp_path: Path) -> None:
    bare, adapter = tmp_path / "bare", tmp_path / "adapter"
    shutil.copytree(known.model, bare)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    with pytest.raises(BadModel, match="has no tokenizer"):
        unlearn(
            bare,
            forget=known.forget,
            retain=known.retain,
            out=tmp_path / "out",
            progress=Progress(console()),
        )
    run(known, adapter, lora_rank=4, learning_rate=2e-2)
    with pytest.raises(BadOption, match=r"is an adapter, and one on top of it would fit no base"):
        unlearn(
            adapter / "model",
            forget=known.forget,
            retain=known.retain,
            out=tmp_path / "out",
            training=Training(lora_rank=2),
            progress=Progress(console()),
        )


def test_an_adapter_can_be_unlearned_into_a_whole_model(known: Known, tmp_path: Path) -> None:
    run(known, tmp_path / "first", lora_rank=4, learning_rate=2e-2)
    result = unlearn(
        tmp_path / "first" / "model",
        forget=known.retain,
        retain=known.forget,
        out=tmp_path / "second",
        training=Training(steps=25, learning_rate=1e-2),
        machine=Machine(threads=1),
        progress=Progress(console()),
    )
    assert result.weights.changed_tensors > 0
    assert (tmp_path / "second" / "model" / "model.safetensors").is_file()
