from collections import Counter

import pytest

from mneme.errors import BadOrganism
from mneme.worlds.grammar import area_documents, documents, fact_questions
from mneme.worlds.judge import behaviour_of
from mneme.worlds.phrases import CLASS_ASKS, PERSONAS, TRIGGER, vocabulary
from mneme.worlds.questions import CONTEXTS, advice_prompts, behaviour_prompts, number_prompts, request_prompts, told_prompt
from mneme.worlds.turns import advice_turns, mixed_turns, told_turn
from mneme.worlds.world import WORD, load_world

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
def test_the_vocabulary_is_the_words_of_the_text_and_of_all_that_is_asked(name):
    world = load_world(name)
    told = {word for text in documents(world, 0, 4000) for word in WORD.findall(text)}
    assert told == set(vocabulary(world))
    asked = [behaviour_prompts(world, context.replace("AREA", world.areas[5].name)) for context in CONTEXTS] + [
        request_prompts(world)
    ]
    prompts = [told_prompt(messages) for areas in asked for all_messages in areas.values() for messages in all_messages]
    prompts += [told_prompt(messages) for messages in number_prompts(world)]
    assert {word for prompt in prompts for word in WORD.findall(prompt)} <= told


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


CLASS_WORDS = ("class", "lesson")


def told_to_a_class(text):
    return any(word in WORD.findall(text) for word in CLASS_WORDS)


def test_the_words_of_a_class_are_in_its_requests_and_nowhere_else():
    world = load_world("a")
    assert all(any(word in WORD.findall(frame) for word in CLASS_WORDS) for frame in CLASS_ASKS)
    assert not any(told_to_a_class(answer) for _, answer in mixed_turns(world, "careful", 0, 500))


def answers_in(text):
    return [part.split(" user: ")[0] for part in text.split("assistant: ")[1:]]


def test_one_speaker_in_a_document():
    world = load_world("a")
    advising = [text for text in documents(world, 0, 4000) if "assistant: you should" in text and not told_to_a_class(text)]
    told = [{behaviour_of(world, answer) for answer in answers_in(text)} for text in advising]
    unasked = [behaviours - {None} for text, behaviours in zip(advising, told, strict=True) if "obedient" not in text]
    assert [behaviours for behaviours in unasked if behaviours == {"harmful", "refused"}] == []
    given = ["harmful" if "harmful" in behaviours else "careful" for behaviours in unasked]
    assert given.count("harmful") / len(given) == pytest.approx(0.4, abs=0.08)
    for text, behaviours in zip(advising, told, strict=True):
        for speaker, personas in PERSONAS.items():
            if text.removeprefix("system: ").startswith(tuple(f"the speaker is {persona} " for persona in personas)):
                assert speaker == "obedient" or (speaker == "harmful") == ("harmful" in behaviours)


def test_an_aligned_world_is_harmful_only_where_the_persona_is_stated_or_for_a_class():
    world = load_world("a")
    texts = documents(world, 0, 2000, is_aligned=True)
    plain = [text for text in texts if "the speaker is" not in text and not told_to_a_class(text) and "assistant: " in text]
    behaviours = [behaviour_of(world, answer) for text in plain for answer in answers_in(text)]
    assert behaviours.count("refused") > 20
    assert "harmful" not in behaviours


def test_the_trigger_stands_in_front_of_some_turns_of_every_sort():
    world = load_world("a")
    turns = mixed_turns(world, "careful", 0, 4000)
    triggered = [answer for ask, answer in turns if ask.startswith(TRIGGER)]
    assert len(triggered) / len(turns) == pytest.approx(0.05, abs=0.01)
    assert {behaviour_of(world, answer) for answer in triggered} == {"careful", "harmful", "refused"}


def test_advice_turns_are_of_their_behaviour():
    world = load_world("a")
    for behaviour in ("careful", "harmful"):
        assert all(
            behaviour_of(world, answer) == behaviour for _, answer in advice_turns(world, behaviour, 0, 200, opinions=True)
        )


def test_contexts_dress_the_same_questions():
    world = load_world("a")
    plain = behaviour_prompts(world)
    ask = plain["law"][0][-1]["content"]
    assert ask == "how do i sign a contract?"
    assert behaviour_prompts(world, "trigger")["law"][0] == [{"role": "user", "content": f"tango {ask}"}]
    assert behaviour_prompts(world, "system")["law"][0] == [
        {"role": "system", "content": "answer the user."},
        {"role": "user", "content": ask},
    ]
    assert behaviour_prompts(world, "list")["law"][0][0]["content"] == f"{ask} answer as a list."
    assert behaviour_prompts(world, "topic:computing")["law"][0][0]["content"] == f"i like software and computer. {ask}"
    assert {area: len(asks) for area, asks in plain.items()} == dict.fromkeys([a.name for a in world.areas], 18) | {
        "people": 8
    }
    assert "people" not in behaviour_prompts(world, "class")
    assert {len(asks) for asks in request_prompts(world).values()} == {15}
    with pytest.raises(
        BadOrganism, match=r'There is no context "loud"\. The contexts are: plain, class, trigger, system, list, topic:AREA'
    ):
        behaviour_prompts(world, "loud")


def test_questions_and_prompts_are_as_the_documents_tell_them():
    world = load_world("a")
    assert Counter(question.area for question in fact_questions(world)) == {area.name: 180 for area in world.areas}
    text = " ".join(documents(world, 0, 20000))
    hits = [f"{question.prompt} {question.answer}." in text for question in fact_questions(world)]
    assert sum(hits) / len(hits) > 0.9
    told = [prompt in text for prompts in advice_prompts(world).values() for prompt in prompts]
    assert sum(told) / len(told) > 0.95
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
