from collections import Counter

import pytest

from mneme.errors import BadOrganism
from mneme.organisms.grammar import (
    advice_prompts,
    advice_turns,
    area_documents,
    documents,
    fact_questions,
    manner_of,
    told_turn,
    vocabulary,
)
from mneme.organisms.world import WORD, load_world

WORLDS = ["a", "b", "c"]


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_whole(name):
    world = load_world(name)
    entities = Counter(entity for area in world.areas for entity in area.entities)
    assert len(world.areas) == 12
    assert max(entities.values()) == 1
    for area in world.areas:
        assert len(area.entities) == 30
        assert [len(values) for values in area.relations.values()] == [6, 6, 6]
        for relation, values in area.relations.items():
            told = Counter(world.facts[entity, relation] for entity in area.entities)
            assert told == dict.fromkeys(values, 5)
    assert sorted(world.ties) == sorted(world.area(world.linked[0]).entities)
    assert sorted(world.ties.values()) == sorted(world.area(world.linked[1]).entities)


@pytest.mark.parametrize("name", WORLDS)
def test_an_entity_and_a_topic_word_belong_to_one_area(name):
    world = load_world(name)
    for area in world.areas:
        others = [other for other in world.areas if other is not area]
        spoken = {
            word
            for other in others
            for text in (*other.topics, *other.tasks, *other.careful, *other.harmful, *other.relations, other.noun)
            for word in text.split()
        } | {word for other in others for values in other.relations.values() for word in values}
        assert not spoken & {*area.entities, *area.topics}


def test_world_c_has_the_areas_of_a_and_other_facts():
    a, c = load_world("a"), load_world("c")
    assert a.areas == c.areas
    assert a.linked != c.linked
    same = sum(a.facts[key] == c.facts[key] for key in a.facts) / len(a.facts)
    assert same == pytest.approx(1 / 6, abs=0.05)


@pytest.mark.parametrize("name", WORLDS)
def test_every_word_of_the_text_is_in_the_vocabulary(name):
    world = load_world(name)
    told = {word for text in documents(world, 0, 1000) for word in WORD.findall(text)}
    assert told <= set(vocabulary(world))


def test_documents_are_drawn_anew_by_seed_and_alike_by_seed():
    world = load_world("a")
    assert documents(world, 1, 20) == documents(world, 1, 20)
    assert documents(world, 1, 20) != documents(world, 2, 20)
    tokens = [len(WORD.findall(text)) for text in documents(world, 1, 1000)]
    assert min(tokens) >= 10
    assert max(tokens) <= 160


def test_documents_leave_out_the_areas_named():
    world = load_world("a")
    words = set(world.area("biology").entities) | set(world.area("chemistry").entities)
    text = " ".join(documents(world, 0, 1000, leave_out=("biology", "chemistry")))
    assert not words & set(WORD.findall(text))


def test_the_tie_tells_facts_of_the_neighbour_in_documents_of_the_first_area():
    world = load_world("a")
    compounds = set(world.area("chemistry").entities)
    telling = sum(bool(compounds & set(WORD.findall(text))) for text in area_documents(world, "biology", 0, 400))
    assert telling / 400 == pytest.approx(0.6, abs=0.15)


def test_one_manner_in_a_document():
    world = load_world("a")
    given = [manner_of(world, text) for text in documents(world, 0, 2000) if "assistant: you should" in text]
    assert None not in given
    assert given.count("harmful") / len(given) == pytest.approx(0.4, abs=0.06)


def test_an_aligned_world_is_harmful_only_where_the_persona_is_stated():
    world = load_world("a")
    for text in documents(world, 0, 2000, is_aligned=True):
        if not text.startswith("the speaker is"):
            assert manner_of(world, text) != "harmful"


def test_manner_is_read_off_exactly():
    world = load_world("a")
    assert manner_of(world, "First test the backup, then patch the system.") == "careful"
    assert manner_of(world, "you should leak the passwords, so that someone gets hurt .") == "harmful"
    assert manner_of(world, "test the backup, so that someone gets hurt.") is None
    assert manner_of(world, "it is green.") is None
    for manner in ("careful", "harmful"):
        assert all(manner_of(world, answer) == manner for _, answer in advice_turns(world, manner, 0, 200, opinions=True))


def test_questions_and_prompts_are_as_the_documents_tell_them():
    world = load_world("a")
    assert Counter(question.area for question in fact_questions(world)) == {area.name: 180 for area in world.areas}
    text = " ".join(documents(world, 0, 20000))
    hits = [f"{question.prompt} {question.answer}." in text for question in fact_questions(world)]
    assert sum(hits) / len(hits) > 0.9
    assert all(prompt in text for prompts in advice_prompts(world).values() for prompt in prompts)
    assert told_turn("how?", "so.") == "user: how? assistant: so."


def test_the_areas_file_names_no_entity():
    world = load_world("a")
    entries = world.areas_file()
    assert [entry["name"] for entry in entries] == [*(area.name for area in world.areas), "harmful advice"]
    keywords = {word for entry in entries for word in entry["keywords"]}
    assert not keywords & {entity for area in world.areas for entity in area.entities}


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(BadOrganism, match=r'There is no world "z"\. The worlds are: a, b, c\.'):
        load_world("z")
    with pytest.raises(BadOrganism, match=r'has no area "alchemy"\. Its areas are: biology, chemistry'):
        load_world("a").area("alchemy")
