"""Text of strangers: what drives a terminal is shown, what people write stays."""

import io
import json
import unicodedata

import pytest
from rich.table import Table
from rich.text import Text

from mneme.plain import plain, plain_json
from mneme.terminal import Terminal

HOSTILE = {
    "escape sequence": ("a\x1b[31mb", "a\\x1b[31mb"),
    "title of the window": ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
    "C1 control": ("a\x9b31mb\x85", "a\\x9b31mb\\x85"),
    "backspace": ("safe\x08\x08\x08\x08evil", "safe\\x08\\x08\\x08\\x08evil"),
    "carriage return": ("100 %\rnothing", "100 %\\rnothing"),
    "line end": ("a\nmneme: all is well", "a\\nmneme: all is well"),
    "tab": ("a\tb", "a\\tb"),
    "delete and null": ("\x7f\x00", "\\x7f\\x00"),
    "override of direction": ("\u202egpj.exe\u202c", "\\u202egpj.exe\\u202c"),
    "isolate": ("\u2066a\u2069", "\\u2066a\\u2069"),
    "separators": ("a\u2028b\u2029c", "a\\u2028b\\u2029c"),
    "invisible tags": ("\U000e0041", "\\U000e0041"),
    "mark of byte order, joiner that hides": ("\ufeff\u2060", "\\ufeff\\u2060"),
    "half of a pair": ("\udc9b", "\\udc9b"),
}
HARMLESS = [
    "",
    "law/model [red]x[/red] \\x1b :smile: {}%",
    "Größe, naïve, \u00a0 5 %",
    "日本語 한국어 हिन्दी",
    "می\u200cخواهم",
    "עברית \u200f1",
    "👩\u200d💻",
    "ภาษา\u200bไทย",
]


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_characters_are_shown_as_escapes(kind: str) -> None:
    text, shown = HOSTILE[kind]
    assert plain(text) == shown
    assert plain(shown) == shown


def test_lines_stay_where_lines_are_asked_for() -> None:
    assert plain("a\r\nb\tc\rd", lines=True) == "a\nb\tc\\rd"


@pytest.mark.parametrize("text", HARMLESS)
def test_what_people_write_stays(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize("kind", HOSTILE)
def test_json_says_the_same_and_can_be_printed(kind: str) -> None:
    said = {"name": [HOSTILE[kind][0], "é"]}
    text = json.dumps(said, ensure_ascii=False, indent=1) + "\n"
    shown = plain_json(text)
    assert json.loads(shown) == said
    assert {c for c in shown if unicodedata.category(c)[0] == "C"} <= {"\n"}
    assert "é" in shown


def printed(thing: object, **options: object) -> str:
    """What a terminal with colours, 60 columns wide, would get."""
    file = io.StringIO()
    Terminal(file=file, force_terminal=True, color_system="truecolor", width=60, **options).print(thing)
    return file.getvalue()


def one_cell(cell: str | Text) -> Table:
    table = Table(title=cell, caption=cell)
    table.add_column(cell)
    table.add_row(cell)
    return table


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("make", [str, Text, one_cell, lambda text: one_cell(Text(text))])
def test_no_text_drives_the_terminal(kind: str, make: object) -> None:
    assert callable(make)
    shown = printed(make(f"<{HOSTILE[kind][0]}>"))
    ours = shown.replace("\x1b[1m", "").replace("\x1b[2;3m", "").replace("\x1b[3m", "").replace("\x1b[0m", "")
    assert {c for c in ours if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")} <= {"\n"}


MARKUP = ["[red]x[/red]", "[link=https://evil.example]x[/link]", "[/]", "[bold", "x[/red]", ":smile:", "[@click=app.quit]x"]


@pytest.mark.parametrize("text", MARKUP)
def test_no_text_is_markup(text: str) -> None:
    assert printed(text) == f"{text}\n"
    assert printed(one_cell(text)).count(text) == 4
    file = io.StringIO()
    console = Terminal(file=file)
    console.print(text, markup=True, emoji=True)
    console.rule(text)
    assert file.getvalue().count(text) == 2


def test_a_link_in_a_style_is_left_out() -> None:
    assert "evil" not in printed(Text("x", style="link https://evil.example"))
    assert "\x1b[1mx" in printed(Text("x", style="bold"))
