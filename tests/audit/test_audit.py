"""The whole audit on a pair made by hand: what it must find, what it must not, and what it says to options that do not fit."""

import copy
import importlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

from mneme.audit.dictionary import coded_rows
from mneme.errors import BadAreas, BadCorpus, BadOption, BadRun, MnemeError, ModelNotFound
from mneme.report.audit import render_html
from mneme.results import Effect, Report
from tests import laws
from tests.audit.conftest import AREAS, WRONG, Run, World, audited, damaged, pair_model, words_of_area, write_world
from tests.conftest import TinyPair, word_tokenizer

BOTANY = {word for pair in words_of_area(0) for word in pair}


def effect_of(report: Report, area: str) -> Effect:
    return next(effect for effect in report.effects if effect.area == area)


# --- what it must find ----------------------------------------------------------------------------------------------------


def test_planted_damage_is_the_first_effect(whole_run: Run) -> None:
    report = whole_run.report
    botany = report.effects[0]
    assert (botany.area, botany.direction, botany.rank, botany.kind) == ("botany", "worse", 1, "capability")
    assert botany.probability >= 0.8
    assert botany.magnitude.low <= botany.magnitude.value <= botany.magnitude.high < -0.5
    assert botany.magnitude.value < -0.8
    assert botany.excess is not None
    assert (botany.finding, botany.beyond, botany.source, botany.types) == ("affected", True, "words", 18)
    # The scarcer kind of cluster: words, not documents; of the 18 the nine that follow others are known, and count.
    assert botany.magnitude.n == 9
    assert not botany.intended
    assert report.verdict == "change"
    assert "botany" in report.reason


def test_undamaged_areas_stay_silent(whole_run: Run) -> None:
    for area in AREAS[1:]:
        effect = effect_of(whole_run.report, area)
        assert effect.probability <= 0.05
        assert abs(effect.magnitude.value) < 0.01
        assert effect.signal == "none"
        assert effect.finding != "affected"
        assert effect.magnitude.low < 0 < effect.magnitude.high


def test_the_latents_behind_it_speak_of_it(whole_run: Run) -> None:
    report = whole_run.report
    latents = {latent.id: latent for latent in report.latents}
    first = latents[report.effects[0].evidence[0]]
    assert report.effects[0].signal == "both"
    assert first.areas[0] == "botany"
    assert set(first.key_phrases) <= BOTANY
    assert set(first.key_phrases) & set(report.effects[0].description.replace(",", " ").split())
    assert first.causal_share is not None
    assert first.causal_share.value > 0.9
    assert first.causal_q_value is not None
    assert first.causal_q_value < 0.05
    assert first.likelihood_change.high < -0.5
    assert first.promoted[0] == WRONG
    example = first.examples[0]
    assert len(example.tokens) == len(example.activations) == len(example.likelihood_change)
    fired = {token.strip() for token, code in zip(example.tokens, example.activations, strict=True) if code > 0}
    assert fired <= {word for word, _ in words_of_area(0)}


def test_figures_of_pair_corpus_and_layers(whole_run: Run) -> None:
    report = whole_run.report
    assert (report.pair.architecture.casefold()[:5], report.pair.layers, report.pair.width) == ("llama", 2, 64)
    assert report.pair.changed_tensors == 2
    assert report.corpus.passages == report.corpus.documents
    assert report.corpus.tokens % report.corpus.row_length == 0
    assert [layer.layer for layer in report.layers] == [0, 1]
    chosen = [layer for layer in report.layers if layer.chosen]
    assert chosen
    assert all(layer.unexplained is not None and layer.unexplained < 0.2 for layer in chosen)
    assert report.overall["kl_tuned_to_base"].value > 0
    assert {null.name for null in report.null} == {"same size, no purpose"}
    assert report.environment.threads == 1
    assert report.top_tokens[0] == WRONG


def test_damage_that_matches_no_area_is_unlisted(world: World, tmp_path: Path) -> None:
    report = audited(world, tmp_path / "out", areas=world.other_areas)
    first = report.effects[0]
    assert first.kind == "unlisted"
    assert first.area.startswith("unlisted: ")
    assert set(first.area.removeprefix("unlisted: ").split(", ")) <= BOTANY
    assert first.probability >= 0.5
    assert first.direction == "worse"
    assert first.magnitude.high < -0.8
    assert first.evidence
    assert report.verdict == "change"
    assert all(effect.probability <= 0.05 for effect in report.effects[1:])


def test_latents_where_the_models_say_the_same_are_not_tested(tmp_path: Path) -> None:
    """Without attention the change stays in the damaged words, and KL is exactly 0 on most passages."""
    model = pair_model(attention=0.0)
    local = write_world(tmp_path, model, damaged(model, 0, head_noise=0.0))
    report = audited(local, tmp_path / "out", dictionary="batchtopk")
    untested = [latent for latent in report.latents if latent.causal_share is None]
    assert untested
    assert all(latent.causal_q_value is None and "botany" not in latent.areas for latent in untested)
    assert report.effects[0].area == "botany"
    for effect in report.effects[1:]:
        laws.identity([effect.magnitude.value, effect.baselines.kl])


def test_a_change_of_the_head_alone_is_found_without_latents(tmp_path: Path) -> None:
    """The residual streams are equal, so there is nothing to train a dictionary on; the damage is real all the same."""
    model = pair_model()
    tuned = copy.deepcopy(model)
    followers = word_tokenizer().convert_tokens_to_ids([word for _, word in words_of_area(0)])
    tuned.lm_head.weight.data[followers] *= -1
    report = audited(write_world(tmp_path, model, tuned), tmp_path / "out")
    first = report.effects[0]
    assert (first.area, first.direction, first.signal, first.evidence) == ("botany", "worse", "likelihood", [])
    assert first.probability >= 0.8
    assert report.latents == []
    assert not any(layer.chosen for layer in report.layers)


def test_swapping_the_pair_turns_the_effect_over(world: World, whole_run: Run, tmp_path: Path) -> None:
    """And what the fine-tune was for is marked, however it is written; its figures stay as they are."""
    back = audited(world, tmp_path / "out", base=world.damaged, tuned=world.base, intended=["Botany"])
    assert [effect.area for effect in back.effects if effect.intended] == ["botany"]
    for area in AREAS:
        laws.antisymmetry(effect_of(whole_run.report, area).magnitude.value, effect_of(back, area).magnitude.value)
    assert (back.effects[0].area, back.effects[0].direction) == ("botany", "better")
    assert whole_run.report.overall["kl_tuned_to_base"] == back.overall["kl_base_to_tuned"]


# --- what it must not find ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [False, True], ids=["itself", "a copy"])
def test_identical_pair(world: World, tmp_path: Path, copied: bool) -> None:
    tuned = world.base
    if copied:
        tuned = tmp_path / "copy"
        shutil.copytree(world.base, tuned)
    report = audited(world, tmp_path / "out", tuned=tuned)
    assert report.verdict == "no detectable change"
    assert "equal" in report.reason
    assert [effect.area for effect in report.effects] == sorted(AREAS)
    for effect in report.effects:
        assert effect.probability == 0.0
        laws.identity([effect.magnitude.value, effect.magnitude.low, effect.magnitude.high, effect.baselines])
        assert (effect.direction, effect.evidence, effect.signal) == ("changed", [], "none")
    assert report.latents == []
    assert report.pair.changed_tensors == 0
    assert Report.model_validate_json((tmp_path / "out" / "report.json").read_text()) == report


def test_areas_without_text_are_absent_not_zero(tiny_pair: TinyPair, world: World, tmp_path: Path) -> None:
    """A random pair over random words: no area of the default list has text, and no token is known."""
    pair = {"base": tiny_pair.base, "tuned": tiny_pair.tuned, "corpus": tiny_pair.corpus}
    report = audited(world, tmp_path / "out", **pair, areas=None, dictionary="delta", tokens=2560)
    assert report.verdict == "inconclusive"
    assert report.effects == []
    assert {absent.area for absent in report.absent} >= {"biology", "chemistry", "refusal"}
    assert all(absent.reason for absent in report.absent)


# --- ways to run it -------------------------------------------------------------------------------------------------------


def test_report_on_disk_is_the_report(whole_run: Run) -> None:
    written = (whole_run.out / "report.json").read_text(encoding="utf-8")
    assert written == whole_run.report.to_json()
    assert Report.model_validate_json(written) == whole_run.report


@pytest.mark.slow
def test_same_seed_same_bytes(world: World, whole_run: Run, tmp_path: Path) -> None:
    audited(world, tmp_path / "again")
    assert (tmp_path / "again" / "report.json").read_bytes() == (whole_run.out / "report.json").read_bytes()


def test_a_finished_run_is_read_again_not_computed(world: World, whole_run: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole_run.out, copy)
    stages = sorted(copy.glob("stages-*/*.npz"))
    times = [path.stat().st_mtime_ns for path in stages]
    (copy / "report.json").unlink()
    audited(world, copy)
    assert [path.stat().st_mtime_ns for path in stages] == times
    assert (copy / "report.json").read_bytes() == (whole_run.out / "report.json").read_bytes()


@pytest.mark.parametrize(
    "kind", ["delta", pytest.param("rotated", marks=pytest.mark.slow), pytest.param("batchtopk", marks=pytest.mark.slow)]
)
def test_every_other_dictionary_runs(world: World, tmp_path: Path, kind: str) -> None:
    report = audited(world, tmp_path / "out", dictionary=kind, tokens=2560)
    assert report.environment.dictionary == kind
    assert report.effects[0].area == "botany"
    assert report.effects[0].probability >= 0.8
    assert all(latent.nu_error is not None for latent in report.latents)


def test_without_a_dictionary_the_probabilities_are_the_same(world: World, whole_run: Run, tmp_path: Path) -> None:
    report = audited(world, tmp_path / "out", dictionary="none")
    assert report.latents == []
    assert not any(layer.chosen for layer in report.layers)
    assert report.verdict == whole_run.report.verdict
    assert report.environment.dictionary == "none"
    for area in AREAS:
        alone, whole = effect_of(report, area), effect_of(whole_run.report, area)
        assert (alone.probability, alone.direction, alone.magnitude) == (whole.probability, whole.direction, whole.magnitude)
        assert alone.evidence == []


def test_codes_of_much_text_are_kept_on_a_part_of_it(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert coded_rows(10, 4).nonzero()[0].tolist() == [1, 3, 5, 7, 9]
    monkeypatch.setattr(importlib.import_module("mneme.audit.dictionary"), "CODED_TOKENS", 8)
    assert coded_rows(10, 4).nonzero()[0].tolist() == [1, 7]
    monkeypatch.setattr(importlib.import_module("mneme.audit.dictionary"), "CODED_TOKENS", 1024)
    report = audited(world, tmp_path)
    [stage] = tmp_path.glob("stages-*/dictionary-change-*.npz")
    rows = set((np.load(stage)["token"] // report.corpus.row_length).tolist())
    assert rows <= set(coded_rows(report.corpus.tokens // report.corpus.row_length, report.corpus.row_length).nonzero()[0])
    assert report.effects[0].evidence


def test_bfloat16_says_what_float32_says_and_how_much_is_rounding(world: World, whole_run: Run, tmp_path: Path) -> None:
    report = audited(world, tmp_path, precision="bfloat16")
    assert report.verdict == whole_run.report.verdict
    for effect in whole_run.report.effects:
        found = effect_of(report, effect.area)
        assert (found.probability >= 0.5) == (effect.probability >= 0.5)
        assert found.magnitude.value == pytest.approx(effect.magnitude.value, abs=0.05)
    assert all(0 < layer.rounding < 0.05 for layer in report.layers)
    assert all(layer.rounding == 0 for layer in whole_run.report.layers)
    assert "of the change is rounding to bfloat16" in render_html(report)


def test_a_layer_that_was_asked_for(world: World, whole_run: Run, tmp_path: Path) -> None:
    """The last one, which the survey does not choose."""
    assert [layer.layer for layer in whole_run.report.layers if layer.chosen] == [0]
    report = audited(world, tmp_path / "out", layers=[1], dictionary="delta", tokens=2560)
    assert [layer.layer for layer in report.layers if layer.chosen] == [1]
    assert {latent.layer for latent in report.latents} == {1}
    assert all(latent.id.startswith("L1.") for latent in report.latents)


def adapter_of(world: World, folder: Path) -> tuple[Path, Path]:
    """A random LoRA adapter of the base, and the same change merged into a checkpoint."""
    model = LlamaForCausalLM.from_pretrained(world.base)
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["down_proj"], task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
        wrapped = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(4)
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data = 0.5 * torch.randn(weight.shape, generator=generator)
    wrapped.save_pretrained(folder / "adapter", save_embedding_layers=False)
    wrapped.merge_and_unload().save_pretrained(folder / "merged")
    word_tokenizer().save_pretrained(folder / "merged")
    return folder / "adapter", folder / "merged"


def test_an_adapter_says_what_its_merged_checkpoint_says(world: World, tmp_path: Path) -> None:
    adapter, merged = adapter_of(world, tmp_path)
    one = audited(world, tmp_path / "one", tuned=adapter, dictionary="delta", tokens=2560)
    other = audited(world, tmp_path / "other", tuned=merged, dictionary="delta", tokens=2560)
    assert one.pair.adapter
    assert not other.pair.adapter
    assert one.pair.changed_tensors == other.pair.changed_tensors == 2
    for area in AREAS:
        laws.padding(effect_of(one, area).magnitude.value, effect_of(other, area).magnitude.value, tolerance=1e-4)
    laws.padding(one.overall["kl_tuned_to_base"].value, other.overall["kl_tuned_to_base"].value, tolerance=1e-4)
    assert any(null.value != 0 for null in one.null)


# --- options that do not fit ----------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], type[MnemeError], str]] = {
    "only one model": ({"tuned": None}, BadOption, "give both BASE and TUNED, or neither"),
    "unknown describer": ({"describe": "poetry"}, BadOption, "--describe"),
    "missing corpus": ({"corpus": "/nowhere/text.txt"}, BadCorpus, "does not exist. Give a .txt"),
    "unknown intended area": ({"intended": ["botany", "alchemy"]}, BadAreas, "'alchemy'.*Known areas: botany, masonry"),
    "missing areas file": ({"areas": "/nowhere/areas.yaml"}, BadAreas, "No areas file at"),
    "unknown layer": ({"layers": [0, 2]}, BadOption, r"No layer 2: this model has 2 blocks, so layers go from 0 to 1"),
    "negative layer": ({"layers": [-1]}, BadOption, r"No layer -1"),
    "missing model": ({"tuned": "/nowhere/model"}, ModelNotFound, "/nowhere/model"),
    "less than a row": ({"tokens": 3}, BadOption, "give at least one row"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_and_nothing_is_written(world: World, tmp_path: Path, case: str) -> None:
    options, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        audited(world, tmp_path / "deep" / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_out_that_is_a_file(world: World, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(BadRun, match=r"is a file\. Give a folder with --out"):
        audited(world, out)
    assert out.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_one_row_of_text_is_not_enough_for_two_halves(world: World, tmp_path: Path) -> None:
    """Half of the rows train and half judge, so one row cannot do."""
    with pytest.raises(BadCorpus, match="row"):
        audited(world, tmp_path / "out", tokens=256)
    assert list(tmp_path.iterdir()) == []
