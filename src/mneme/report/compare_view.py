"""The words of several runs side by side, shared by their page and the terminal."""

from mneme.report import wording
from mneme.results.compare import AreaRow, Cell, Lineage, RunDifference

RATE = 0.05
"""False-discovery rate of what is said to differ."""


def cell_size(cell: Cell) -> str:
    """'−4.2 points'; a dash where the run has nothing to say."""
    return "–" if cell.magnitude is None else wording.magnitude(cell.magnitude)


def cell_bounds(cell: Cell) -> str:
    """Its interval."""
    return "" if cell.magnitude is None else wording.interval(cell.magnitude)


def cell_direction(row: AreaRow, cell: Cell) -> str:
    """worse, better, changed (a behaviour), or nothing where the area is not affected."""
    if cell.finding != "affected" or cell.magnitude is None:
        return ""
    if row.kind == "behaviour":
        return "changed"
    return "worse" if cell.magnitude.value < 0 else "better"


def told_apart(found: Lineage) -> list[RunDifference]:
    """Differences beyond the false-discovery rate, largest first."""
    return sorted((one for one in found.differences if one.q_value <= RATE), key=lambda one: -abs(one.difference.value))


def compare_headline(found: Lineage) -> str:
    """The run to take, and which step did most."""
    steps = [row for row in found.areas if row.did_it and not row.intended]
    told = f"Take {found.best}" if found.relation == "one base" else f"{found.best} did least beside its purpose"
    if not steps:
        return f"{told}: no step is shown to have reached an area beyond the purpose."
    names = wording.listed([f"{row.area} by {row.did_it}" for row in steps])
    return f"{told}; reached beyond the purpose: {names}."


def compare_outcome(found: Lineage) -> str:
    """The class of the verdict."""
    return "side-effects" if any(run.affected for run in found.runs) else "contained"


def points(value: float | None) -> str:
    """A mean size."""
    return "–" if value is None else f"{value:.1f}"


def q_told(value: float) -> str:
    """A false-discovery rate."""
    return "<0.001" if value < 0.001 else f"{value:.3f}"
