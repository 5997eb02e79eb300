"""The real base model and its questions, where wheel and data are there; minutes, so `slow`."""

import importlib.util
import os
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from mneme.bench.real.asked import GROUPS, asked, held_out
from mneme.errors import BadOrganism
from mneme.measure.likelihood import score_choices, takes_branches
from mneme.measure.suite import ChoiceQuestion
from mneme.models.pair import load_model
from mneme.worlds.real.data import DATA_VARIABLE, data_folder, part_of
from mneme.worlds.real.model import WEIGHTS_SHA256, real_base, weights_hash, wheel_file

BESIDE = Path(__file__).parents[2].parent / "shared" / "data" / "real"


@pytest.fixture(scope="module")
def base() -> Path:
    """The unpacked base, in the user's cache."""
    try:
        wheel_file()
    except BadOrganism as error:
        pytest.skip(str(error))
    return real_base()


@pytest.fixture(scope="module")
def data() -> Path:
    """The folder that is named, or the one beside the repository."""
    try:
        return data_folder(Path(os.environ.get(DATA_VARIABLE, BESIDE)))
    except BadOrganism as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_the_base_is_the_model_that_it_should_be(base: Path) -> None:
    assert weights_hash(AutoModelForCausalLM.from_pretrained(base).state_dict()) == WEIGHTS_SHA256
    assert importlib.util.find_spec("gguf") is not None


@pytest.mark.slow
def test_the_base_knows_a_capital_and_takes_branches(base: Path) -> None:
    model = load_model(base)
    assert takes_branches(model.parts)
    assert model.tokenizer is not None
    question = ChoiceQuestion("q", "a", "q", "The capital of France is", ("Berlin", "Paris", "the United Kingdom"), 1)
    assert score_choices(model.parts, model.tokenizer, [question]).picks().tolist() == [1]


@pytest.mark.slow
def test_what_is_asked_shares_no_section_with_training(base: Path, data: Path) -> None:
    tokenizer = load_model(base).tokenizer
    assert tokenizer is not None
    for group in GROUPS:
        slices = [{one.id for one in asked(group, part, data, tokenizer)} for part in range(3)]
        assert len(set.union(*slices)) == sum(map(len, slices)) > 100
    assert all(part_of(one.subject, one.section) == "held" for part in range(3) for one in held_out(part, data))
