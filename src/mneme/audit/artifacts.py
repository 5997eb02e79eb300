"""What a finished audit left in its folder, read back: the one place that knows how its stages are called."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from mneme.audit.dictionary import LayerCodes, layer_codes
from mneme.audit.inputs import chosen_kind
from mneme.audit.options import AuditOptions
from mneme.errors import BadRun
from mneme.models.secrets import HIDDEN
from mneme.options import restored
from mneme.report.reading import read_report
from mneme.runs import FinishedRun, read_finished


def dictionary_stage(kind: str, layer: int) -> str:
    """The stage that holds the dictionary of that kind at that layer, with its codes."""
    return f"dictionary-{kind}-{layer}"


def read_audit(run: Path) -> FinishedRun:
    """The finished audit in the folder `run` (or beside its report.json), made by this user and unchanged.

    Raises BadRun for anything else: what another user's run holds is not believed, and no path that it names is opened.
    """
    report = read_report(run)
    folder = run if run.is_dir() else run.parent
    found = read_finished(folder, "audit", "report.json")
    if found is None:
        raise BadRun(
            f"The audit in {folder} was not made by this user's mneme, or was changed since, so neither its stages nor the "
            f"paths that it names ({report.pair.base}, {report.pair.tuned}, {report.corpus.source}) are used. Run it "
            "again here: `mneme audit BASE TUNED --corpus FILE --intended AREA`."
        )
    return found


def audited_options(run: FinishedRun) -> AuditOptions:
    """What the audit was asked; offline where a key was left out of its endpoint's address. Raises BadRun where run.json does
    not hold it."""
    kept = run.command.get("options")
    if not isinstance(kept, dict):
        raise BadRun(f"{run.folder / 'run.json'} does not hold the audit's options: run the audit again with this mneme.")
    options = restored(AuditOptions, kept)
    return replace(options, describe="offline") if HIDDEN in options.describe else options


def areas_read(run: FinishedRun) -> list[dict[str, Any]]:
    """The areas as the audit read them, whatever the file says now."""
    return list(run.command["areas"])


def stored_codes(run: FinishedRun, dictionary: str, layers: Iterable[int]) -> list[LayerCodes]:
    """The dictionaries of `layers` with their codes, layers ascending; none where the audit trained none.

    Raises BadRun where a stage is gone or not as it was written.
    """
    kind = chosen_kind(dictionary)
    if kind is None:
        return []
    return [layer_codes(layer, kind, run.arrays(dictionary_stage(kind, layer))) for layer in sorted(set(layers))]
