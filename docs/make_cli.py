"""Writes docs/cli.md from the program itself; `--check` only says whether it is current (exit 1 when it is not)."""

import sys
from pathlib import Path
from typing import Any

import typer.main

from mneme.cli.main import app

TARGET = Path(__file__).with_name("cli.md")
HEAD = """# The command line

Made from the program by `python docs/make_cli.py`; do not edit it here.

Exit codes of every command: 0 done, 1 the gate said no (`mneme gate`, `--policy`, `--fail-on`, or no repair closes its share),
2 an input or option cannot be used (one sentence on stderr says what is wrong, what was expected and what to do), 3 not enough
evidence for the gate, 70 a fault of mneme itself (its account is fault.txt in the run folder, or where stderr says), 130
stopped by Ctrl-C.
"""


def default_of(parameter: Any) -> str:
    """The default as a user would type it; empty where there is none to show."""
    if isinstance(parameter.show_default, str):
        return f" Default: {parameter.show_default}."
    value = getattr(parameter.default, "value", parameter.default)
    return "" if value is None or value is False or not parameter.show_default else f" Default: `{value}`."


def option_line(parameter: Any) -> str:
    """One option as a list item: its names, its value, its help, its default."""
    names = ", ".join(f"`{name}`" for name in parameter.opts)
    return f"- {names}{f' `{parameter.metavar}`' if parameter.metavar else ''}: {parameter.help}{default_of(parameter)}"


def section(name: str, command: Any) -> str:
    """The text of one command: usage, what it does, arguments, options."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and "--help" not in p.opts]
    words = [p.name.upper() if p.required else f"[{p.name.upper()}]" for p in arguments]
    usage = " ".join(["mneme", name, *words, *(["[OPTIONS]"] if options else [])])
    parts = [
        f"## mneme {name}",
        f"```\n{usage}\n```",
        "\n\n".join(p.replace("\n", " ") for p in command.help.strip().split("\n\n")),
    ]
    if arguments:
        parts.append("Arguments\n\n" + "\n".join(f"- `{p.name.upper()}`: {p.help}" for p in arguments))
    if options:
        parts.append("Options\n\n" + "\n".join(option_line(p) for p in options))
    return "\n\n".join(parts) + "\n"


def reference() -> str:
    """The whole page."""
    program: Any = typer.main.get_command(app)
    return HEAD + "\n" + "\n".join(section(name, command) for name, command in program.commands.items())


def main() -> None:
    """Writes the page, or with `--check` compares it."""
    text = reference()
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(text, encoding="utf-8")
    elif not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != text:
        sys.exit("docs/cli.md is not what the program says. Run: python docs/make_cli.py")


if __name__ == "__main__":
    main()
