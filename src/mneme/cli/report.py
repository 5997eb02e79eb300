"""`mneme report`: makes the page of a finished run again, without torch."""

from pathlib import Path
from typing import Annotated

import typer

from mneme.cli.audit import show_audit
from mneme.cli.saying import Json


def report(
    run: Annotated[Path, typer.Argument(help="A run folder, or a report.json.", show_default=False)],
    json: Json = False,
) -> None:
    """Print a finished report and write its page again, from report.json alone."""
    from mneme.options.fields import check_text
    from mneme.report.reading import read_report

    check_text("RUN", run, path=True)

    show_audit(read_report(run), run if run.is_dir() else run.parent, json=json)
