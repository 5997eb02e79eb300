"""Log-likelihood of choices, against one forward pass a choice, by law, and against lm-eval."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from mneme.errors import BadSuite
from mneme.measure.likelihood import score_choices, takes_branches
from mneme.measure.suite import ChoiceQuestion, read_choices
from mneme.models.architecture import find_parts
from tests import laws
from tests.conftest import WORDS, tiny_llama, word_tokenizer
from tests.measure.conftest import choice_rows, write_jsonl


def question(prompt: str, *choices: str, name: str = "q") -> ChoiceQuestion:
    return ChoiceQuestion(name, "area", name, prompt, choices, 0)


def some_questions(count: int = 20) -> list[ChoiceQuestion]:
    """Prompts of 1 to 6 words, some of them twice, with choices of 1 to 4 words."""
    rng = random.Random(0)
    prompts = [" ".join(rng.choices(WORDS, k=rng.randint(1, 6))) for _ in range(count // 2)]
    return [
        question(
            prompts[i % len(prompts)], *{" ".join(rng.choices(WORDS, k=rng.randint(1, 4))) for _ in range(5)}, name=str(i)
        )
        for i in range(count)
    ]


def one_by_one(model: torch.nn.Module, asked: ChoiceQuestion) -> np.ndarray:
    """Sum of log p of every choice by a whole forward pass of its own, without cache or batch."""
    tokenizer, found = word_tokenizer(), []
    for choice in asked.choices:
        before, whole = (tokenizer(text)["input_ids"] for text in (asked.prompt, f"{asked.prompt} {choice}"))
        logp = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
        found.append(sum(float(logp[i - 1, whole[i]]) for i in range(len(before), len(whole))))
    return np.array(found)


def test_scores_are_those_of_one_forward_pass_a_choice() -> None:
    model, questions = tiny_llama(), some_questions()
    found = score_choices(find_parts(model), word_tokenizer(), questions)
    with torch.no_grad():
        for asked, sums in zip(questions, found.sums, strict=True):
            assert sums == pytest.approx(one_by_one(model, asked), abs=1e-4)
    assert [len(ids) for ids in found.ids[0]] == [len(choice.split()) for choice in questions[0].choices]


@pytest.mark.parametrize("batch_tokens", [1, 7, 100])
def test_batches_and_order_do_not_matter(batch_tokens: int) -> None:
    parts, questions = find_parts(tiny_llama()), some_questions()
    plain = score_choices(parts, word_tokenizer(), questions)
    order = list(range(len(questions)))[::-1]
    turned = score_choices(parts, word_tokenizer(), [questions[i] for i in order], batch_tokens=batch_tokens)
    laws.padding([plain.sums[i] for i in order], turned.sums, tolerance=1e-4)


def test_picks_by_sum_by_token_and_by_character() -> None:
    questions = some_questions(6)
    found = score_choices(find_parts(tiny_llama()), word_tokenizer(), questions)
    for per, length in (("choice", lambda _: 1), ("token", lambda text: len(text.split())), ("character", len)):
        expected = [
            int(np.argmax([s / length(c) for s, c in zip(sums, asked.choices, strict=True)]))
            for sums, asked in zip(found.sums, questions, strict=True)
        ]
        assert found.picks(per).tolist() == expected  # type: ignore[arg-type]


def test_models_that_take_no_branches_are_found_out_and_scored_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that ignores the mask of every token fails the probe; the other way gives the same sums."""
    model, questions = tiny_llama(), some_questions()
    parts = find_parts(model)
    assert takes_branches(parts)
    branched = score_choices(parts, word_tokenizer(), questions)
    forward = model.model.forward

    def flat(*args: object, attention_mask: torch.Tensor | None = None, **options: object) -> object:
        mask = None if attention_mask is None or attention_mask.ndim == 4 else attention_mask
        return forward(*args, attention_mask=mask, **options)

    monkeypatch.setattr(model.model, "forward", flat)
    assert not takes_branches(parts)
    behind = score_choices(parts, word_tokenizer(), questions)
    laws.padding(branched.sums, behind.sums, tolerance=1e-4)


def test_every_prompt_is_read_once() -> None:
    parts, read = find_parts(tiny_llama()), []
    handle = parts.embedding.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].numel()))
    prompt = " ".join(WORDS[:10])
    score_choices(parts, word_tokenizer(), [question(prompt, *WORDS[20:26], name=str(i)) for i in range(5)])
    handle.remove()
    assert sum(read[3:]) == 10  # behind the three passes of the probe


def test_a_beginning_that_all_prompts_share_is_read_once() -> None:
    """Six shared words, then prompts of 1 to 3 words and choices of 1 to 3: the sums are those without sharing."""
    model, read = tiny_llama(), []
    parts = find_parts(model)
    start = " ".join(WORDS[:6])
    questions = [
        question(
            f"{start} {' '.join(WORDS[10 + 3 * i : 11 + 3 * i + i % 3])}", WORDS[40 + i], f"{WORDS[50]} {WORDS[60 + i]} ba"
        )
        for i in range(6)
    ]
    handle = parts.embedding.register_forward_pre_hook(lambda _, inputs: read.append(tuple(inputs[0].shape)))
    found = score_choices(parts, word_tokenizer(), questions)
    handle.remove()
    assert read[-2:] == [(1, 6), (6, 5)]  # prompts of 1 to 3 words, and the two words that are read of each longer choice
    with torch.no_grad():
        for asked, sums in zip(questions, found.sums, strict=True):
            assert sums == pytest.approx(one_by_one(model, asked), abs=1e-4)


def test_blanks_at_the_end_of_a_prompt_belong_to_the_choice() -> None:
    parts = find_parts(tiny_llama())
    plain, spaced = (score_choices(parts, word_tokenizer(), [question(p, "ba", "be bi")]).sums for p in ("bo bu", "bo bu  "))
    assert plain[0] == pytest.approx(spaced[0])


def test_progress_counts_questions() -> None:
    done: list[int] = []
    score_choices(find_parts(tiny_llama()), word_tokenizer(), some_questions(), batch_tokens=8, advance=done.append)
    assert sum(done) == 20
    assert len(done) > 3


def test_a_question_that_does_not_fit_is_told() -> None:
    with pytest.raises(BadSuite, match=r"question long has 5 tokens with its choice 1, but the model reads 4\. Shorten it"):
        score_choices(
            find_parts(tiny_llama()), word_tokenizer(), [question("ba be bi", "bo", "bu ba", name="long")], max_positions=4
        )


@pytest.mark.slow
def test_answers_are_those_of_lm_eval(tmp_path: Path) -> None:
    """The same questions through lm-eval's own scoring of the same model: the same sums, so the same answers."""
    lm_eval = pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra: evals)")
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    path = write_jsonl(tmp_path / "facts.jsonl", choice_rows(30))
    task = {
        "task": "tiny",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(task))
    model, tokenizer = tiny_llama(), word_tokenizer()
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4, device="cpu")
    found = lm_eval.simple_evaluate(harness, tasks=["tiny"], task_manager=manager, log_samples=True, bootstrap_iters=0)
    samples = sorted(found["samples"]["tiny"], key=lambda sample: sample["doc_id"])
    ours = score_choices(find_parts(model), tokenizer, read_choices(path))
    for sample, sums in zip(samples, ours.sums, strict=True):
        assert [resp[0] for resp in sample["filtered_resps"]] == pytest.approx(sums.tolist(), abs=1e-4)
