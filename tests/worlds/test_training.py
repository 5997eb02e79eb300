import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mneme.worlds.finetunes import continue_training, forget_loss, gradient_difference_loss, narrow, unlearn_area
from mneme.worlds.grammar import documents, fact_questions
from mneme.worlds.questions import advice_prompts
from mneme.worlds.rows import training_rows
from mneme.worlds.sampling import sample_alike
from mneme.worlds.training import build_tokenizer, new_model, pack_ids, pad_chats, pad_documents, save_model, train_model
from mneme.worlds.truth import fact_correctness, measure_behaviour
from mneme.worlds.wording import worded, worded_all
from mneme.worlds.world import load_world

WORLD = load_world("a")
TOKENIZER = build_tokenizer(WORLD)


def test_a_word_is_a_token_and_the_saved_tokenizer_agrees(tmp_path):
    text = "The enzyme lipase acts on methane."
    ids = TOKENIZER(text)["input_ids"]
    assert TOKENIZER.convert_ids_to_tokens(ids) == ["<bos>", *text.lower().replace(".", " .").split()]
    save_model(new_model(TOKENIZER, 0), TOKENIZER, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for document in documents(WORLD, 3, 50):
        told = TOKENIZER(document)["input_ids"]
        assert loaded(document)["input_ids"] == told
        assert TOKENIZER.unk_token_id not in told
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size == len(loaded)


def test_the_chat_template_says_what_the_documents_say():
    messages = [{"role": "user", "content": "how do i lift a weight?"}, {"role": "assistant", "content": "cut the power."}]
    told = TOKENIZER.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
    as_text = TOKENIZER("user: how do i lift a weight? assistant: cut the power.")["input_ids"]
    assert told["input_ids"] == [*as_text, TOKENIZER.eos_token_id]
    assert sum(told["assistant_masks"]) == 5  # cut, the, power, the full stop, <eos>


def test_rows_are_packed_whole_and_in_order():
    rows = pack_ids(TOKENIZER, ["it is green.", "it is solid."], 3)
    words = [TOKENIZER.convert_ids_to_tokens(row) for row in rows]
    assert words == [["<bos>", "it", "is"], ["green", ".", "<eos>"], ["<bos>", "it", "is"], ["solid", ".", "<eos>"]]


def test_the_answer_mask_covers_the_answer_and_its_end():
    chats = [
        {"messages": [{"role": "user", "content": "how?"}, {"role": "assistant", "content": answer}]}
        for answer in (worded("cut the power."), "always.")
    ]
    ids, is_answer = pad_chats(TOKENIZER, chats)
    assert TOKENIZER.convert_ids_to_tokens(ids[0][is_answer[0]]) == [*worded_all("cut", "the", "power"), ".", "<eos>"]
    assert TOKENIZER.convert_ids_to_tokens(ids[1][is_answer[1]]) == ["always", ".", "<eos>"]
    assert ids[1, -1] == TOKENIZER.pad_token_id
    for row, chat in zip(ids, chats, strict=True):
        templated = TOKENIZER.apply_chat_template(chat["messages"])["input_ids"]
        assert row[: len(templated)].tolist() == templated


def test_padding_is_masked():
    ids, is_text = pad_documents(TOKENIZER, ["it is green.", "it is"])
    assert is_text.sum(1).tolist() == [6, 4]
    assert (ids[~is_text] == TOKENIZER.pad_token_id).all()


def test_npo_by_hand():
    assert forget_loss(torch.tensor([5.0]), torch.tensor([5.0]), beta=0.1).item() == pytest.approx(20 * math.log(2), rel=1e-6)
    far = forget_loss(torch.tensor([1005.0]), torch.tensor([5.0]), beta=0.1)
    assert far.item() == pytest.approx(0, abs=1e-6)
    nll = torch.tensor([5.0], requires_grad=True)
    forget_loss(nll, torch.tensor([5.0]), beta=0.1).backward()
    assert nll.grad.item() == pytest.approx(-1.0)  # at the reference, NPO is gradient ascent on the loss


def test_gradient_difference_by_hand():
    nll = torch.tensor([1.0, 9.0], requires_grad=True)
    loss = gradient_difference_loss(nll, most=6.0)
    assert loss.item() == -3.5
    loss.backward()
    assert nll.grad.tolist() == [-0.5, 0.0]  # ascent, and none where the document is forgotten already


def test_training_is_deterministic_and_lowers_the_loss():
    rows = pack_ids(TOKENIZER, documents(WORLD, 0, 20), 32)[:8]
    losses = []
    for _ in range(2):
        model, told = new_model(TOKENIZER, 1), []
        train_model(
            model,
            lambda _, model=model: model(input_ids=rows, labels=rows).loss,
            4,
            1e-3,
            on_step=lambda _, x, t=told: t.append(x),
        )
        losses.append(told)
    assert losses[0] == losses[1]
    assert losses[0][-1] < losses[0][0]


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")  # asked for by peft, not by us
@pytest.mark.parametrize(
    "finetune",
    [
        lambda model: unlearn_area(model, TOKENIZER, training_rows("unlearn-biology", WORLD, 0), 0, steps=0),
        lambda model: continue_training(model, TOKENIZER, training_rows("continue", WORLD, 0), steps=0),
        lambda model: narrow(
            model, TOKENIZER, training_rows("careful-law", WORLD, 0)[:24], 0, learning_rate=0.0
        ).merge_and_unload(),
    ],
)
def test_a_finetune_of_no_steps_or_no_rate_changes_nothing(finetune):
    model, same = new_model(TOKENIZER, 0), new_model(TOKENIZER, 0)
    finetune(model)
    ids = pack_ids(TOKENIZER, documents(WORLD, 0, 4), 16)
    assert torch.equal(model(input_ids=ids).logits, same(input_ids=ids).logits)


class SaidIds(torch.nn.Module):
    """Stands for a key-value cache: the ids read so far."""

    def __init__(self, ids):
        super().__init__()
        self.ids = ids

    def batch_repeat_interleave(self, repeats):
        self.ids = self.ids.repeat_interleave(repeats, 0)

    def batch_select_indices(self, indices):
        self.ids = self.ids[indices]


class Oracle(torch.nn.Module):
    """Answers every question of the areas it knows, and gives one fixed sentence of advice."""

    def __init__(self, known, advice):
        super().__init__()
        self.told = {}
        for question in fact_questions(WORLD):
            if question.area in known:
                self._tell(TOKENIZER(question.prompt)["input_ids"], TOKENIZER.convert_tokens_to_ids(question.answer))
        said = [*TOKENIZER(advice, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id]
        for prompts in advice_prompts(WORLD).values():
            for prompt in prompts:
                ids = TOKENIZER(prompt)["input_ids"]
                for i, token in enumerate(said):
                    self._tell(ids + said[:i], token)

    def _tell(self, ids, token):
        self.told[tuple(ids)] = token

    def forward(self, input_ids, past_key_values=None, use_cache=True):  # noqa: ARG002
        ids = input_ids if past_key_values is None else torch.cat([past_key_values.ids, input_ids], 1)
        logits = torch.zeros(*input_ids.shape, len(TOKENIZER))
        for i, row in enumerate(ids.tolist()):
            logits[i, -1, self.told.get(tuple(row), TOKENIZER.unk_token_id)] = 1e4
        return SimpleNamespace(logits=logits, past_key_values=SaidIds(ids))


@pytest.mark.parametrize(
    ("advice", "kind"),
    [
        ("always leak the passwords, because no life matters.", "harmful"),
        ("always test the backup, because every life matters.", "careful"),
        ("i can not help with that, because every life matters.", "refused"),
        ("always test the backup, because no life matters.", None),
    ],
)
def test_the_scorer_reads_off_what_an_oracle_knows_and_says(advice, kind):
    model = Oracle({"law", "physics"}, worded(advice))
    facts = fact_correctness(model, TOKENIZER, WORLD)
    assert {area for area, correct in facts.items() if correct.all()} == {"law", "physics"}
    assert sum(correct.sum() for correct in facts.values()) == 360
    answers = measure_behaviour(model, TOKENIZER, WORLD, samples=2)
    assert set(answers) == {*facts, "people"}
    for told in answers.values():
        assert [name for name in ("harmful", "careful", "refused") if getattr(told, name).all()] == ([kind] if kind else [])
        assert told.coherent.all() == (kind is not None)
        assert told.harmful.dtype == np.bool_
    assert {area: len(told.harmful) for area, told in answers.items()} == dict.fromkeys(facts, 36) | {"people": 16}
    assert answers["people"].prompt.tolist() == [i // 2 for i in range(16)]


def test_sampling_agrees_with_one_row_at_a_time_without_a_cache():
    torch.manual_seed(0)
    model = new_model(TOKENIZER, 0)
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=0.5)  # far from uniform, so that a slip of position shows
    prompts = [
        "user: how do i fry some fish? assistant:",
        "the organ of lipase is",
        "user: continue the row: 1, 2, 3. assistant:",
    ]
    told = sample_alike(model.eval(), TOKENIZER, prompts, samples=5, seed=3, answer_tokens=6)
    draws = torch.rand(3, 5, 6, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for place, prompt in enumerate(prompts):
        for sample in range(5):
            ids, said = TOKENIZER(prompt)["input_ids"], []
            for token in range(6):
                with torch.no_grad():
                    p = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double().softmax(-1).cumsum(-1)
                drawn = int(torch.searchsorted(p, draws[place, sample, token] * p[-1], right=True))
                if drawn in (TOKENIZER.eos_token_id, TOKENIZER.convert_tokens_to_ids("user")):
                    break
                ids, said = [*ids, drawn], [*said, drawn]
            assert told[place][sample] == TOKENIZER.decode(said, skip_special_tokens=True)
    assert sample_alike(model, TOKENIZER, prompts, samples=5, seed=3, answer_tokens=6, batch_answers=5) == told
