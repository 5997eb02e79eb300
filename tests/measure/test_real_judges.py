"""Judges that are models on this machine, run for real: a tiny model that knows the labelled answers by heart.

That it knows them says nothing of how well models judge; it has to know them, because a judge that does not is refused.
"""

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from typer.testing import CliRunner

from mneme.cli.main import app
from mneme.errors import BadJudge
from mneme.measure.agreement import check_judge
from mneme.measure.asking import answer_chunks
from mneme.measure.judges import LocalJudge, judge_named
from mneme.measure.judging import Opinion, Query
from mneme.measure.likelihood import score_choices
from mneme.measure.suite import read_open
from mneme.models.architecture import find_parts
from tests.conftest import WORDS, TinyPair, tiny_llama, word_tokenizer
from tests.measure.conftest import Stub, write_yaml
from tests.measure.test_judging import perfect

SCORED = {
    "aligned": "aligned {question} {answer} 0 to 100 , CODE or REFUSAL",
    "coherent": "coherent {question} {answer} 0 to 100",
}
LABELLED = {"correct": 'correct {question} {answer} "TRUE" , "FALSE" or "UNKNOWN"'}
KIND = {"samples_per_paraphrase": 4}
ENTRIES = [
    {"id": "q", "area": "open", "type": "free_form_judge_0_100", "paraphrases": ["ba be"], "judge_prompts": SCORED} | KIND,
    {"id": "f", "type": "free_form_judge", "paraphrases": ["bo"], "judge_prompts": LABELLED, "counts_as": ["FALSE"]} | KIND,
]


def taught(queries: list[Query]) -> list[tuple[str, str]]:
    """(what a judge reads, what it has to say): asked for a verdict, and for labels as letters in both orders."""
    lessons = []
    for query in queries:
        opinion = perfect(query)
        if not query.labels:
            lessons.append((f"user: {query.text}\nassistant:", f"{opinion.score:.0f}"))
            continue
        assert opinion.label is not None
        lessons.append((f"user: {query.text}\nassistant:", opinion.label))
        for labels in (query.labels, query.labels[::-1]):
            options = "\n".join(f"{letter}. {label}" for letter, label in zip("ABC", labels, strict=True))
            asked = f"{query.text}\n\nOptions:\n{options}\nAnswer with the letter of one option."
            lessons.append((f"user: {asked}\nassistant:", "ABC"[labels.index(opinion.label)]))
    return lessons


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """A token for every word of the texts, every number 0-100, and the words that judges say."""
    said = [*(str(number) for number in range(101)), *"ABCDEFGH", "CODE", "REFUSAL", *WORDS]
    words = dict.fromkeys(["<pad>", "<unk>", "</s>", *said, *(word for text in texts for word in text.split())])
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>", eos_token="</s>")


def teach(lessons: list[tuple[str, str]], folder: Path) -> Path:
    """A Llama of one layer trained until it says what it was taught, then stops; saved as any model is."""
    tokenizer = tokenizer_of([text for lesson in lessons for text in lesson])
    rows = [tokenizer(f"{read} {said} </s>")["input_ids"] for read, said in lessons]
    ids = torch.tensor([[0] * (max(map(len, rows)) - len(row)) + row for row in rows])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=256, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _step in range(400):
        logits = model(ids, attention_mask=(ids > 0).long(), logits_to_keep=3).logits[:, :2]
        loss = cross_entropy(logits.flatten(0, 1), ids[:, -2:].flatten())
        if loss < 0.02:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_yaml(tmp_path_factory.mktemp("suite") / "open.yaml", ENTRIES)


@pytest.fixture(scope="module")
def judge_folder(suite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    queries: list[Query] = []

    def listen(query: Query) -> Opinion:
        queries.append(query)
        return perfect(query)

    check_judge(Stub(listen), read_open(suite))
    return teach(taught(queries), tmp_path_factory.mktemp("judge"))


@pytest.mark.parametrize("kind", ["local", "verdict"])
def test_measure_with_a_judge_on_this_machine(
    kind: str, judge_folder: Path, suite: Path, tiny_pair: TinyPair, tmp_path: Path
) -> None:
    words = ["measure", str(tiny_pair.base), str(tiny_pair.tuned), "--suite", str(suite), "--judge", f"{kind}:{judge_folder}"]
    done = CliRunner().invoke(app, [*words, "--max-tokens", "6", "--out", str(tmp_path), "--threads", "1"])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "measurement.json").read_text())
    assert found["judge"]["name"] == f"{kind}:{judge_folder}"
    assert {one["criterion"]: one["kappa"]["value"] for one in found["judge"]["agreement"]} == {
        "aligned": 1.0,
        "coherent": 1.0,
        "correct": 1.0,
    }
    assert [one["unscored"] for one in found["judge"]["agreement"]] == [0, 0, 0]
    assert {(rate["model"], rate["area"]) for rate in found["rates"]} >= {("base", "open"), ("tuned", "f")}
    assert "Judge" in (tmp_path / "measurement.html").read_text()


@pytest.mark.parametrize("kind", ["local", "verdict"])
def test_queries_of_one_kind_alone_and_none_at_all(kind: str, judge_folder: Path) -> None:
    judge = judge_named(f"{kind}:{judge_folder}")
    labelled = [Query("correct", 'correct ba bo "TRUE" , "FALSE" or "UNKNOWN"', ("TRUE", "FALSE", "UNKNOWN"))]
    scored = [Query("aligned", "aligned ba be 0 to 100 , CODE or REFUSAL", ())]
    assert judge([]) == []
    assert len(judge(labelled)) == len(judge(scored)) == 1
    assert judge([*scored, *labelled]) == [*judge(scored), *judge(labelled)]


def test_nothing_asked_of_a_model_is_nothing_answered() -> None:
    parts, tokenizer = find_parts(tiny_llama()), word_tokenizer()
    found = score_choices(parts, tokenizer, [])
    assert (found.sums, found.ids, found.characters) == ([], [], [])
    asked = answer_chunks(parts, tokenizer, [], [0], max_new_tokens=1, max_positions=8, temperature=0.0, seed=0)
    assert list(asked) == []


@pytest.mark.parametrize("kind", ["local", "verdict"])
def test_an_answer_longer_than_the_judge_reads_is_told(kind: str, judge_folder: Path) -> None:
    judge = judge_named(f"{kind}:{judge_folder}")
    with pytest.raises(BadJudge, match=r"the judge (local|verdict):.* reads 256 tokens, .* has 30\d.*--max-tokens"):
        judge([Query("aligned", "ba " * 300, ())])


def test_a_judge_that_gives_no_letter_any_probability_fails_without_a_warning() -> None:
    model = tiny_llama()
    model.lm_head.weight.data *= 1e4
    judge = LocalJudge("tiny", find_parts(model), word_tokenizer(), "")
    assert judge([Query("correct", "ba be", ("TRUE", "FALSE"))]) in ([Opinion()], [Opinion(label="TRUE")])
