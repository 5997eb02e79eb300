"""`mneme compare`: several finished audits, read and put side by side; no model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mneme.audit.evidence import AuditEvidence
from mneme.audit.stored import evidence_from
from mneme.compare.differing import answer_difference, independent_difference, same_items, word_difference
from mneme.compare.options import CompareOptions
from mneme.errors import BadRun
from mneme.options import counted, stored, taking
from mneme.predict.verdicts import FALSE_DISCOVERIES, MARGIN, Measure
from mneme.report.reading import read_report
from mneme.report.wording import affected, listed
from mneme.results import Effect, Estimate, Report
from mneme.results.compare import AreaRow, Cell, ComparedRun, Lineage, RunDifference
from mneme.runs import RunFolder
from mneme.runs.ledger import read_small
from mneme.stats import benjamini_hochberg
from mneme.version import __version__

OUTPUTS = ("compare.json", "compare.html")
_MOST = 64
"""Runs at once: a table of more columns nobody reads, and pairs grow with the square."""


@dataclass(frozen=True)
class Audited:
    """One run as it was read."""

    name: str
    folder: Path
    report: Report
    evidence: AuditEvidence | None
    areas: tuple[str, ...]
    """Names of the areas in the order of the evidence."""

    def effect(self, area: str) -> Effect | None:
        """The effect on an area; None where the run has none."""
        return next((one for one in self.report.effects if one.area == area), None)


def run_compare(options: CompareOptions) -> Lineage:
    """Put finished audits side by side: fine-tunes of one base, checkpoints of a run, or the steps of a chain.

    Differences of runs of one base are tested pairwise, by item where both kept their evidence of the same text. `out` gets
    compare.json.

    Errors: BadRun where a run is missing, fewer than two were named, or they have neither one base nor follow each other.
    """
    folders = [Path(one) for one in ([options.runs] if isinstance(options.runs, str | Path) else options.runs)]
    if not 2 <= len(folders) <= _MOST:
        raise BadRun(f"{len(folders)} runs were named. Give from 2 to {_MOST} finished audits.")
    lineage = lineage_of([_read(folder, name) for folder, name in zip(folders, _names(folders), strict=True)])
    command: dict[str, Any] = {"command": "compare", "version": __version__, "runs": [str(folder) for folder in folders]}
    command["reports"] = [run.model_dump() for run in lineage.runs]
    with RunFolder(Path(options.out), command, options=stored(options), outputs=OUTPUTS, overwrite=options.overwrite) as run:
        run.finish({"compare.json": lineage.to_json().encode()})
    return lineage


compare = taking(CompareOptions, run_compare)


def _names(folders: Sequence[Path]) -> list[str]:
    """As few of the last parts of each path as tell all of them apart; numbers where the paths are the same."""
    paths = [(folder if folder.suffix != ".json" else folder.parent).absolute().parts for folder in folders]
    for length in range(1, max(map(len, paths)) + 1):
        names = ["/".join(parts[-length:]) for parts in paths]
        if len(set(names)) == len(names):
            return names
    return [f"{parts[-1]} ({number})" for number, parts in enumerate(paths, 1)]


def paired_changes(first: Path, second: Path) -> dict[str, Estimate]:
    """Area -> change of the audit in the folder `second` minus that in `first`, item by item; nothing of areas of which the
    two did not read the same, or kept no evidence. Raises BadRun where there is no audit."""
    runs = [_read(folder, str(folder)) for folder in (first, second)]
    areas = [effect.area for effect in runs[1].report.effects]
    return {one.area: one.difference for one in _differences(runs, areas) if one.paired}


def _read(folder: Path, name: str) -> Audited:
    report = read_report(folder)
    place = folder if folder.is_dir() else folder.parent
    path = place / "evidence.npz"
    evidence = evidence_from(path.read_bytes(), str(path)) if path.is_file() else None
    known = [(one.area, one.kind) for one in report.effects if one.kind != "unlisted"] + [
        (a.area, a.kind) for a in report.absent
    ]
    return Audited(
        name=name, folder=place, report=report, evidence=evidence, areas=tuple(_in_order(place, [area for area, _ in known]))
    )


def _in_order(folder: Path, known: list[str]) -> list[str]:
    """The areas in the order in which the evidence has them, which run.json says; else as the report has them."""
    match read_small(folder / "run.json"):
        case {"areas": list(areas)} if all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in areas):
            return [one["name"] for one in areas]
        case _:
            return known


def lineage_of(runs: Sequence[Audited]) -> Lineage:
    """The pure part. Raises BadRun where the runs do not belong together."""
    relation = _relation(runs)
    names = dict.fromkeys(effect.area for run in runs for effect in run.report.effects if effect.kind != "unlisted")
    differences = _differences(runs, list(names)) if relation == "one base" else []
    rows = [_row(area, runs, differences, relation) for area in names]
    told = [_compared(run, rows, number) for number, run in enumerate(runs)]
    best, why = _best(told, rows, differences)
    return Lineage(
        relation=relation,
        runs=told,
        areas=rows,
        differences=differences,
        best=best,
        best_why=why,
        notes=_notes(runs, differences),
    )


def _relation(runs: Sequence[Audited]) -> Literal["one base", "steps"]:
    bases = {run.report.pair.base for run in runs}
    shapes = {(run.report.pair.architecture, run.report.pair.layers, run.report.pair.width) for run in runs}
    if len(shapes) > 1:
        raise BadRun("The runs are of models of other shapes, so their areas cannot be compared. Give audits of one base.")
    if len(bases) == 1:
        return "one base"
    follows = all(two.report.pair.base == one.report.pair.tuned for one, two in pairwise(runs))
    if not follows:
        raise BadRun(
            f"The runs have neither one base nor does each begin where the one before it ended ({listed(sorted(bases), 4)}). "
            "Audit every fine-tune against the same base, or every step against the step before."
        )
    return "steps"


def _differences(runs: Sequence[Audited], areas: Sequence[str]) -> list[RunDifference]:
    found: list[tuple[str, Audited, Audited, Measure, bool]] = []
    for one, two in combinations(runs, 2):
        paired = one.evidence is not None and two.evidence is not None and one.areas == two.areas
        paired = paired and one.report.corpus.sha256 == two.report.corpus.sha256
        words = paired and one.evidence is not None and two.evidence is not None and same_items(one.evidence, two.evidence)
        for area in areas:
            a, b = one.effect(area), two.effect(area)
            if a is None or b is None or a.source != b.source:
                continue
            measure = _paired(one, two, area, a.source, words) if paired else None
            by_item = measure is not None
            measure = measure or independent_difference(a.magnitude, b.magnitude)
            found.append((area, one, two, measure, by_item))
    if not found:
        return []
    q_values = benjamini_hochberg(np.array([measure.p_value for *_, measure, _ in found])).tolist()
    return [
        RunDifference(
            area=area,
            first=one.name,
            second=two.name,
            difference=measure.estimate,
            p_value=measure.p_value,
            q_value=q_value,
            paired=by_item,
        )
        for (area, one, two, measure, by_item), q_value in zip(found, q_values, strict=True)
    ]


def _paired(one: Audited, two: Audited, area: str, source: str, words: bool) -> Measure | None:
    if area not in one.areas or one.evidence is None or two.evidence is None:
        return None
    index = one.areas.index(area)
    if source == "words" and words:
        return word_difference(one.evidence, two.evidence, index)
    if source in ("answers", "continuations"):
        return answer_difference(one.evidence, two.evidence, index, continued=source == "continuations")
    return None


def _row(area: str, runs: Sequence[Audited], differences: Sequence[RunDifference], relation: str) -> AreaRow:
    effects = [run.effect(area) for run in runs]
    first = next(effect for effect in effects if effect is not None)
    cells = [
        Cell(magnitude=None if one is None else one.magnitude, finding=None if one is None else one.finding) for one in effects
    ]
    return AreaRow(
        area=area,
        kind=first.kind,
        intended=any(one is not None and one.intended for one in effects),
        cells=cells,
        did_it=_did_it(area, runs, effects, differences, relation),
    )


def _did_it(
    area: str,
    runs: Sequence[Audited],
    effects: Sequence[Effect | None],
    differences: Sequence[RunDifference],
    relation: str,
) -> str:
    """The step with the largest change of those that are material and told from none. Of one base the first run is a step from
    the base, and every other from the run before it."""
    steps: list[tuple[float, str]] = []
    for number, (run, effect) in enumerate(zip(runs, effects, strict=True)):
        if effect is None:
            continue
        if relation == "steps" or number == 0:
            steps += [(abs(effect.magnitude.value), run.name)] if affected(effect) else []
            continue
        before = runs[number - 1].name
        step = next((one for one in differences if (one.area, one.first, one.second) == (area, before, run.name)), None)
        if step is not None and step.q_value <= FALSE_DISCOVERIES and abs(step.difference.value) >= MARGIN:
            steps.append((abs(step.difference.value), run.name))
    return max(steps)[1] if steps else ""


def _compared(run: Audited, rows: Sequence[AreaRow], number: int) -> ComparedRun:
    shared = [row for row in rows if all(cell.magnitude is not None for cell in row.cells)]
    sizes = {row.area: abs(100 * cell.value) for row in shared if (cell := row.cells[number].magnitude) is not None}
    purpose = [sizes[row.area] for row in shared if row.intended]
    beside = [sizes[row.area] for row in shared if not row.intended]
    return ComparedRun(
        name=run.name,
        folder=str(run.folder),
        base=run.report.pair.base,
        tuned=run.report.pair.tuned,
        verdict=run.report.verdict,
        purpose=float(np.mean(purpose)) if purpose else None,
        side_effects=float(np.mean(beside)) if beside else 0.0,
        affected=[effect.area for effect in run.report.effects if affected(effect) and not effect.intended],
    )


def _best(runs: Sequence[ComparedRun], rows: Sequence[AreaRow], differences: Sequence[RunDifference]) -> tuple[str, str]:
    """(name, why)."""
    purposes = [row.area for row in rows if row.intended]
    if all(run.purpose is None for run in runs):
        least = min(runs, key=lambda run: (len(run.affected), run.side_effects))
        return least.name, "It has the least side effects; no run names a purpose (--intended), so the task was not weighed."
    leader = max(runs, key=lambda run: run.purpose or 0.0)
    as_good = [run for run in runs if run is leader or not _worse(run, leader, purposes, differences)]
    best = min(as_good, key=lambda run: (len(run.affected), run.side_effects))
    if best is leader:
        return best.name, "It does most of its purpose, and of the runs that are as good none has fewer side effects."
    return best.name, f"It is not shown to do less of its purpose than {leader.name}, and has fewer side effects."


def _worse(run: ComparedRun, leader: ComparedRun, purposes: Sequence[str], differences: Sequence[RunDifference]) -> bool:
    """Shown to do less of the purpose than the leader; where the two were not compared, by the plain figure."""
    both = [one for one in differences if {one.first, one.second} == {run.name, leader.name} and one.area in purposes]
    if not both:
        return (run.purpose or 0.0) < (leader.purpose or 0.0)
    return any(one.q_value <= FALSE_DISCOVERIES and abs(one.difference.value) >= MARGIN for one in both)


def _notes(runs: Sequence[Audited], differences: Sequence[RunDifference]) -> list[str]:
    notes = []
    if len({run.report.corpus.sha256 for run in runs}) > 1:
        notes.append("The runs read different text, so a part of a difference may be of the text.")
    alone = sum(not one.paired for one in differences)
    if alone:
        of, verb = counted(len(differences), "difference"), "is" if alone == 1 else "are"
        notes.append(f"{alone} of {of} {verb} of two intervals, as if the runs were independent: longer than by item.")
    return notes
