"""What `mneme verify` is asked."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from mneme.options import Option, settle


@dataclass(frozen=True)
class VerifyOptions:
    """What is verified, and against what.

    ```python
    mneme.verify("runs/audit").verified
    mneme.verify("runs/audit", base="models/base", tuned="models/tuned", corpus="text.jsonl", key="sender.pub.pem")
    ```
    """

    run: Annotated[str | Path, Option("The folder of a finished audit.")]
    _: KW_ONLY
    base: Annotated[str | Path | None, Option("The model before, where it lies here.", metavar="DIR")] = None
    tuned: Annotated[str | Path | None, Option("The model after, where it lies here.", metavar="DIR")] = None
    corpus: Annotated[str | Path | None, Option("The text, where it lies here.", metavar="FILE")] = None
    key: Annotated[
        str | Path | None, Option("A public ed25519 key (PEM): the run has to be signed with its other half.", metavar="FILE")
    ] = None
    sign: Annotated[
        str | Path | None, Option("A private ed25519 key (PEM): sign the run where everything holds.", metavar="FILE")
    ] = None

    def __post_init__(self) -> None:
        """Raises BadOption for words that can name nothing."""
        settle(self)
