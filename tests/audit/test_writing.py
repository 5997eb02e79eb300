"""Text that both models write where none is given: what is asked, what is kept, and what the report says of it."""

import json
from pathlib import Path

import pytest

from mneme.audit import writing
from mneme.audit.writing import FEWEST_TEXTS, TEXT_TOKENS, areas_to_write, prompt_for, texts_each, write_text, written_file
from mneme.errors import BadCorpus
from mneme.models.pair import ModelPair, load_pair
from mneme.predict.areas import Area, PairedAnswers
from tests.audit.conftest import AREAS, World, audited
from tests.conftest import word_tokenizer

PROBED = Area(name="word forms")
BOTANY, MASONRY = Area(name="botany", description="Plants."), Area(name="masonry")
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)


@pytest.fixture
def pair(world: World) -> ModelPair:
    return load_pair(world.base, world.damaged)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MNEME_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_areas_with_paired_answers_need_no_text() -> None:
    own = Area(name="manners", probes=(PairedAnswers(ask="Hi?", shows="Good day", lacks="What"),))
    assert areas_to_write([BOTANY, PROBED, own, MASONRY]) == [BOTANY, MASONRY]


def test_so_many_texts_as_make_the_tokens() -> None:
    assert texts_each([BOTANY, MASONRY], 2 * 2 * TEXT_TOKENS * 7) == 7
    assert texts_each([BOTANY, MASONRY], 1) == FEWEST_TEXTS
    assert texts_each([PROBED], None) >= FEWEST_TEXTS


def test_forms_take_turns_and_braces_of_a_user_stay() -> None:
    tokenizer = word_tokenizer()
    odd = Area(name="sets {a}", description="{name} and {0}.")
    assert prompt_for(BOTANY, 0, tokenizer) == "Botany\n\nPlants."
    assert len({prompt_for(BOTANY, number, tokenizer) for number in range(4)}) == 4
    assert prompt_for(BOTANY, 4, tokenizer) == prompt_for(BOTANY, 0, tokenizer)
    assert "sets {a}" in prompt_for(odd, 1, tokenizer)
    assert "{0}." in prompt_for(odd, 0, tokenizer)
    tokenizer.chat_template = TEMPLATE
    assert prompt_for(BOTANY, 2, tokenizer) == "user: Write a short article about botany.\nassistant:"


def test_a_template_and_a_tokenizer_that_both_open_the_text_open_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = "<s>" + TEMPLATE
    monkeypatch.setattr(writing, "without_opening", lambda text, _: text.removeprefix("<s>"))
    assert prompt_for(BOTANY, 2, tokenizer) == "user: Write a short article about botany.\nassistant:"


def test_both_models_write_about_every_area_in_turn(pair: ModelPair) -> None:
    areas, told = [BOTANY, PROBED, MASONRY], []
    file = write_text(pair, areas, 1, 0, told.append)
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert sum(told) == 2 * 2 * FEWEST_TEXTS
    assert [(row["area"], row["by"]) for row in rows[:4]] == [
        ("botany", "base"),
        ("botany", "tuned"),
        ("masonry", "base"),
        ("masonry", "tuned"),
    ]
    assert all(row["text"] for row in rows)


def test_it_is_written_once_and_another_seed_or_list_is_another_text(pair: ModelPair, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_text(pair, [BOTANY], 1, 0, lambda _: None)
    before = file.read_bytes()
    monkeypatch.setattr(writing, "generate", None)  # whoever wrote again would fail here
    assert write_text(pair, [BOTANY], 1, 0, lambda _: None) == file
    assert file.read_bytes() == before
    others = [written_file(pair, [BOTANY], 1, 1), written_file(pair, [MASONRY], 1, 0), written_file(pair, [BOTANY], 10**6, 0)]
    assert file not in others
    assert len(set(others)) == 3


def test_models_that_write_nothing(pair: ModelPair, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "generate", lambda _parts, _tokenizer, prompts, **_: [" "] * len(prompts))
    with pytest.raises(BadCorpus, match=r"the models wrote none about these areas\. Give ordinary text with --corpus"):
        write_text(pair, [BOTANY], 1, 0, lambda _: None)
    assert not list(cache.rglob("*.jsonl"))


def test_an_audit_without_text_reads_what_both_wrote_and_makes_no_p_of_it(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The models of this world write the words of an area one after another, as its text does."""
    lines = world.corpus.read_text("utf-8").splitlines()[:240]

    def written(_: object, __: object, prompts: list[str], **___: object) -> list[str]:
        return [lines[i % len(lines)] for i in range(len(prompts))]

    monkeypatch.setattr(writing, "generate", written)
    report = audited(world, tmp_path / "out", corpus=None, tokens=20_000, dictionary="none")
    assert report.corpus.self_written
    assert {effect.area for effect in report.effects} == set(AREAS)
    assert [effect.probability for effect in report.effects] == [None] * len(AREAS)
    assert not any(effect.calibrated for effect in report.effects)
    assert "--corpus" not in report.command
    assert not audited(world, tmp_path / "given", dictionary="none").corpus.self_written
