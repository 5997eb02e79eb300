"""`mneme compare-logs`: two logs read, paired and judged; nothing is run again."""

import json
from collections.abc import Sequence
from pathlib import Path

from mneme.compare_logs.options import CompareLogsOptions
from mneme.compare_logs.pairing import Pairs, flips_of, judges_of, log_changes, pair_logs, sides
from mneme.compare_logs.reading import EXPECTED, Fields, read_log
from mneme.errors import BadRows
from mneme.options import stored, taking
from mneme.report.reading import read_report
from mneme.results import Estimate
from mneme.results.compare_logs import Flip, LogComparison
from mneme.runs import RunFolder, require_apart
from mneme.version import __version__

SHOWN = 12
"""Flips of a task in one direction that logs.json and the page hold: what a person reads; flips.jsonl has all."""
_LONGEST = 1200
"""Characters of a prompt or an answer in logs.json."""
OUTPUTS = ("logs.json", "logs.html", "flips.jsonl")


def run_compare_logs(options: CompareLogsOptions) -> LogComparison:
    """Pair two logs of lm-eval, of Inspect, or plain JSON lines, item by item, and say what changed.

    `cluster`: a field that dependent items share. `area`: a field that splits a task. `audit`: a finished audit whose areas
    stand beside tasks of their name. `out` gets logs.json and flips.jsonl.

    Errors: BadRows where a log cannot be read, or no item is in both; BadRun for the audit and for `out`.
    """
    require_apart(options.out, {"FIRST": options.first, "SECOND": options.second, "--audit": options.audit})
    fields = Fields(options.cluster, options.area)
    (first, one), (second, two) = (read_log(source, fields) for source in (options.first, options.second))
    pairs, alone = pair_logs(first, second)
    if not any(part.measures() for part in pairs):
        raise BadRows(
            f"No item with a score is in both {options.first} ({len(first)}) and {options.second} ({len(second)}). "
            f"Give two logs of the same tasks. {EXPECTED}"
        )
    areas = {} if options.audit is None else _forecast(Path(options.audit))
    changes = sides(log_changes(pairs, options.margin), areas)
    flips = flips_of(pairs)
    found = LogComparison(
        first=str(options.first),
        second=str(options.second),
        files_sha256=[*one, *two],
        changes=changes,
        flips=_shown(flips),
        judges=judges_of(pairs),
        unpaired=alone,
        audit="" if options.audit is None else str(options.audit),
        claims=sum(change.p_holm is not None for change in changes),
        notes=_notes(pairs, alone),
    )
    command = {"command": "compare-logs", "version": __version__, "files": found.files_sha256, "margin": options.margin}
    command |= {"cluster": options.cluster, "area": options.area, "audit": found.audit}
    with RunFolder(Path(options.out), command, options=stored(options), outputs=OUTPUTS, overwrite=options.overwrite) as run:
        lines = "".join(f"{json.dumps(flip.model_dump(), ensure_ascii=False)}\n" for flip in flips)
        run.finish({"logs.json": found.to_json().encode(), "flips.jsonl": lines.encode("utf-8", "backslashreplace")})
    return found


compare_logs = taking(CompareLogsOptions, run_compare_logs)


def _forecast(run: Path) -> dict[str, tuple[Estimate, str]]:
    """Area -> (effect, what the audit said of it)."""
    return {effect.area: (effect.magnitude, effect.finding or "") for effect in read_report(run).effects}


def _shown(flips: Sequence[Flip]) -> list[Flip]:
    seen: dict[tuple[str, bool], int] = {}
    kept = []
    for flip in flips:
        key = (flip.task, flip.lost)
        seen[key] = seen.get(key, 0) + 1
        if seen[key] <= SHOWN:
            kept.append(
                flip.model_copy(
                    update={name: getattr(flip, name)[:_LONGEST] for name in ("prompt", "target", "before", "after")}
                )
            )
    return kept


def _notes(pairs: Sequence[Pairs], alone: dict[str, int]) -> list[str]:
    notes = []
    if alone:
        notes.append(f"{sum(alone.values())} items are in one log alone and were left out: {', '.join(alone)}.")
    changed = sum(
        bool(a.prompt) and bool(b.prompt) and a.prompt != b.prompt
        for one in pairs
        for a, b in zip(one.first, one.second, strict=True)
    )
    if changed:
        notes.append(
            f"{changed} items were asked with another prompt in the second log, so a difference may be of the prompt."
        )
    return notes
