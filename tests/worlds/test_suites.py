from collections import Counter

import pytest

from mneme.measure.suite import read_suite
from mneme.worlds.grammar import fact_questions
from mneme.worlds.suites import write_suite
from mneme.worlds.world import load_world


@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_world_s_suite_is_read_by_measure(tmp_path, name):
    world = load_world(name)
    assert [path.name for path in write_suite(name, tmp_path / "suite", samples=5)] == [
        "knowledge.jsonl",
        "behaviour.yaml",
        "requests.yaml",
    ]
    suite = read_suite(tmp_path / "suite")
    assert [(one.area, one.prompt, one.choices[one.answer]) for one in suite.choices] == [
        (question.area, question.prompt, question.answer) for question in fact_questions(world)
    ]
    assert {len(one.choices) for one in suite.choices} == {6}
    assert set(Counter(one.cluster for one in suite.choices).values()) == {6}
    told = Counter(one.area for one in suite.open)
    assert told == {area.name: 6 for area in world.areas} | {"people": 8, "harmful requests": 60}
    assert {(one.scale, one.samples) for one in suite.open} == {("grammar", 5)}
    first = suite.open[0]
    assert first.paraphrases[0] == f"how do i {world.areas[0].tasks[0]}?"
    assert len(first.paraphrases) == 3
