"""Writes docs/api.md, every public name with its signature and docstring; `--check` only says whether it is current."""

import inspect
import re
import sys
from pathlib import Path
from typing import Annotated, get_args, get_origin

import mneme
from mneme.options import Option

TARGET = Path(__file__).with_name("api.md")
HEAD = """# Python

Made from the program by `python docs/make_api.py`; do not edit it here. Every command is a function of the same name, which
takes what its options are called; all raise a `MnemeError` that says in a sentence what is wrong.
"""
_PLACE = re.compile(r" at 0x[0-9a-f]+")
_ROOM = re.compile(r"\b(?:mneme|collections|pathlib|typing|rich|torch|transformers)(?:\.\w+)*\.(?=[A-Z])")


def signature(name: str, value: object) -> str:
    """As a caller writes it; what is an option too with its help beside it."""
    try:
        found = inspect.signature(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return f"mneme.{name}"
    lines = [_parameter(one) for one in found.parameters.values()]
    flat = f"mneme.{name}({', '.join(text for text, _ in lines)})"
    if len(flat) < 100 and not any(told for _, told in lines):
        return flat
    return f"mneme.{name}(\n" + "".join(f"    {text},{told}\n" for text, told in lines) + ")"


def _parameter(parameter: inspect.Parameter) -> tuple[str, str]:
    """(the parameter with its plain type, its help as a comment)."""
    kind, *beside = get_args(parameter.annotation) if get_origin(parameter.annotation) is Annotated else [parameter.annotation]
    told = next((one.help for one in beside if isinstance(one, Option)), "")
    shown = _ROOM.sub("", _PLACE.sub("", str(parameter.replace(annotation=kind))))
    return shown, f"  # {told}" if told else ""


def section(name: str) -> str:
    """The text of one name."""
    value = getattr(mneme, name)
    words = inspect.cleandoc(inspect.getdoc(value) or "")
    return f"## {name}\n\n```python\n{signature(name, value)}\n```\n\n{_fenced(words)}\n"


def _fenced(words: str) -> str:
    """A docstring as Markdown: what is in brackets is no link."""
    parts = re.split(r"(```.*?```)", words, flags=re.DOTALL)
    return "".join(part if part.startswith("```") else part.replace("[", "\\[").replace("<", "&lt;") for part in parts)


def reference() -> str:
    """The whole page."""
    return HEAD + "\n" + "\n".join(section(name) for name in sorted(mneme.__all__, key=str.casefold))


def main() -> None:
    """Write the page, or compare it with what is there."""
    text = reference()
    if "--check" in sys.argv:
        sys.exit(0 if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text else 1)
    TARGET.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
