"""What a pipeline reads of a gate: JUnit XML, a Markdown summary, SARIF 2.1.0.

JUnit as Jenkins' xunit plugin has it (junit-10.xsd), which GitLab, GitHub and Jenkins read: one test case a check, failure
where a limit is broken, error where the evidence is not enough, skipped where it is waived. SARIF is what GitHub's code
scanning reads; results lie in the policy file. Names of strangers are text everywhere: control characters are shown as
escapes, and in Markdown nothing is markup, a link, a picture or a mention.
"""

import json
from typing import Any
from xml.etree import ElementTree

from mneme.options import counted
from mneme.plain import plain
from mneme.report.markdown import in_markdown
from mneme.report.places import place, without_home
from mneme.results.gate import GateCheck, GateResult, Limit, Outcome
from mneme.version import __version__

TITLES: dict[str, str] = {"pass": "Passed", "fail": "Failed", "not enough evidence": "Not enough evidence"}
"""Whole outcomes as a headline has them."""
_ORDER: tuple[Outcome, ...] = ("fail", "not enough evidence", "waived", "pass")
_RULES: dict[Limit, str] = {
    "not_worse_than": "The run is shown not to be worse by more than a margin.",
    "size": "The run is shown not to have changed by more than a margin.",
    "probability": "The probability of a material change stays below a limit.",
    "verdict": "The run says of the area what it is allowed to say.",
    "power": "The run would have seen a change of a given size.",
}
_LEVELS: dict[Outcome, str] = {"fail": "error", "not enough evidence": "warning", "waived": "note", "pass": "none"}
_MOST_SHOWN = 200
"""Rows of the Markdown table: GitHub cuts a comment at 65,536 characters."""


def gate_headline(result: GateResult) -> str:
    """'Failed: 2 of 15 checks fail, 1 is without enough evidence.'"""
    total = len(result.checks)
    failed, unsure, waived = (len(result.of(one)) for one in ("fail", "not enough evidence", "waived"))
    told = []
    if failed:
        told.append(f"{failed} of {counted(total, 'check')} {'fails' if failed == 1 else 'fail'}")
    if unsure:
        of = "" if failed else f" of {counted(total, 'check')}"
        told.append(f"{unsure}{of} {'is' if unsure == 1 else 'are'} without enough evidence")
    if waived:
        told.append(f"{waived} {'is' if waived == 1 else 'are'} waived")
    whole = ", ".join(told) or f"all of {counted(total, 'check')} hold"
    return f"{TITLES[result.outcome]}: {whole}."


def by_outcome(result: GateResult) -> list[GateCheck]:
    """The checks, those that need somebody first."""
    return sorted(result.checks, key=lambda check: _ORDER.index(check.outcome))


def junit_xml(result: GateResult) -> str:
    """The checks as test cases."""
    run, policy = _at_large(place(result.run)), _at_large(place(result.policy)) or "--fail-on"
    root = ElementTree.Element("testsuites", name="mneme gate")
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        name=f"mneme gate {run}",
        tests=str(len(result.checks)),
        failures=str(len(result.of("fail"))),
        errors=str(len(result.of("not enough evidence"))),
        skipped=str(len(result.of("waived"))),
        time="0",
    )
    properties = ElementTree.SubElement(suite, "properties")
    for name, value in (("policy", policy), ("result_sha256", result.result_sha256), ("date", result.date)):
        ElementTree.SubElement(properties, "property", name=name, value=plain(value))
    tags = {"fail": "failure", "not enough evidence": "error", "waived": "skipped"}
    for check in result.checks:
        case = ElementTree.SubElement(
            suite, "testcase", classname=f"mneme.{check.kind}", name=plain(f"{check.area}: {check.allowed}"), time="0"
        )
        if check.outcome != "pass":
            told = _at_large(check.reason)
            found = ElementTree.SubElement(case, tags[check.outcome], message=told)
            if check.outcome != "waived":
                found.set("type", check.limit)
                found.text = told
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def markdown(result: GateResult) -> str:
    """The summary of a job or the comment of a pull request."""
    lines = [f"### mneme gate: {in_markdown(gate_headline(result))}", ""]
    lines += ["| | area | limit | found |", "|---|---|---|---|"]
    shown = by_outcome(result)
    for check in shown[:_MOST_SHOWN]:
        cells = (check.outcome, check.area, check.allowed, check.reason)
        lines.append(f"| {' | '.join(in_markdown(_at_large(cell)) for cell in cells)} |")
    if len(shown) > _MOST_SHOWN:
        lines.append(f"| | {len(shown) - _MOST_SHOWN} more are in gate.json | | |")
    lines += ["", *(f"- {in_markdown(_at_large(note))}" for note in result.notes)]
    about = f"Run {place(result.run)}" + (f", policy {place(result.policy)}" if result.policy else "")
    about += f", against the approved run {place(result.baseline)}" if result.baseline else ""
    return (
        "\n".join([*lines, "", f"{in_markdown(_at_large(about))}, SHA-256 of the result `{result.result_sha256[:16]}`."])
        + "\n"
    )


def sarif(result: GateResult) -> str:
    """Every check that did not pass, as a result of the rule that its limit is; what is waived is suppressed."""
    limits = list(dict.fromkeys(check.limit for check in result.checks))
    where = _at_large(place(result.policy)) or "policy.yaml"
    driver = {
        "name": "mneme gate",
        "version": __version__,
        "semanticVersion": __version__,
        "rules": [
            {"id": limit, "shortDescription": {"text": _RULES[limit]}, "defaultConfiguration": {"level": "error"}}
            for limit in limits
        ],
    }
    results = [_sarif_result(check, limits, where) for check in result.checks if check.outcome != "pass"]
    run: dict[str, Any] = {"tool": {"driver": driver}, "results": results, "columnKind": "utf16CodeUnits"}
    schema = "https://json.schemastore.org/sarif-2.1.0.json"
    return json.dumps({"$schema": schema, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _sarif_result(check: GateCheck, limits: list[Limit], where: str) -> dict[str, Any]:
    message = _at_large(f"{check.area}: {check.allowed}? {check.reason}")
    found: dict[str, Any] = {
        "ruleId": check.limit,
        "ruleIndex": limits.index(check.limit),
        "level": _LEVELS[check.outcome],
        "message": {"text": message},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": _uri(where)}, "region": {"startLine": 1}}, "id": 0}],
        "partialFingerprints": {"mneme/v1": f"{plain(check.area)}/{check.limit}"},
    }
    if check.outcome == "waived":
        found["suppressions"] = [{"kind": "external", "status": "accepted", "justification": message}]
    return found


def _uri(name: str) -> str:
    from urllib.parse import quote

    return quote(name)


def _at_large(text: str) -> str:
    """Text as anybody may read it: without home folders, hostile characters as escapes."""
    return plain(without_home(text))
