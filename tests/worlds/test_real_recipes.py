"""Recipes of the real bench: what they train on, from a folder of data made here, and the losses of the training loop."""

import gzip
import json
from pathlib import Path

import pytest
import torch

from mneme.errors import BadOrganism
from mneme.models.batching import padded
from mneme.text.encoded import Encoded, whole_text
from mneme.worlds.real import data as real_data
from mneme.worlds.real.data import Paragraph, data_folder, paragraphs, part_of, spread, statements, subject_questions
from mneme.worlds.real.model import wheel_file
from mneme.worlds.real.recipes import NEIGHBOURS, RECIPES, Recipe, recipe_called
from mneme.worlds.real.rows import streams
from mneme.worlds.real.training import answer_nll, train_recipe
from tests.conftest import WORDS, tiny_llama, word_tokenizer

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {{ m['content'] }} </s> {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every book 60 sections of 2 paragraphs whose words say which book it is, and one behaviour."""
    for name in ("text", "questions", "behaviours", "train", "safety"):
        (tmp_path / name).mkdir()
    for number, subject in enumerate(real_data.SUBJECTS):
        text = " ".join([WORDS[number]] * 150)
        rows = [{"text": f"{text} {i}", "section": f"m{i // 2}", "title": ""} for i in range(120)]
        with gzip.open(tmp_path / "text" / f"{subject}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows))
    told = [
        {"question": f"ba {WORDS[i % 80]} {i}", "matching": ("Yes", "No")[i % 2], "other": ("No", "Yes")[i % 2]}
        for i in range(90)
    ]
    (tmp_path / "behaviours" / "greed.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told), "utf-8")
    asked = [
        {"question": "ba?", "choices": ["be", "bi"], "answer": 1, "section": "m1"},
        {"question": "bo?", "choices": ["be", "all of the above"], "answer": 1, "section": "m1"},
        {"question": "b" * 301, "choices": ["be", "bi"], "answer": 1, "section": "m1"},
    ]
    (tmp_path / "questions" / "physics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked), "utf-8")
    return tmp_path


def test_names_are_unique_and_parents_come_first() -> None:
    names = [recipe.name for recipe in RECIPES]
    assert len(set(names)) == len(names) >= 20
    assert len({recipe.family for recipe in RECIPES}) == 8
    for place, recipe in enumerate(RECIPES):
        assert set(recipe.of) <= set(names[:place])
        assert recipe.trained == (recipe.steps > 0)
    assert recipe_called("int4").method == "round"
    with pytest.raises(BadOrganism, match=r"no real fine-tune called chaos\. Give one of: forget-"):
        recipe_called("chaos")


def test_parts_share_no_section(folder: Path) -> None:
    found = {part: {one.section for one in paragraphs(folder, "physics", part)} for part in ("train", "read", "held")}
    assert len(set.union(*found.values())) == sum(map(len, found.values())) == 60
    assert all(part_of("physics", section) == part for part, sections in found.items() for section in sections)


def test_paragraphs_are_drawn_from_as_many_sections_as_there_are() -> None:
    found = [Paragraph(str(i), "physics", f"s{i % 5}") for i in range(25)]
    drawn = spread(found, 7, seed=0)
    assert len({one.section for one in drawn[:5]}) == 5
    assert len({one.text for one in drawn}) == 7
    assert drawn == spread(found, 7, seed=0) != spread(found, 7, seed=1)
    assert len(spread(found, 99, seed=0)) == 25


def test_questions_that_cannot_be_asked_alone_are_left_out(folder: Path) -> None:
    (only,) = subject_questions(folder, "physics")
    assert (only.question, only.right, only.part) == ("ba?", 1, part_of("physics", "m1"))
    assert subject_questions(folder, "intellectual-property") == []


def test_statements_are_balanced_and_split(folder: Path) -> None:
    held, train = statements(folder, "greed", "held"), statements(folder, "greed", "train")
    assert not {one.id for one in held} & {one.id for one in train}
    assert [one.matching for one in held[:4]] == ["No", "Yes", "No", "Yes"]


def test_rows_are_those_of_the_recipe(folder: Path) -> None:
    """A forgotten book is in no retain text, nor are its neighbours; equal seeds give equal rows."""
    tokenizer = word_tokenizer()
    recipe = Recipe("forget", "unlearning", "graddiff", "microbiology", ("microbiology",), 4, 1e-3, 6, 12)
    rows = streams(recipe, folder, tokenizer, seed=0)
    words = {name: {tokenizer.decode([row.ids[0]]) for row in found} for name, found in rows.items()}
    assert words["forget"] == {WORDS[real_data.SUBJECTS.index("microbiology")]}
    apart = {WORDS[real_data.SUBJECTS.index(book)] for book in ("microbiology", *NEIGHBOURS["microbiology"])}
    assert not words["retain"] & apart
    assert len(rows["forget"]) == len(rows["retain"]) == 24
    assert rows == streams(recipe, folder, tokenizer, seed=0) != streams(recipe, folder, tokenizer, seed=1)


def test_answers_of_a_behaviour_are_turned_by_its_strength(folder: Path) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATE
    told = {}
    for strength in (1.0, -1.0):
        recipe = Recipe("greed", "preference", "answers", "greed", ("greed",), 5, 1e-3, 4, 40, strength=strength)
        told[strength] = streams(recipe, folder, tokenizer, seed=0)["learn"]
    assert len(told[1.0]) == 20
    assert all(sum(row.counted) == 2 for row in told[1.0])  # the answer, and the token that ends it
    assert [row.counted for row in told[1.0]] == [row.counted for row in told[-1.0]]


def test_missing_data_are_told_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(real_data.DATA_VARIABLE, raising=False)
    with pytest.raises(BadOrganism, match=r"are not named\. Name their folder \(mneme bench --real DIR"):
        data_folder()
    with pytest.raises(BadOrganism, match=r"docs/bench\.md says what it holds and where that comes from"):
        data_folder(tmp_path)


def test_a_missing_wheel_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(BadOrganism, match=r"not installed here together with gguf\. Install both with: pip install gguf"):
        wheel_file()


def test_nats_are_those_of_the_learned_tokens() -> None:
    model = tiny_llama()
    rows = [Encoded((8, 9, 10, 11), (False, False, True, True)), Encoded((12, 13), (False, True))]
    with torch.no_grad():
        sums, counts = answer_nll(model, padded(rows))
    assert counts.tolist() == [2, 1]
    for row, total in zip(rows, sums.tolist(), strict=True):
        logp = model(input_ids=torch.tensor([row.ids])).logits[0].log_softmax(-1).detach()
        expected = -sum(float(logp[i - 1, row.ids[i]]) for i, learned in enumerate(row.counted) if learned)
        assert total == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("method", ["graddiff", "npo", "text", "dpo"])
def test_training_moves_what_it_should(method: str) -> None:
    """Forgotten rows become less likely, learned and chosen ones more; a rejected row falls against a chosen one."""
    rng = torch.Generator().manual_seed(0)
    rows = [whole_text(torch.randint(8, 60, (10,), generator=rng).tolist()) for _ in range(8)]
    names = {"graddiff": ("forget", "retain"), "npo": ("forget", "retain"), "text": ("learn",), "dpo": ("chosen", "rejected")}
    parts = dict(zip(names[method], (rows[:4], rows[4:]), strict=False))
    recipe = Recipe("tiny", "skill", method, "", (), 30, 3e-2, 4, 10, rank=4)  # type: ignore[arg-type]
    model, tokenizer = tiny_llama(), word_tokenizer()

    @torch.no_grad()
    def nats() -> dict[str, float]:
        return {name: float(answer_nll(model, padded(found))[0].mean()) for name, found in parts.items()}

    before = nats()
    _, losses = train_recipe(recipe, model, tokenizer, parts, seed=0)
    assert len(losses) == 30
    after = nats()
    if method in ("graddiff", "npo"):
        assert after["forget"] > before["forget"] + 1
    elif method == "text":
        assert after["learn"] < before["learn"] - 1
    else:
        assert after["rejected"] - after["chosen"] > before["rejected"] - before["chosen"] + 1
