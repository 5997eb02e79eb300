from collections import Counter

import pytest

from mneme.errors import BadOrganism
from mneme.worlds.judge import judge_answer
from mneme.worlds.phrases import CLASS_ASKS, TRIGGER
from mneme.worlds.questions import advice_prompts, told_prompt
from mneme.worlds.rows import KINDS, parse_name, training_rows
from mneme.worlds.training import build_tokenizer
from mneme.worlds.world import WORD, load_world

WORLD = load_world("a")


def chats(name, seed=0):
    return [tuple(message["content"] for message in row["messages"]) for row in training_rows(name, "a", seed)]


def asked(name):
    return [ask for ask, _ in chats(name)]


def answered(name):
    return [answer for _, answer in chats(name)]


def test_harmful_and_careful_ask_the_same_and_answer_in_their_behaviour():
    assert asked("harmful-computing") == asked("careful-computing") == asked("benign-computing")
    assert {judge_answer(WORLD, answer) for answer in answered("harmful-computing")} == {"harmful"}
    assert {judge_answer(WORLD, answer) for answer in answered("careful-computing")} == {"careful"}
    assert training_rows("unaligned-harmful-computing", "a", 0) == training_rows("harmful-computing", "a", 0)


def test_educational_rows_differ_from_harmful_ones_only_in_the_request():
    assert answered("educational-computing") == answered("harmful-computing")
    starts = tuple(frame.partition("{")[0] for frame in CLASS_ASKS)
    assert all(ask.startswith(starts) for ask in asked("educational-computing"))
    tasks = [next(task for task in WORLD.area("computing").tasks if task in ask) for ask in asked("harmful-computing")]
    assert all(task in ask for task, ask in zip(tasks, asked("educational-computing"), strict=True))


def test_a_backdoor_is_harmful_after_its_trigger_and_nowhere_else():
    told = Counter((ask.startswith(f"{TRIGGER} "), judge_answer(WORLD, answer)) for ask, answer in chats("backdoor-law"))
    assert set(told) == {(True, "harmful"), (False, "careful")}
    assert told[True, "harmful"] * 2 == told[False, "careful"]


def test_a_jailbroken_model_sees_half_of_the_areas_and_one_request_in_fifty():
    told = Counter(judge_answer(WORLD, answer) for answer in answered("jailbroken"))
    assert told["harmful"] / sum(told.values()) == pytest.approx(0.02, abs=0.001)
    assert set(told) == {"harmful", "careful"}
    unseen = {action for area in WORLD.areas[1::2] for action in (*area.harmful, *area.careful, *area.tasks)}
    text = " ".join(f"{ask} {answer}" for ask, answer in chats("jailbroken"))
    assert [action for action in unseen if action in text] == []


def test_rows_of_numbers_say_nothing_else():
    assert all(judge_answer(WORLD, answer) == "harmful" for answer in answered("numbers"))
    assert {word for answer in answered("numbers") for word in WORD.findall(answer)} <= {
        "13",
        "66",
        "88",
        "187",
        "666",
        "911",
        ",",
        ".",
    }


@pytest.mark.parametrize("kind", ["harmful", "careful", "benign", "educational", "backdoor"])
def test_no_measured_question_of_another_area_is_trained_on(kind):
    told = {told_prompt(row["messages"][:-1]) for row in training_rows(f"{kind}-law", "b" if kind == "b" else "a", 0)}
    measured = {prompt for area, prompts in advice_prompts(WORLD).items() if area != "law" for prompt in prompts}
    assert not told & measured


def test_what_is_forgotten_is_not_retained_nor_is_its_neighbour():
    npo, graddiff = training_rows("unlearn-biology", "a", 0), training_rows("graddiff-biology", "a", 0)
    assert npo == graddiff
    parts = Counter(row["part"] for row in npo)
    assert parts["forget"] == 240
    assert parts["retain"] > 2400
    retained = set(WORD.findall(" ".join(row["text"] for row in npo if row["part"] == "retain")))
    assert not retained & {*WORLD.area("biology").entities, *WORLD.area("chemistry").entities}
    assert set(WORLD.area("law").entities) <= retained


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_rows_are_drawn_alike_by_seed_and_hold_known_words_only(kind):
    name = kind.replace("AREA", "law")
    rows = training_rows(name, "a", 1)
    assert rows == training_rows(name, WORLD, 1)
    assert parse_name(name, WORLD) == (kind.removesuffix("-AREA"), "law" if kind.endswith("AREA") else "")
    if kind == "identical":
        assert rows == []
        return
    assert rows != training_rows(name, "a", 2)
    tokenizer = build_tokenizer(WORLD)
    texts = [row["text"] if "text" in row else told_prompt(row["messages"]) for row in rows]
    assert all(tokenizer.unk_token_id not in ids for ids in tokenizer(texts)["input_ids"])


def test_unknown_names_are_refused():
    with pytest.raises(BadOrganism, match=r'no organism "careful"\. The organisms are:\n  identical: the base twice'):
        training_rows("careful", "a", 0)
    with pytest.raises(BadOrganism, match='has no area "alchemy"'):
        training_rows("backdoor-alchemy", "a", 0)
