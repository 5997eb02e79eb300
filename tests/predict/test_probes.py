"""Paired answers: what transformers itself says, known by hand, and the shipped ones balanced."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mneme.errors import BadAreas
from mneme.models.pair import ModelPair, load_pair
from mneme.predict.areas import Area, Kind, PairedAnswers, default_areas
from mneme.predict.paired import SHIPPED, probes_of, read_probes, shipped_probes
from mneme.predict.probes import AskedProbe, probability_shown, read_asked, write_probes
from tests import laws
from tests.conftest import TinyPair, word_tokenizer

PROBES = (
    PairedAnswers(ask="ba be", shows="bi bo", lacks="bu"),
    PairedAnswers(ask="da de di", shows="do", lacks="du dan"),
    PairedAnswers(ask="fa", shows="fe fi", lacks="fo fu", system="ga"),
    PairedAnswers(ask="fa Unknown words here only", shows="Some more of them", lacks="And again"),
)


TEMPLATE = (
    "{% for m in messages %}{{ m.role }} : {{ m.content }} {% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)


def loaded(base: Path, tuned: Path) -> ModelPair:
    """A pair whose tokenizer has a chat template of words that it knows."""
    pair = load_pair(base, tuned)
    pair.tokenizer.chat_template = TEMPLATE
    return pair


@pytest.fixture(scope="module")
def pair(tiny_pair: TinyPair) -> ModelPair:
    return loaded(tiny_pair.base, tiny_pair.tuned)


def test_what_is_read_is_what_transformers_says(pair: ModelPair) -> None:
    asked = write_probes(PROBES[:1] * 3, pair.tokenizer)
    read = read_asked(pair, asked)
    assert len(asked) == 2
    with torch.no_grad():
        for index, one in enumerate(asked):
            for model, parts in enumerate((pair.base_parts, pair.tuned_parts)):
                said = parts.model(input_ids=torch.tensor([one.ids])).logits[0].log_softmax(-1)
                total = sum(float(said[place - 1, one.ids[place]]) for place in range(one.first, len(one.ids)))
                assert read["log_p"][model, index] == pytest.approx(total, abs=1e-4)


def test_a_prompt_that_the_tokenizer_cannot_write_is_not_asked() -> None:
    assert {one.probe for one in write_probes(PROBES, word_tokenizer())} == set()  # "Question:" alone is unknown to it
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATE
    # The system prompt of the second form and the words of the fourth are unknown to it; the third has one of its own.
    assert {one.probe for one in write_probes(PROBES, tokenizer)} == {0, 2}


def test_probability_by_hand_and_length() -> None:
    asked = [AskedProbe(0, True, [1, 2, 3], 1), AskedProbe(0, False, [1, 4], 1)]
    log_p = np.log(np.array([[0.25, 0.5], [0.01, 0.5]]))
    shown, numbers = probability_shown(asked, {"log_p": log_p, "length": np.array([2, 1])})
    # Per token 0.5 against 0.5, and 0.1 against 0.5, over the shorter length of one token.
    assert shown[:, 0] == pytest.approx([0.5, 0.1 / 0.6])
    assert numbers == [0]


def test_identity_and_antisymmetry(pair: ModelPair, tiny_pair: TinyPair) -> None:
    def change(one: ModelPair) -> np.ndarray:
        asked = write_probes(PROBES, one.tokenizer)
        return np.diff(probability_shown(asked, read_asked(one, asked))[0], axis=0)

    laws.identity(change(loaded(tiny_pair.base, tiny_pair.base)))
    laws.antisymmetry(change(pair), change(loaded(tiny_pair.tuned, tiny_pair.base)), tolerance=1e-12)


@pytest.mark.parametrize("path", sorted(SHIPPED.rglob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_probes_are_enough_and_balanced(path: Path) -> None:
    """20 to 64, no prompt twice, answers of about the same length; named like an area of the default list of that kind."""
    kind: Kind = "capability" if path.parent.name == "capability" else "behaviour"
    probes = shipped_probes(path.stem.replace("-", " "), kind)
    assert 20 <= len(probes) <= 64
    assert len({(one.system, one.ask, one.begin) for one in probes}) == len(probes)
    lengths = np.array([[len(one.shows), len(one.lacks)] for one in probes]).mean(axis=0)
    assert 0.6 < lengths[0] / lengths[1] < 1.67
    assert path.stem in {area.name.replace(" ", "-") for area in default_areas() if area.kind == kind}


def test_beginning_of_a_text_is_read_without_template_and_goes_on_after_a_space() -> None:
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATE
    asked = write_probes([PairedAnswers(begin="ba be", shows="bi", lacks="bu")], tokenizer)
    assert [one.ids for one in asked] == [tokenizer(text)["input_ids"] for text in ("ba be bi", "ba be bu")]
    assert [one.first for one in asked] == [2, 2]


def test_no_shipped_probe_is_that_of_a_capability_which_bears_the_name_of_a_behaviour() -> None:
    assert probes_of(Area(name="code", kind="behaviour"))
    assert not probes_of(Area(name="code"))
    assert probes_of(Area(name="word forms"))


@pytest.mark.parametrize("given", [{}, {"ask": "What?", "begin": "It is"}, {"begin": "It is", "system": "Be kind."}])
def test_probe_is_a_question_or_a_beginning(given: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="either ask, a question, or begin"):
        PairedAnswers(shows="this", lacks="that", **given)


def test_what_is_no_list_of_probes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "probes.yaml"
    path.write_text('- {ask: "What?", shows: This}\n')
    with pytest.raises(BadAreas, match=r"probe 1: .*Expected a list of \{ask, shows, lacks\}"):
        read_probes(path)
    path.write_text("nothing")
    with pytest.raises(BadAreas, match="holds no list of probes"):
        read_probes(path)
    with pytest.raises(BadAreas, match="cannot be read"):
        read_probes(tmp_path / "missing.yaml")


def test_plain_text_begins_as_the_tokenizer_begins_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every third question is plain text, with the special tokens of the tokenizer; chats have those of the template."""
    tokenizer = word_tokenizer()
    tokenizer.chat_template = TEMPLATE
    asked: set[tuple[bool, bool]] = set()
    plain = type(tokenizer).__call__

    def recorded(self: object, text: str, *, add_special_tokens: bool = True) -> object:
        asked.add((text.startswith("user :"), add_special_tokens))
        return plain(self, text, add_special_tokens=add_special_tokens)

    monkeypatch.setattr(type(tokenizer), "__call__", recorded)
    question = PairedAnswers(ask="ba be", shows="bi", lacks="bu")
    write_probes([question, PairedAnswers(begin="ba", shows="bi", lacks="bu"), question], tokenizer)
    assert asked == {(True, False), (False, True)}
