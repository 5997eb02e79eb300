"""mneme's own text: what is said of its loss, and that it is there for every subject of the default list."""

from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerBase

from mneme.audit import ordinary
from mneme.audit.ordinary import ordinary_texts, read_ordinary, starter_texts
from mneme.audit.verdict import MATERIAL_LOSS, headline_verdict, ordinary_sentence
from mneme.audit.writing import prompt_for
from mneme.models.pair import load_pair
from mneme.predict.areas import default_areas
from mneme.predict.paired import read_at_own_words
from mneme.results import AbsentArea, Estimate
from mneme.runs import RunFolder
from tests.conftest import TinyPair, word_tokenizer

ABSENT = [AbsentArea(area="law", kind="capability", reason="too few words", passages=1)]


def loss(low: float, high: float) -> Estimate:
    return Estimate(value=(low + high) / 2, low=low, high=high, unit="nats per token", n=23)


def test_every_subject_of_the_default_list_has_a_paragraph_and_no_other() -> None:
    assert set(starter_texts()) == {area.name for area in default_areas() if read_at_own_words(area)}
    assert all(45 <= len(text.split()) <= 80 for text in starter_texts().values())


def test_a_material_loss_is_a_change_though_no_area_is_told_apart() -> None:
    verdict, reason = headline_verdict([], ABSENT, None, named=False, ordinary=loss(0.25, 0.35))
    assert verdict == "change"
    assert reason.startswith("Affected as a whole. Ordinary text became less likely by 0.30 nats per token [0.25, 0.35]")
    assert "26 % less probable" in reason  # 1 - exp(-0.3)


def test_a_loss_of_more_than_a_nat_is_broken() -> None:
    verdict, reason = headline_verdict([], ABSENT, None, named=False, ordinary=loss(1.5, 2.5))
    assert (verdict, reason.split(":")[0]) == ("change", "Broken as a whole")


def test_a_loss_within_the_margin_is_said_and_changes_no_verdict() -> None:
    verdict, reason = headline_verdict([], ABSENT, None, named=False, ordinary=loss(-0.01, 0.02))
    assert verdict == "inconclusive"
    assert "Ordinary text is as likely as before, to within 5 %" in reason


@pytest.mark.parametrize("interval", [(MATERIAL_LOSS - 0.01, 0.2), (-0.2, 0.2), (-0.3, -0.2)])
def test_what_is_not_shown_is_not_said(interval: tuple[float, float]) -> None:
    assert ordinary_sentence(loss(*interval)) == (False, "")
    assert ordinary_sentence(None) == (False, "")


def test_the_loss_is_that_of_the_models(tiny_pair: TinyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = tiny_pair.corpus.read_text().splitlines()
    monkeypatch.setattr(ordinary, "starter_texts", lambda: {str(i): line for i, line in enumerate(lines[:12])})
    pair = load_pair(tiny_pair.base, tiny_pair.tuned)
    with RunFolder(tmp_path / "out", {"command": "audit"}) as run:
        read = read_ordinary(pair, run)
    assert read is not None
    found = read.loss()
    assert found is not None
    assert found.low < found.value < found.high
    total, tokens = np.zeros(2), 0
    for line in lines[:12]:
        ids = pair.tokenizer(line, return_tensors="pt")["input_ids"]
        tokens += ids.shape[1] - 1
        for model, parts in enumerate((pair.base_parts, pair.tuned_parts)):
            said = parts.model(input_ids=ids).logits[0, :-1].detach().log_softmax(-1)
            total[model] += float(said.gather(1, ids[0, 1:, None]).sum())
    assert found.value == pytest.approx((total[0] - total[1]) / tokens, abs=1e-4)


def test_a_tokenizer_that_cannot_write_it_reads_none() -> None:
    assert ordinary_texts(word_tokenizer(), None) == []


def test_a_model_without_a_template_goes_on_from_our_own_words() -> None:
    tokenizer: PreTrainedTokenizerBase = word_tokenizer()
    biology = next(area for area in default_areas() if area.name == "biology")
    asked = [prompt_for(biology, number, tokenizer) for number in range(8)]
    assert asked.count(starter_texts()["biology"] + "\n\n") == 4
    assert len(set(asked)) == 5
