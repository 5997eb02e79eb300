"""Whose chat template a pair, or a model that is asked, is read with: chosen by a rule, said, and differences are told."""

from pathlib import Path

import pytest

from mneme.errors import ModelMismatch
from mneme.measure.subjects import subjects_of
from mneme.models.pair import load_model, load_pair
from tests.conftest import word_tokenizer
from tests.models.adapter_kinds import plain_base, save_kind
from tests.models.test_law_adapters import edit

ONE = "{% for m in messages %} {{ m['role'] }} : {{ m['content'] }}{% endfor %}"
OTHER = "{% for m in messages %} {{ m['content'] }} .{% endfor %}"


def give_template(folder: Path, template: str | None) -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    base = plain_base(tmp_path / "base", tied=True, biased=False)
    save_kind("LoRA", base, tmp_path / "adapter")
    return base, tmp_path / "adapter"


@pytest.mark.parametrize(
    ("base_has", "tuned_has", "used", "told", "difference"),
    [
        (ONE, ONE, ONE, "of BASE, which is that of TUNED", False),
        (ONE, OTHER, ONE, "of BASE; that of TUNED is another", True),
        (ONE, None, ONE, "of BASE; TUNED has none", False),
        (None, OTHER, OTHER, "of TUNED; BASE has none", False),
        (None, None, None, "Neither model has a chat template", False),
    ],
)
def test_whose_template_is_used(
    folders: tuple[Path, Path], base_has: str | None, tuned_has: str | None, used: str | None, told: str, difference: bool
) -> None:
    for folder, template in zip(folders, (base_has, tuned_has), strict=True):
        give_template(folder, template)
    pair = load_pair(*folders)
    assert pair.tokenizer.chat_template == used
    assert told in pair.template
    assert any("another chat template" in note for note in pair.notes) == difference


def test_a_template_that_is_given_wins(folders: tuple[Path, Path], tmp_path: Path) -> None:
    give_template(folders[0], ONE)
    file = tmp_path / "own.jinja"
    file.write_text(OTHER)
    pair, alone = load_pair(*folders, chat_template=file), load_model(folders[0], chat_template=file)
    assert alone.tokenizer is not None
    for tokenizer, told in ((pair.tokenizer, pair.template), (alone.tokenizer, alone.template)):
        assert tokenizer.chat_template == OTHER
        assert str(file) in told


@pytest.mark.parametrize(("own", "used"), [(OTHER, OTHER), (None, ONE)])
def test_an_adapter_alone_has_its_own_template_or_that_of_its_base(
    folders: tuple[Path, Path], own: str | None, used: str
) -> None:
    base, adapter = folders
    give_template(base, ONE)
    give_template(adapter, own)
    found = load_model(adapter, adapter_base=base)
    assert found.tokenizer is not None
    assert found.tokenizer.chat_template == used
    assert found.template.endswith(f"of {adapter if own else base}.")


@pytest.mark.parametrize("tuned_has", [OTHER, None])
def test_an_adapter_is_asked_as_a_full_checkpoint_is(folders: tuple[Path, Path], tuned_has: str | None) -> None:
    base, adapter = folders
    give_template(base, ONE)
    if tuned_has:
        give_template(adapter, tuned_has)
    subjects = subjects_of(base, [adapter])
    assert [one.loaded().tokenizer.chat_template for one in subjects] == [ONE, tuned_has or ONE]
    assert ("its own chat template" in subjects[1].template()) == bool(tuned_has)


def test_a_base_that_was_asked_for_is_taken_with_a_warning(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, adapter = folders
    named = plain_base(tmp_path / "named", tied=False, biased=False)
    edit(adapter, base_model_name_or_path=str(named))
    with pytest.raises(ModelMismatch, match=r"was trained on .*named.* or --base"):
        load_pair(base, adapter)
    assert any("at hand with other weights" in note for note in load_pair(base, adapter, adapter_base=base).notes)
    assert any("at hand with other weights" in note for note in load_model(adapter, adapter_base=base).notes)
