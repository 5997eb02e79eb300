"""Pages name files without the folders they lie in, and hold no character that drives a terminal or turns the direction."""

import re
import unicodedata
from pathlib import Path

import pytest

from mneme.report.audit import render_html
from mneme.report.measure import render_measurement
from mneme.report.places import place, without_home
from mneme.report.repair import render_repair
from tests.repair.test_command import report as sample_repair
from tests.report.measured import sample_measurement
from tests.report.sample import HOSTILE, sample_report

HOSTILE_CHARACTERS = "\x1b[31m\x00\x07\x08\r\x7f\x85\x9b\u202e\u2066\u2028\ufeff\U000e0041\ud800"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/home/ann/models/tuned", "tuned"),
        ("/home/ann/runs/law/model", "law/model"),
        ("/home/ann/model", "model"),
        ("/home/ann", "…"),
        ("/home/ann/", "…"),
        ("/root", "…"),
        ("/root" + "/text.txt", "text.txt"),
        ("/Users/ann/My Models/a b", "a b"),
        ("~/models/tuned", "tuned"),
        ("~ann/models/tuned", "tuned"),
        ("~", "…"),
        ("../../ann/tuned", "tuned"),
        ("C:\\Users\\ann\\tuned", "tuned"),
        ("C:/Users/ann", "…"),
        ("\\\\server\\ann\\tuned", "tuned"),
        ("file:///home/ann/text.txt", "text.txt"),
        ("local:/home/ann/judge", "local:judge"),
        ("verdict:/home/ann/judge", "verdict:judge"),
        ("/", "…"),
        ("meta-llama/Llama-3.1-8B", "meta-llama/Llama-3.1-8B"),
        ("runs/unlearn/model", "runs/unlearn/model"),
        ("http://127.0.0.1:8000/v1?model=m", "http://127.0.0.1:8000/v1?model=m"),
        ("verdict:http://h/v1", "verdict:http://h/v1"),
        ("grammar", "grammar"),
        ("", ""),
    ],
)
def test_a_path_becomes_a_name(path: str, name: str) -> None:
    assert place(path) == name


def test_the_own_home_is_left_out_of_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path("/srv/people/ann"))
    said = "No text in /srv/people/ann/data/a.txt, (/srv/people/ann) or '/srv/people/ann/b'; /srv/people/anna/c is another."
    assert without_home(said) == "No text in a.txt, (…) or 'b'; /srv/people/anna/c is another."
    monkeypatch.setattr(Path, "home", lambda: Path("/"))
    assert without_home("/srv/x") == "/srv/x"


def pages_of(folder: str, name: str = "x") -> dict[str, str]:
    """The three pages of results whose files lie in `folder` and whose free strings are `name`."""
    audit = sample_report()
    pair = audit.pair.model_copy(update={"base": f"{folder}/base", "tuned": f"{folder}/{name}"})
    corpus = audit.corpus.model_copy(update={"source": f"{folder}/text.txt"})
    audit = audit.model_copy(update={"pair": pair, "corpus": corpus, "reason": f"Read from {folder}/text.txt: {name}."})
    measured = sample_measurement(f"area {name}", suite=f"{folder}/suite.yaml")
    models = [model.model_copy(update={"source": f"{folder}/m{i}"}) for i, model in enumerate(measured.models)]
    assert measured.judge is not None
    judge = measured.judge.model_copy(update={"name": f"local:{folder}/judge"})
    measured = measured.model_copy(update={"models": models, "judge": judge})
    repaired = sample_repair().model_copy(update={"base": f"{folder}/base", "tuned": f"{folder}/{name}"})
    return {"audit": render_html(audit), "measure": render_measurement(measured), "repair": render_repair(repaired)}


@pytest.mark.parametrize("kind", ["audit", "measure", "repair"])
@pytest.mark.parametrize("home", ["/home/ann", "/Users/ann", "/srv/people/ann", "C:\\Users\\ann", "~ann"])
def test_no_page_holds_a_home_folder(kind: str, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: Path(home))
    page = pages_of(f"{home}/work")[kind]
    assert "ann" not in re.findall(r"\w+", page)
    assert "work" not in re.findall(r"[\w/]*/work\b", page)
    assert {"audit": "text.txt", "measure": "local:judge", "repair": "base"}[kind] in page


@pytest.mark.parametrize("kind", ["audit", "measure", "repair"])
def test_no_page_holds_a_hostile_character(kind: str) -> None:
    page = pages_of("/srv", f"n{HOSTILE_CHARACTERS}{HOSTILE[-1]}")[kind]
    found = {c for c in page if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")}
    assert found <= {"\n"}
    assert all(escape in page for escape in ("\\x1b[31m", "\\x9b", "\\u202e", "\\ud800", "\\U000e0041"))
