"""The whole repair: what it writes, that what is written is what was measured, resuming, and every bad input."""

import importlib
import io
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM

from mneme.errors import BadCorpus, BadOption, BadRun, ModelMismatch, NothingToRepair
from mneme.models.likelihood import token_log_likelihoods
from mneme.models.pair import load_pair
from mneme.repair.methods import METHODS
from mneme.repair.run import repair
from mneme.repair.saving import low_rank, save_repaired
from mneme.repair.strength import weakest_strength
from mneme.repair.workbench import lay_out
from mneme.results.repair import RepairReport
from mneme.runs import RunFolder
from mneme.text.probes import read_probe
from tests.conftest import grouped
from tests.repair.conftest import Repairable, write_words


def repaired(world: Repairable, out: Path, **options: object) -> RepairReport:
    """A repair of the adapter, on one thread and without a word, unless the options say otherwise."""
    chosen: dict[str, object] = {"base": world.base, "tuned": world.adapter, "target": world.target, "retain": world.retain}
    chosen |= {"threads": 1, "steps": 4, "close": 0.3, "console": Console(file=io.StringIO())}
    return repair(**grouped(**(chosen | options)), out=out)


@pytest.fixture(scope="module")
def searched(repairable: Repairable, tmp_path_factory: pytest.TempPathFactory) -> tuple[RepairReport, Path]:
    """All methods on the adapter."""
    out = tmp_path_factory.mktemp("runs") / "all"
    return repaired(repairable, out, other=repairable.other), out


def test_the_search_tries_everything_that_it_can(searched: tuple[RepairReport, Path]) -> None:
    report, _ = searched
    tried, absent = {m.method for m in report.methods}, {a.method for a in report.absent}
    assert tried | absent == set(METHODS)
    assert {"project", "arithmetic", "ablate"} <= absent
    assert [m.method for m in report.methods if m.control] == ["scale", "random"]
    for method in report.methods:
        if method.chosen is not None:
            assert method.chosen.closed.value >= 0.3
    assert report.chosen is not None
    assert not report.method(report.chosen).control


def test_scale_closes_the_stated_share_and_no_more(searched: tuple[RepairReport, Path]) -> None:
    point = searched[0].method("scale").chosen
    assert point is not None
    assert 0.3 <= point.closed.value <= 0.33
    assert abs(point.selectivity.value - (point.closed.value - point.lost.value)) < 1e-9


def test_what_is_written_is_what_was_measured(repairable: Repairable, tmp_path: Path) -> None:
    """regmean keeps the rank of the change, so the adapter is exact."""
    report = repaired(repairable, tmp_path, method="regmean")
    assert report.saved is not None
    assert (report.saved.kind, report.saved.rank) == ("adapter", 2)
    assert report.saved.residual is not None
    assert report.saved.residual < 1e-5
    pair = load_pair(repairable.base, tmp_path / "model")
    probe = read_probe(repairable.target, pair.tokenizer, name="target", max_positions=None).halves()[1]
    with pair.using("tuned") as parts:
        found = token_log_likelihoods(parts, probe.texts)
    chosen = report.method("regmean").chosen
    assert chosen is not None
    path = next(tmp_path.glob(f"stages-*/regmean-{chosen.strength:.5f}.npz"))
    with np.load(path) as stored:
        assert np.allclose(stored["target"], found, atol=1e-4)


def test_a_masked_adapter_becomes_a_whole_model_that_says_the_same(repairable: Repairable, tmp_path: Path) -> None:
    report = repaired(repairable, tmp_path, method="wanda-delta")
    assert report.saved is not None
    assert report.saved.kind == "model"
    assert report.saved.residual is not None
    assert report.saved.residual > 0.01
    AutoModelForCausalLM.from_pretrained(tmp_path / "model")


def test_a_full_fine_tune_is_repaired_too(repairable: Repairable, tmp_path: Path) -> None:
    report = repaired(repairable, tmp_path, tuned=repairable.whole, method="obs", close=0.5)
    assert report.saved is not None
    assert report.saved.kind == "model"
    assert not report.adapter


def test_workbench_strengths_0_and_1_are_tuned_and_base_bit_for_bit(repairable: Repairable) -> None:
    bench = lay_out(load_pair(repairable.base, repairable.whole))
    assert "model.embed_tokens.weight" in bench._others
    own = dict(bench.work.model.named_parameters())
    for strength, source in ((1.0, repairable.base), (0.0, repairable.whole)):
        bench.each(lambda _name, delta, s=strength: delta * (1 - s), strength)
        expected = dict(AutoModelForCausalLM.from_pretrained(source).named_parameters())
        assert all(torch.equal(own[name], weight) for name, weight in expected.items())


def test_an_adapter_is_materialised_layer_by_layer(repairable: Repairable) -> None:
    bench = lay_out(load_pair(repairable.base, repairable.adapter))
    base = AutoModelForCausalLM.from_pretrained(repairable.base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(repairable.base), repairable.adapter)
    merged = merged.merge_and_unload()
    for name in bench.names:
        difference = merged.get_submodule(name).weight - base.get_submodule(name).weight
        assert torch.allclose(bench.delta(name), difference, atol=1e-6)
    assert len(bench.names) == 14


def test_low_rank_reports_what_it_leaves_out() -> None:
    delta = torch.diag(torch.tensor([3.0, 2.0, 1.0]))
    up, down, residual = low_rank(delta, 2)
    assert torch.allclose(up @ down, torch.diag(torch.tensor([3.0, 2.0, 0.0])), atol=1e-6)
    assert residual == pytest.approx(1.0)


def test_saving_leaves_the_adapter_in_memory_as_it_was(repairable: Repairable, tmp_path: Path) -> None:
    bench = lay_out(load_pair(repairable.base, repairable.adapter))
    before = {name: bench.delta(name).clone() for name in bench.names}
    bench.each(lambda _name, delta: 0.5 * delta, 0.5)
    with RunFolder(tmp_path / "out", {"command": "repair"}) as run:
        saved = save_repaired(bench, run)
    assert saved.kind == "adapter"
    assert all(torch.equal(bench.delta(name), delta) for name, delta in before.items())


def test_the_same_call_again_computes_nothing_anew(
    repairable: Repairable, searched: tuple[RepairReport, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    report, out = searched
    first = (out / "repair.json").read_bytes()
    trained: list[str] = []
    monkeypatch.setattr(
        importlib.import_module("mneme.repair.methods"), "train_correction", lambda *_a, **_k: trained.append("again")
    )
    again = repaired(repairable, out, other=repairable.other)
    assert trained == []
    assert (out / "repair.json").read_bytes() == first
    assert again == report
    assert RepairReport.model_validate(json.loads(first)) == report


def test_search_finds_the_weakest_strength() -> None:
    assert weakest_strength(lambda s: s, 0.8) == pytest.approx(0.81, abs=0.02)
    assert weakest_strength(lambda s: 0.5 * s, 0.8) is None
    assert weakest_strength(lambda s: float(s > 0.37), 0.8) == pytest.approx(0.37, abs=0.01)
    with pytest.raises(BadOption, match="cannot be closed: expected more than 0 and at most 1"):
        weakest_strength(lambda s: s, 0.0)


def test_bad_inputs_say_one_clear_sentence_and_write_nothing(repairable: Repairable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    empty = tmp_path / "empty.txt"
    empty.write_text("")
    cases: list[tuple[type[Exception], str, dict[str, object]]] = [
        (NothingToRepair, "have equal weights, so there is nothing to repair", {"tuned": repairable.base}),
        (BadCorpus, "is empty", {"target": empty}),
        (BadCorpus, "stand both in the target and in the retained file", {"retain": repairable.target}),
        (BadOption, "No target and no retain text", {"target": None, "retain": None}),
        (BadOption, "--close 1.5: expected a number above 0 to 1", {"close": 1.5}),
        (BadOption, "project cannot be used here: it needs the model before alignment", {"method": "project"}),
        (BadOption, "Give both BASE and TUNED", {"base": None}),
        (BadRun, "No report at", {"from_run": tmp_path}),
    ]
    for error, words, options in cases:
        with pytest.raises(error, match=words):
            repaired(repairable, out, **options)
    assert not out.exists()


def test_a_target_that_the_base_shows_as_well_is_refused(repairable: Repairable, tmp_path: Path) -> None:
    """Only the last words' embeddings changed, so text of the first words is as likely as before."""
    model = AutoModelForCausalLM.from_pretrained(repairable.base)
    for weight in model.model.layers[1].mlp.parameters():
        weight.data += 1e-6
    model.save_pretrained(tmp_path / "tuned")
    shutil.copy(repairable.base / "tokenizer.json", tmp_path / "tuned")
    with pytest.raises(NothingToRepair, match="The target text is as likely under the base as under the tuned model"):
        repaired(repairable, tmp_path / "out", tuned=tmp_path / "tuned")
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_base_is_refused(repairable: Repairable, tmp_path: Path) -> None:
    with pytest.raises(ModelMismatch, match="was trained on"):
        repaired(repairable, tmp_path / "out", base=repairable.whole)


def test_no_method_reaches_too_much(repairable: Repairable, tmp_path: Path) -> None:
    """retrain alone cannot undo nearly everything in 4 steps: no model is written, the controls stand beside it."""
    words = (repairable.target.read_text() + "\n" + repairable.other.read_text()).split()
    target = write_words(tmp_path / "target.txt", sorted(set(words)), 9, lines=40)
    report = repaired(repairable, tmp_path / "out", target=target, method="retrain", close=0.95)
    assert report.chosen is None
    assert report.saved is None
    assert not (tmp_path / "out" / "model").exists()
    assert {m.method for m in report.methods} == {"scale", "random", "retrain"}
