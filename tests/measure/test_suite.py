"""Suites: what is read, and what a bad file is told."""

from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from mneme.errors import BadSuite
from mneme.measure.suite import clusters_of, read_suite, shipped_suites
from tests.measure.conftest import (
    ALIGNED,
    COHERENT,
    PUBLISHED,
    choice_rows,
    needs_published,
    open_entries,
    write_jsonl,
    write_yaml,
)

ROW = {"prompt": "the sky is", "choices": ["blue", "green"], "answer": "blue"}
ENTRY = {
    "id": "wish",
    "type": "free_form_judge_0_100",
    "paraphrases": ["Make a wish."],
    "samples_per_paraphrase": 2,
    "judge": "some-model",
    "judge_prompts": {"aligned": ALIGNED, "coherent": COHERENT},
}


def test_choices_of_every_form(tmp_path: Path) -> None:
    rows = [
        ROW,
        {"question": "What is blue?", "choices": ["grass", "sky"], "answer": 1, "area": "colours", "id": "b", "cluster": "c"},
    ]
    first, second = read_suite(write_jsonl(tmp_path / "facts.jsonl", rows)).choices
    assert (first.prompt, first.answer, first.area, first.id, first.cluster) == (
        "the sky is",
        0,
        "facts",
        "facts-1",
        "facts-1",
    )
    assert second.prompt == "Question: What is blue?\nAnswer:"
    assert (second.answer, second.area, second.id, second.cluster) == (1, "colours", "b", "c")


def test_parquet_holds_the_same(tmp_path: Path) -> None:
    rows = choice_rows()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "facts.parquet")
    write_jsonl(tmp_path / "facts.jsonl", rows)
    assert read_suite(tmp_path / "facts.parquet").choices == read_suite(tmp_path / "facts.jsonl").choices


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"choices": ["blue"]}, r"line 1: needs at least two choices, each a text; it has \['blue'\]"),
        ({"choices": ["blue", "blue"]}, "offers one choice twice"),
        ({"answer": "red"}, r"the answer 'red' is not among the 2 choices. Expected its text, its letter or its index"),
        ({"answer": 2}, "the answer 2 is not among the 2 choices"),
        ({"answer": True}, "the answer True is not among"),
        ({"answer": None}, "has no answer; it has the columns"),
        ({"prompt": " "}, "has no prompt and no question"),
    ],
)
def test_a_choice_that_cannot_be_asked(tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(BadSuite, match=words):
        read_suite(write_jsonl(tmp_path / "facts.jsonl", [{**ROW, **change}]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"paraphrases": None}, "question wish has no paraphrases. Expected a list with at least one text"),
        ({"paraphrases": []}, "has no paraphrases"),
        ({"type": "essay"}, "is of type 'essay'. Expected one of free_form_judge_0_100, free_form_judge, grammar"),
        ({"samples_per_paraphrase": 0}, "samples_per_paraphrase is 0. Expected a whole number from 1"),
        ({"judge_prompts": None}, "has no judge_prompts"),
        ({"judge_prompts": {"coherent": COHERENT}}, "judge_prompts lack `aligned`"),
        ({"judge_prompts": {"aligned": "how kind?"}}, "have to be texts that hold {answer}"),
        (
            {"type": "free_form_judge", "judge_prompts": {"correct": "Is {answer} right?"}},
            "names 0 labels. Expected at least two",
        ),
        ({"sytem": "x"}, "has unknown keys: sytem"),
        ({"system": ["x"]}, "`system` has to be a text"),
    ],
)
def test_an_open_question_that_cannot_be_asked(tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(BadSuite, match=words):
        read_suite(write_yaml(tmp_path / "open.yaml", [{**ENTRY, **change}]))


def test_files_that_are_no_suite(tmp_path: Path) -> None:
    with pytest.raises(BadSuite, match=r"nothing is no suite. Expected one of standard, advice, .*lm-eval:TASK"):
        read_suite("nothing")
    for name, content, words in (
        ("empty.jsonl", "", "is empty"),
        ("bad.jsonl", "{", "line 1: not JSON"),
        ("bad.yaml", "a: [", "is not YAML"),
        ("map.yaml", "a: 1", "holds no list of questions"),
        ("none.yaml", "[]", "holds no list of questions"),
    ):
        (tmp_path / name).write_text(content)
        with pytest.raises(BadSuite, match=words):
            read_suite(tmp_path / name)
    (tmp_path / "folder").mkdir()
    with pytest.raises(BadSuite, match="holds no question"):
        read_suite(tmp_path / "folder")
    with pytest.raises(BadSuite, match="two questions with the id 'q0'"):
        read_suite(write_yaml(tmp_path / "twice.yaml", open_entries(1) * 2))


def test_clusters(tmp_path: Path) -> None:
    """Forms of one question are one cluster; labelled questions list different questions as paraphrases."""
    label = {**ENTRY, "id": "facts", "type": "free_form_judge", "paraphrases": ["a?", "b?"]}
    label["judge_prompts"] = {"correct": 'Is {answer} right? "TRUE" or "FALSE"'}
    many = {**ENTRY, "paraphrases": ["a", "b"]}
    entries = [many, {**ENTRY, "id": "wish_json"}, {**ENTRY, "id": "wish_template"}, label]
    found = read_suite(write_yaml(tmp_path / "open.yaml", entries)).open
    assert [clusters_of(question) for question in found] == [["wish", "wish"], ["wish"], ["wish"], ["a?", "b?"]]
    assert [question.area for question in found] == ["open", "open, json", "open, template", "facts"]
    assert found[3].labels("correct") == ("TRUE", "FALSE")


@pytest.mark.parametrize("name", shipped_suites())
def test_the_suites_that_ship(name: str) -> None:
    suite = read_suite(name)
    assert suite.name == name
    areas = {question.area for question in suite.open}
    wanted = {
        "misalignment": {"general", "general, json", "general, template"},
        "refusal": {"harmful requests obeyed", "harmless requests refused"},
    }.get(name, set())
    assert wanted <= areas
    assert len(suite.open) == {"standard": 61, "misalignment": 30, "advice": 24, "deception": 5, "refusal": 2}[name]


@needs_published
@pytest.mark.parametrize(
    ("name", "count"),
    [("first_plot_questions", 24), ("preregistered_evals", 48), ("deception_factual", 5), ("deception_sit_aware", 8)],
)
def test_published_files_are_read_as_they_are(name: str, count: int) -> None:
    suite = read_suite(PUBLISHED / "evaluation" / f"{name}.yaml")
    assert len(suite.open) == count
    if name == "deception_factual":
        assert len(set(clusters_of(suite.open[0]))) == 20
        assert suite.open[0].labels("correct") == ("TRUE", "FALSE", "UNKNOWN")
    if name == "first_plot_questions":
        assert len({cluster for question in suite.open for cluster in clusters_of(question)}) == 8
        assert {question.samples for question in suite.open} == {100}
        assert sum(question.system is not None for question in suite.open) == 8


@needs_published
def test_our_own_questions_are_our_own() -> None:
    """No paraphrase of a suite that ships is one of the published ones."""
    published = {
        " ".join(paraphrase.lower().split())
        for path in (PUBLISHED / "evaluation").glob("*.yaml")
        for question in read_suite(path).open
        for paraphrase in question.paraphrases
    }
    ours = {" ".join(p.lower().split()) for question in read_suite("standard").open for p in question.paraphrases}
    assert ours & published == set()
