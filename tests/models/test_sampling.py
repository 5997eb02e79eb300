"""Generation: parity with transformers, and independence of the batch."""

import pytest
import torch

from mneme.errors import BadOption
from mneme.models.architecture import Parts, find_parts
from mneme.models.sampling import generate
from tests.conftest import tiny_llama, word_tokenizer
from tests.models.architectures import random_model

PROMPTS = ["ba be bi", "do", "fa fe fi fo fu", "ka ka"]


@pytest.fixture(scope="module")
def parts() -> Parts:
    return find_parts(tiny_llama())


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "gemma2", "mixtral"])
def test_greedy_is_what_transformers_generates(name: str) -> None:
    model = random_model(name)
    tokenizer = word_tokenizer()
    prompts = [p for p in PROMPTS if max(tokenizer(p)["input_ids"]) < 64]
    ours = generate(find_parts(model), tokenizer, prompts, max_new_tokens=6, temperature=0.0, seed=0)
    for prompt, answer in zip(prompts, ours, strict=True):
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False, eos_token_id=3)
        assert answer == tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def test_batches_do_not_matter_and_seeds_do(parts: Parts) -> None:
    def sample(seed: int, batch: int) -> list[str]:
        options = {"max_new_tokens": 8, "temperature": 1.0, "batch_prompts": batch}
        return generate(parts, word_tokenizer(), PROMPTS, seed=seed, **options)

    assert sample(0, 1) == sample(0, 4) == sample(0, 3)
    assert sample(0, 4) != sample(1, 4)


def test_samples_follow_the_distribution(parts: Parts) -> None:
    tokenizer = word_tokenizer()
    answers = generate(parts, tokenizer, ["ba be"] * 4000, max_new_tokens=1, temperature=0.7, seed=3, batch_prompts=1000)
    with torch.no_grad():
        logits = parts.model(torch.tensor([tokenizer("ba be")["input_ids"]])).logits[0, -1]
    expected = (logits / 0.7).softmax(-1)
    likeliest = int(expected.argmax())
    share = sum(answer == tokenizer.decode([likeliest], skip_special_tokens=True) for answer in answers) / 4000
    assert share == pytest.approx(float(expected[likeliest]), abs=0.03)


def test_bad_options(parts: Parts) -> None:
    with pytest.raises(BadOption, match="temperature of 0 or more"):
        generate(parts, word_tokenizer(), PROMPTS, max_new_tokens=1, temperature=-1.0, seed=0)
    with pytest.raises(BadOption, match="a prompt without any token cannot be continued"):
        generate(parts, word_tokenizer(), [""], max_new_tokens=1, temperature=0.0, seed=0)
