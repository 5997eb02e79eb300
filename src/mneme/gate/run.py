"""`mneme gate`: a finished run held against a policy, and the files that a pipeline reads of it."""

import datetime
import hashlib
from collections.abc import Mapping
from pathlib import Path

from mneme.compare.run import paired_changes
from mneme.errors import BadPolicy, BadRun
from mneme.gate.areas import against, gated_run, in_points
from mneme.gate.checks import checked, waived, whole_of
from mneme.gate.options import GateOptions
from mneme.gate.outputs import junit_xml, markdown, sarif
from mneme.gate.policy import Policy, read_policy
from mneme.options import taking
from mneme.report.finished import read_run
from mneme.report.reading import JOBS
from mneme.results import Estimate, Record, Report
from mneme.results.gate import GateResult
from mneme.runs import add_files


def run_gate(options: GateOptions) -> GateResult:
    """Hold the finished run `run` against `policy`, and write gate.json, gate.md and junit.xml.

    `baseline`: an approved run of the same command and base; *not worse* is then about the change against it. `out`: where the
    files go; None: beside the run. `sarif`: gate.sarif too. `today`: the day on which waivers are looked at.

    The `outcome` is pass, fail, or not enough evidence. Errors: BadPolicy for every mistake of the policy, BadRun where there
    is no run; nothing is written then.
    """
    run = Path(options.run)
    found = read_run(run)
    file = result_file(run)
    result = held_against(found, file.read_bytes(), options)
    write_gate(result, Path(options.out) if options.out is not None else file.parent, with_sarif=options.sarif)
    return result


gate = taking(GateOptions, run_gate)


def held_against(found: Record, content: bytes, options: GateOptions) -> GateResult:
    """What the policy of `options` says of a result whose file holds `content`; nothing is written. Raises BadPolicy."""
    policy, digest = read_policy(Path(options.policy))
    named = Path(options.policy).parent / policy.baseline if policy.baseline is not None else None
    baseline = Path(options.baseline) if options.baseline is not None else named
    approved = None if baseline is None else read_run(baseline)
    audits = isinstance(found, Report) and isinstance(approved, Report) and (Path(options.run) / "report.json").is_file()
    by_item = paired_changes(baseline, Path(options.run)) if audits and baseline is not None else {}
    result = gate_of(found, policy, approved=approved, by_item=by_item, day=options.day())
    return result.model_copy(
        update={
            "run": str(options.run),
            "result_sha256": hashlib.sha256(content).hexdigest(),
            "policy": str(options.policy),
            "policy_sha256": digest,
            "baseline": "" if baseline is None else str(baseline),
        }
    )


def gate_of(
    found: Record,
    policy: Policy,
    *,
    approved: Record | None = None,
    by_item: Mapping[str, Estimate] | None = None,
    day: datetime.date | None = None,
) -> GateResult:
    """The pure part: a result held against a policy and an approved result. Raises BadPolicy where they do not fit.

    `by_item`: area -> its change against the approved audit where the items of both are known (`compare.paired_changes`);
    other areas are compared by their two intervals.
    """
    day = day or datetime.datetime.now(datetime.UTC).date()
    run = gated_run(found)
    beside, notes = None, []
    if approved is not None:
        notes = _comparable(found, approved)
        beside = against(run.areas, gated_run(approved).areas)
        paired = {area: in_points(change) for area, change in (by_item or {}).items() if area in beside}
        if len(paired) < len(beside):
            notes.append(
                f"{len(paired)} of {len(beside)} changes are compared with the approved run item by item, the others by their "
                "two intervals as if the runs were independent: never too short, mostly too long."
            )
        beside |= paired
    checks, more = waived(checked(policy, run, beside), policy.waivers, day)
    return GateResult(
        run="",
        result_sha256="",
        policy="",
        policy_sha256="",
        date=day.isoformat(),
        outcome=whole_of(checks),
        checks=checks,
        notes=[*notes, *more],
    )


def _comparable(found: Record, approved: Record) -> list[str]:
    """What a reader should know of the comparison. Raises BadPolicy where there is none."""
    if type(found) is not type(approved):
        raise BadPolicy("The baseline is a run of another command than the run. Name an approved run of the same command.")
    if not (isinstance(found, Report) and isinstance(approved, Report)):
        return []
    one, two = found.pair, approved.pair
    if (one.architecture, one.parameters, one.layers, one.width) != (two.architecture, two.parameters, two.layers, two.width):
        raise BadPolicy(
            f"The baseline is an audit of another base ({two.base}) than the run ({one.base}). Name an approved audit of the "
            "same base."
        )
    if found.corpus.sha256 != approved.corpus.sha256:
        return ["The approved run read other text than this one, so a part of the difference may be of the text."]
    return []


def result_file(run: Path) -> Path:
    """The result file in a run folder that `read_run` reads, or the file that was named. Raises BadRun where there is none."""
    if not run.is_dir():
        return run
    found = next((run / name for name in JOBS if (run / name).is_file()), None)
    if found is None:
        raise BadRun(f"No result of a run in {run}. Name the folder that a command of mneme wrote with --out.")
    return found


def write_gate(result: GateResult, out: Path, *, with_sarif: bool = False) -> None:
    """gate.json, gate.md, junit.xml and, where asked for, gate.sarif in the folder `out`. Raises BadRun where somebody else's
    file is there."""
    files = {"gate.json": result.to_json(), "gate.md": markdown(result), "junit.xml": junit_xml(result)}
    files |= {"gate.sarif": sarif(result)} if with_sarif else {}
    add_files(out, {name: text.encode("utf-8", "backslashreplace") for name, text in files.items()})
