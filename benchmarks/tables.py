"""Writes a generated section of docs/benchmarks.md: each benchmark owns the text between its two marks and no more."""

import re
from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
_HEAD = "# Benchmarks\n\nEvery table is written by the command above it; nothing here is typed by hand.\n"


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; bars in a cell are escaped."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def write_section(name: str, title: str, command: str, body: str, page: Path = PAGE) -> None:
    """Replaces (or adds) the section `name` of the page: a title, the command that writes it, and `body`."""
    text = page.read_text("utf-8") if page.exists() else _HEAD
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    section = f"{begin}\n## {title}\n\n```sh\n{command}\n```\n\n{body.strip()}\n{end}\n"
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end) + "\n", re.DOTALL)
    text = pattern.sub(lambda _: section, text) if pattern.search(text) else f"{text.rstrip()}\n\n{section}"
    page.write_text(text, "utf-8")
