"""What `mneme card` is asked."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from mneme.options import Option, settle


@dataclass(frozen=True)
class CardOptions:
    """Which audit goes on a card, and where.

    ```python
    mneme.card("runs/audit").section
    mneme.card("runs/audit", into="model/README.md")
    ```
    """

    run: Annotated[str | Path, Option("A finished audit: its folder, or report.json in it.")]
    _: KW_ONLY
    into: Annotated[
        str | Path | None,
        Option(
            "A model card (README.md): its section and its metadata are put in, in the place of those before.", metavar="FILE"
        ),
    ] = None
    out: Annotated[
        str | Path | None, Option("Where card.md and badge.svg go; without it, the folder of the run.", metavar="DIR")
    ] = None

    def __post_init__(self) -> None:
        """Raises BadOption for words that can name nothing."""
        settle(self)
