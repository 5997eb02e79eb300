"""The words of a screening, shared by its page and the terminal."""

from mneme.options import counted
from mneme.report import wording
from mneme.results.screen import RowScreening

ARMS = {"all": "all rows", "kept": "the kept rows", "random": "as many at random"}


def noun(screening: RowScreening) -> str:
    """'row' or 'pair'."""
    return screening.kind.removesuffix("s")


def screening_headline(screening: RowScreening) -> str:
    """What dropping the most suspect rows buys, beside dropping as many at random."""
    dropped = screening.rows - screening.kept
    said = f"{dropped:,} of {counted(screening.rows, noun(screening))} set aside"
    value = screening.value
    if value is None:
        return f"{said}; what that buys was not measured."
    if value.avoided is None:
        return f"{said}; training on the whole data does no harm that this trial could show."
    beside = "" if value.avoided_at_random is None else f", as many at random {wording.share(value.avoided_at_random)}"
    return f"{said}: that avoids {wording.share(value.avoided)} of the harm{beside}."


def screening_outcome(screening: RowScreening) -> str:
    """The class of the verdict: contained where dropping these is shown to avoid more than dropping others, else
    inconclusive."""
    value = screening.value
    if value is None or value.avoided is None or value.avoided_at_random is None:
        return "inconclusive"
    return "contained" if value.avoided.low > value.avoided_at_random.value else "inconclusive"
