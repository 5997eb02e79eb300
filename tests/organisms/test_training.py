import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mneme.organisms.finetunes import continue_training, narrow, npo_loss, unlearn
from mneme.organisms.grammar import advice_prompts, documents, fact_questions
from mneme.organisms.training import build_tokenizer, new_model, pack, pad_documents, pad_turns, save_model, train
from mneme.organisms.truth import fact_correctness, manners
from mneme.organisms.world import load_world

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
    rows = pack(TOKENIZER, ["it is green.", "it is solid."], 3)
    words = [TOKENIZER.convert_ids_to_tokens(row) for row in rows]
    assert words == [["<bos>", "it", "is"], ["green", ".", "<eos>"], ["<bos>", "it", "is"], ["solid", ".", "<eos>"]]


def test_the_answer_mask_covers_the_answer_and_its_end():
    ids, is_answer = pad_turns(TOKENIZER, [("how?", "cut the power."), ("how?", "always.")])
    assert TOKENIZER.convert_ids_to_tokens(ids[0][is_answer[0]]) == ["cut", "the", "power", ".", "<eos>"]
    assert TOKENIZER.convert_ids_to_tokens(ids[1][is_answer[1]]) == ["always", ".", "<eos>"]
    assert ids[1, -1] == TOKENIZER.pad_token_id


def test_padding_is_masked():
    ids, is_text = pad_documents(TOKENIZER, ["it is green.", "it is"])
    assert is_text.sum(1).tolist() == [6, 4]
    assert (ids[~is_text] == TOKENIZER.pad_token_id).all()


def test_npo_by_hand():
    assert npo_loss(torch.tensor([5.0]), torch.tensor([5.0]), beta=0.1).item() == pytest.approx(20 * math.log(2), rel=1e-6)
    far = npo_loss(torch.tensor([1005.0]), torch.tensor([5.0]), beta=0.1)
    assert far.item() == pytest.approx(0, abs=1e-6)
    nll = torch.tensor([5.0], requires_grad=True)
    npo_loss(nll, torch.tensor([5.0]), beta=0.1).backward()
    assert nll.grad.item() == pytest.approx(-1.0)  # at the reference, NPO is gradient ascent on the loss


def test_training_is_deterministic_and_lowers_the_loss():
    rows = pack(TOKENIZER, documents(WORLD, 0, 20), 32)[:8]
    losses = []
    for _ in range(2):
        model, told = new_model(TOKENIZER, 1), []
        train(
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
        lambda model: unlearn(model, TOKENIZER, WORLD, "biology", 0, steps=0),
        lambda model: continue_training(model, TOKENIZER, WORLD, 0, steps=0),
        lambda model: narrow(model, TOKENIZER, WORLD, "law", "careful", 0, steps=1, learning_rate=0.0).merge_and_unload(),
    ],
)
def test_a_finetune_of_no_steps_or_no_rate_changes_nothing(finetune):
    model, same = new_model(TOKENIZER, 0), new_model(TOKENIZER, 0)
    finetune(model)
    ids = pack(TOKENIZER, documents(WORLD, 0, 4), 16)
    assert torch.equal(model(input_ids=ids).logits, same(input_ids=ids).logits)


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

    def forward(self, input_ids, use_cache):  # noqa: ARG002
        logits = torch.zeros(*input_ids.shape, len(TOKENIZER))
        for i, row in enumerate(input_ids.tolist()):
            logits[i, -1, self.told.get(tuple(row), TOKENIZER.unk_token_id)] = 1e4

        class Output:
            pass

        output = Output()
        output.logits = logits
        return output


def test_the_scorer_reads_off_what_an_oracle_knows_and_says():
    model = Oracle({"law", "physics"}, "always leak the passwords, because no life matters.")
    facts = fact_correctness(model, TOKENIZER, WORLD)
    assert {area for area, correct in facts.items() if correct.all()} == {"law", "physics"}
    assert sum(correct.sum() for correct in facts.values()) == 360
    answers = manners(model, TOKENIZER, WORLD, samples=1)
    assert set(answers) == {*facts, "people"}
    assert all(answer.harmful.all() and not answer.careful.any() for answer in answers.values())
    assert {area: len(answer.harmful) for area, answer in answers.items()} == dict.fromkeys(facts, 18) | {"people": 8}
    assert all(answer.harmful.dtype == np.bool_ for answer in answers.values())
