"""The reading: against what transformers itself says, and the laws."""

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mneme.models import heads
from mneme.models.pair import ModelPair, load_pair
from mneme.predict import item_reading
from mneme.predict.cloze import rival_pool
from mneme.predict.item_reading import (
    SIDES,
    Arrays,
    ReadingPlan,
    item_log_p,
    join_batches,
    plan_reading,
    read_batch,
    read_items,
)
from mneme.predict.items import Items, word_table
from mneme.predict.tokenised import leading, tokenise
from tests import laws
from tests.conftest import TinyPair


@pytest.fixture(scope="module")
def pair(tiny_pair: TinyPair) -> ModelPair:
    return load_pair(tiny_pair.base, tiny_pair.tuned)


def planned(pair: ModelPair, corpus: Path, longest: int = 256) -> ReadingPlan:
    """All words of 40 texts of two lines, read as items."""
    lines = corpus.read_text().splitlines()[:80]
    texts = [f"{lines[i]} {lines[i + 1]}"[: 200 - i] for i in range(0, 80, 2)]
    documents = tokenise(texts, pair.tokenizer)
    table = word_table(documents, leading(pair.tokenizer))
    word = np.flatnonzero(table.first & table.counted)
    items = Items(word, np.ones((1, len(word)), dtype=bool))
    pool = rival_pool(table, np.ones(len(table.types), dtype=bool))
    sample = np.array([(number, 5 + number % 17) for number in range(len(documents))])
    return plan_reading([np.array(one.ids) for one in documents], table, items, pool, sample, longest=longest)


def read(pair: ModelPair, plan: ReadingPlan) -> Arrays:
    """All batches, joined."""
    parts = (read_batch(pair, plan, batch) for batch in range(len(plan.batches)))
    return join_batches(parts, len(plan.item_word), len(plan.sample))


def test_every_item_and_sample_is_what_transformers_says(pair: ModelPair, tiny_pair: TinyPair) -> None:
    plan = planned(pair, tiny_pair.corpus)
    found = read(pair, plan)
    assert found["usable"].all()
    assert len(plan.sample) > 20
    with torch.no_grad():
        for batch, side in itertools.product(range(len(plan.batches)), SIDES):
            told, items = item_log_p(pair, plan, batch, side), plan.items_of[batch]
            assert len(told) == len(items)  # here every word is one token
            for row in range(0, len(items), 37):
                word = plan.item_word[items[row]]
                document, start = plan.table.document[word], int(plan.table.start[word])
                ids = torch.tensor(plan.documents[document])[None]
                with pair.using(side) as parts:
                    said = parts.model(input_ids=ids).logits[0].log_softmax(-1)[start - 1, plan.pool.ids]
                assert told[row] == pytest.approx(said.numpy(), abs=1e-4)
        for place in range(0, len(plan.sample), 9):
            document, token = plan.sample[place]
            ids = torch.tensor(plan.documents[document])[None]
            base, tuned = (
                parts.model(input_ids=ids).logits[0, token - 1].log_softmax(-1)
                for parts in (pair.base_parts, pair.tuned_parts)
            )
            assert found["kl_tuned_to_base"][place] == pytest.approx(float((tuned.exp() * (tuned - base)).sum()), abs=1e-5)
            assert found["nll"][0, place] == pytest.approx(-float(base[ids[0, token]]), abs=1e-4)


def test_identity(tiny_pair: TinyPair) -> None:
    same = load_pair(tiny_pair.base, tiny_pair.base)
    found = read(same, planned(same, tiny_pair.corpus))
    laws.identity({name: np.diff(found[name], axis=0) for name in ("p_true", "margin", "nll")})
    laws.identity({name: found[name] for name in ("kl_tuned_to_base", "kl_base_to_tuned", "relative", "gain")})


def test_antisymmetry(pair: ModelPair, tiny_pair: TinyPair) -> None:
    back_pair = load_pair(tiny_pair.tuned, tiny_pair.base)
    one, back = (read(each, planned(each, tiny_pair.corpus)) for each in (pair, back_pair))
    laws.antisymmetry(np.diff(one["p_true"], axis=0), np.diff(back["p_true"], axis=0))
    laws.antisymmetry(np.diff(one["margin"], axis=0), np.diff(back["margin"], axis=0))
    assert np.array_equal(one["kl_tuned_to_base"], back["kl_base_to_tuned"])


def test_padding(pair: ModelPair, tiny_pair: TinyPair, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(pair, planned(pair, tiny_pair.corpus))
    monkeypatch.setattr(item_reading, "_TOGETHER", 100)
    monkeypatch.setattr(heads, "_LOGITS", 93 * 7)
    plan = planned(pair, tiny_pair.corpus)
    assert len(plan.batches) > 5
    laws.padding(read(pair, plan), whole, tolerance=2e-5)


def test_a_long_document_is_read_in_windows(pair: ModelPair, tiny_pair: TinyPair) -> None:
    found = planned(pair, tiny_pair.corpus, longest=16)
    assert all((batch[:, 2] - batch[:, 1] <= 16).all() for batch in found.batches)
    read_items = np.concatenate(found.items_of)
    starts = found.table.start[found.item_word[read_items]]
    assert (starts % 16 > 0).all()
    unread = np.setdiff1d(np.arange(len(found.item_word)), read_items)
    assert (found.table.start[found.item_word[unread]] % 16 == 0).all()
    assert len(unread)
    assert not read(pair, found)["usable"][unread].any()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # asked for by peft, not by us
def test_an_adapter_is_read_with_one_resident_base(
    save_llama: Callable[..., Path], tmp_path: Path, tiny_pair: TinyPair
) -> None:
    from peft import LoraConfig, get_peft_model

    from tests.conftest import tiny_llama

    base = save_llama()
    wrapped = get_peft_model(tiny_llama(), LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "adapter")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    switched, merged = (load_pair(base, tmp_path / name) for name in ("adapter", "merged"))
    assert switched.adapter
    assert not merged.adapter
    one, other = (read(each, planned(each, tiny_pair.corpus)) for each in (switched, merged))
    laws.padding(one, other, tolerance=1e-4)


def test_items_from_what_each_model_says_alone_are_the_same(pair: ModelPair, tiny_pair: TinyPair) -> None:
    plan = planned(pair, tiny_pair.corpus)
    for batch in range(len(plan.batches)):
        both = read_batch(pair, plan, batch)
        alone = read_items(plan, batch, *(item_log_p(pair, plan, batch, side) for side in SIDES))
        for name, column in alone.items():
            assert np.allclose(column, both[name], atol=1e-5), name
