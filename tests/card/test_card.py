"""Cards: read by the hub's own library, put in twice without a trace of the first, and inert whatever names are in them."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from huggingface_hub import ModelCard

from mneme.card.badge import badge, badge_words
from mneme.card.run import card
from mneme.card.section import BEGIN, END, card_metadata, card_section
from mneme.errors import BadOption
from mneme.results import Report
from tests.report.sample import HOSTILE, effect, hostile_report, sample_report


def write(folder: Path, report: Report) -> Path:
    """A run folder with this report."""
    folder.mkdir()
    (folder / "report.json").write_text(report.to_json(), encoding="utf-8")
    return folder


def test_the_hub_reads_the_card(tmp_path: Path) -> None:
    run = write(tmp_path / "run", sample_report())
    card(run)
    found = ModelCard.load(run / "card.md")
    assert found.data.tags == ["mneme-audited"]
    results = {one.dataset_name: one.metric_value for one in found.data.eval_results}
    assert results["mneme audit: biology"] == -97.0
    assert results["mneme audit: chemistry"] == -46.0
    assert "chemistry got worse" in found.text


def test_a_hub_name_is_the_base_and_a_folder_is_not() -> None:
    report = sample_report()
    named = report.model_copy(update={"pair": report.pair.model_copy(update={"base": "org/base"})})
    local = report.model_copy(update={"pair": report.pair.model_copy(update={"base": "/home/ann/models/base"})})
    assert card_metadata(named)["base_model"] == "org/base"
    assert "base_model" not in card_metadata(local)
    assert "/home/ann" not in card_section(local)


def test_a_card_is_mended_and_not_doubled(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "---\nlicense: apache-2.0\ntags: [text]\nmodel-index:\n- name: m\n  results:\n  - task: {type: x}\n"
        "    dataset: {name: d, type: d}\n    metrics: [{type: acc, value: 1}]\n---\n\n# Mine\n\nBefore.\n",
        encoding="utf-8",
    )
    quiet = sample_report(effects=[effect("law", 0.01, 0.0, finding="unaffected")], verdict="no material change")
    card(write(tmp_path / "one", sample_report()), into=readme)
    once = readme.read_text("utf-8")
    card(write(tmp_path / "two", quiet), into=readme)
    twice = readme.read_text("utf-8")
    for text in (once, twice):
        assert (text.count(BEGIN), text.count(END)) == (1, 1)
        assert "# Mine\n\nBefore.\n" in text
    found = ModelCard.load(readme)
    assert (found.data.license, found.data.tags) == ("apache-2.0", ["text", "mneme-audited"])
    assert [one.dataset_name for one in found.data.eval_results] == ["d"]
    assert "chemistry" in once
    assert "chemistry" not in twice
    card(tmp_path / "two", into=readme)
    assert readme.read_text("utf-8") == twice


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe", "is not UTF-8"),
        (b"---\nlicense: x\n", "a head that does not end"),
        (b"---\na: [\n---\n", "not YAML"),
        (b"---\n- a\n---\n", "no mapping"),
    ],
)
def test_what_is_no_card_is_left_as_it_is(tmp_path: Path, content: bytes, words: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_bytes(content)
    run = write(tmp_path / "run", sample_report())
    with pytest.raises(BadOption, match=words):
        card(run, into=readme)
    assert readme.read_bytes() == content
    assert not (run / "card.md").exists()


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    section = card_section(hostile_report()).replace(BEGIN, "").replace(END, "")
    assert not any(sign in section for sign in ("<", "](", "\x1b", "\x00", "\u2028"))
    run = write(tmp_path / "run", hostile_report())
    card(run)
    head = (run / "card.md").read_text("utf-8").partition("\n---\n")[0]
    assert "\x00" not in head
    assert ModelCard.load(run / "card.md").data.tags == ["mneme-audited"]
    assert len(HOSTILE) > 1


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (sample_report(), "2 side effects"),
        (sample_report(effects=[effect("law", 0.1, 0.0)], verdict="inconclusive"), "inconclusive"),
        (sample_report(effects=[effect("law", 0.1, 0.0)], verdict="no detectable change"), "no difference"),
        (sample_report(effects=[effect("law", 0.9, -0.5, intended=True)]), "no side effect found"),
    ],
)
def test_a_badge_says_what_was_found(report: Report, words: str) -> None:
    assert badge_words(report) == words
    root = ElementTree.fromstring(badge(report))
    assert root.attrib["aria-label"] == f"mneme audit: {words}"
    assert "script" not in {element.tag for element in root.iter()}
