"""Policies: what is read, and one sentence for every mistake."""

import datetime
from pathlib import Path

import pytest

from mneme.errors import BadPolicy, MnemeError
from mneme.gate.policy import Policy, Rule, Waiver, read_policy
from mneme.gate.run import gate
from tests.report.sample import sample_report

WHOLE = """
version: 1
not_worse_than: 3
baseline: approved
rules:
  - area: chemistry
    not_worse_than: 2
  - kind: behaviour
    size: 10
    verdict: [unaffected, not enough evidence]
  - everything: true
    probability: 0.5
    power: 10
waivers:
  - area: history
    limit: size
    until: 2027-03-31
    reason: accepted in review 12
"""


def write(folder: Path, text: str | bytes) -> Path:
    """A policy file."""
    path = folder / "policy.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_policy_is_read_whole(tmp_path: Path) -> None:
    policy, digest = read_policy(write(tmp_path, WHOLE))
    assert policy == Policy(
        not_worse_than=3.0,
        baseline="approved",
        rules=(
            Rule(area="chemistry", not_worse_than=2.0),
            Rule(kind="behaviour", size=10.0, verdict=("unaffected", "not enough evidence")),
            Rule(everything=True, probability=0.5, power=10.0),
        ),
        waivers=(Waiver(area="history", limit="size", until=datetime.date(2027, 3, 31), reason="accepted in review 12"),),
    )
    assert len(digest) == 64


RULE = "rules:\n  - "
WAIVER = "waivers:\n  - area: law\n    "
MISTAKES = {
    "no file": (None, "No policy at .*policy.yaml. Expected a YAML file"),
    "no YAML": ("rules: [", "is not readable YAML: .* Mend it"),
    "not UTF-8": (b"\xff\xfe\x00", "is not readable YAML"),
    "a list": ("- area: law", "holds a list, expected keys and values"),
    "empty": ("", "holds nothing, expected keys and values"),
    "a key twice": ("not_worse_than: 5\nnot_worse_than: 9", "the key 'not_worse_than' stands there twice"),
    "an unknown key": ("rule: []", "rule: there is no such word. Expected one of version, not_worse_than, baseline"),
    "an unknown limit": (RULE + "area: law\n    P: 0.5", "rule 1 P: there is no such word. Expected one of area, kind"),
    "no target": (RULE + "size: 5", "rule 1: it is about nothing; expected one of area, kind, everything"),
    "two targets": (RULE + "area: law\n    kind: behaviour\n    size: 5", "rule 1: it is about area and kind"),
    "no limit": (RULE + "area: law", "rule 1: it has no limit; expected one of not_worse_than, size"),
    "a fraction for points": ("not_worse_than: 0.05", "expected points from 0.1 to 100 .* found 0.05"),
    "words for points": (RULE + "area: law\n    size: much", "rule 1 size: expected a number of points such as 5"),
    "a percentage for P": (RULE + "area: law\n    probability: 50", "expected a probability from 0 to 1, found 50"),
    "an unknown verdict": (
        RULE + "area: law\n    verdict: fine",
        "rule 1 verdict 1: input should be 'affected', 'unaffected'",
    ),
    "an unknown kind": (RULE + "kind: skill\n    size: 5", "rule 1 kind: input should be 'capability', 'behaviour'"),
    "set twice": (RULE + "area: law\n    size: 5\n  - area: LAW\n    size: 6", "size of area LAW is set twice"),
    "a waiver without an end": (WAIVER + "reason: later", "waiver 1 until is missing. A waiver needs area, until"),
    "a waiver without a reason": (WAIVER + "until: 2027-01-01", "waiver 1 reason is missing"),
    "no day": (
        WAIVER + "reason: later\n    until: spring",
        "waiver 1 until: expected a day such as 2027-03-31, found 'spring'",
    ),
    "another version": ("version: 2", "version: input should be 1"),
    "nothing asked": ("not_worse_than: null", "it asks nothing"),
    "a large file": ("#" + "x" * 1_000_001, "is larger than 1 MB, which no policy is"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_every_mistake_gets_one_sentence(tmp_path: Path, mistake: str) -> None:
    text, words = MISTAKES[mistake]
    path = tmp_path / "policy.yaml" if text is None else write(tmp_path, text)
    with pytest.raises(BadPolicy, match=words) as found:
        read_policy(path)
    assert "\n" not in str(found.value)
    assert str(found.value).endswith(".")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            RULE + "area: botany\n    size: 5",
            "A rule is about the area 'botany', which the run did not look at. It looked at bio",
        ),
        ("waivers:\n  - {area: botany, until: 2027-01-01, reason: x}", "A waiver is about the area 'botany'"),
        ("baseline: gone", "No report at .*gone"),
    ],
)
def test_mistakes_that_only_the_run_shows(tmp_path: Path, text: str, words: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "report.json").write_text(sample_report().to_json(), encoding="utf-8")
    with pytest.raises(MnemeError, match=words):
        gate(run, policy=write(tmp_path, text))
    assert sorted(path.name for path in run.iterdir()) == ["report.json"]
