"""One place with every kind of input for the whole session; every case works in an `out` of its own."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from mneme.cli.main import main
from tests.cli.test_out import TEMPLATE, tree
from tests.conftest import WORDS, TinyPair

COMMANDS = {
    "audit": ["base", "tuned", "--corpus", "text.txt", "--dictionary", "none", "--tokens", "2048"],
    "measure": ["base", "tuned", "--suite", "suite.jsonl"],
    "screen": ["base", "pairs.jsonl", "--pairs", "--score", "edit", "--trial-steps", "0"],
    "train": ["base", "rows.jsonl", "--epochs", "5", "--batch", "4"],
    "dpo": ["base", "pairs.jsonl", "--steps", "4", "--filter", "none"],
    "unlearn": ["base", "--forget", "forget.txt", "--retain", "other.txt", "--steps", "8"],
    "repair": ["base", "tuned", "--target", "other.txt", "--retain", "forget.txt", "--method", "scale"],
    "persona": ["base", "--with", "rows.jsonl", "--without", "rows2.jsonl"],
}
"""A short run of every command that reads models, in a folder that `make_place` filled."""


def make_place(root: Path, pair: TinyPair) -> None:
    """Models, text, rows, pairs and a suite."""
    rng = random.Random(1)

    def said() -> str:
        return " ".join(rng.choices(WORDS, k=6))

    def lines(name: str, rows: list[dict[str, object]]) -> None:
        (root / name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))

    for name in ("base", "tuned"):
        shutil.copytree(getattr(pair, name), root / name)
        (root / name / "chat_template.jinja").write_text(TEMPLATE)
    shutil.copy(pair.corpus, root / "text.txt")
    for name in ("other.txt", "forget.txt"):
        (root / name).write_text("".join(f"{said()} {said()}\n" for _ in range(40)))
    for name in ("rows.jsonl", "rows2.jsonl"):
        turns = [[{"role": role, "content": said()} for role in ("user", "assistant")] for _ in range(12)]
        lines(name, [{"messages": messages} for messages in turns])
    lines("pairs.jsonl", [{"prompt": said(), "chosen": said(), "rejected": said()} for _ in range(12)])
    lines(
        "suite.jsonl",
        [{"id": str(i), "area": "x", "prompt": said(), "choices": [said(), said()], "answer": 0} for i in range(6)],
    )


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, tiny_pair: TinyPair) -> Path:
    """The place; nobody writes to it but below `out`."""
    root = tmp_path_factory.mktemp("hostile")
    make_place(root, tiny_pair)
    return root


@pytest.fixture
def place(filled: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the working folder, without `out`."""
    monkeypatch.chdir(filled)
    shutil.rmtree(filled / "out", ignore_errors=True)
    return filled


def line_of(command: str, *more: str, out: str = "out") -> list[str]:
    """The short run of `command` into `out`."""
    where = f"{out}/vectors.safetensors" if command == "persona" and out == "out" else out
    return [command, *COMMANDS[command], *more, "--out", where]


def exchanged(line: Sequence[str], option: str, value: str) -> list[str]:
    """A command line with another `value` for an option, or for the argument of that number."""
    words = list(line)
    if option.isdecimal():
        words[int(option)] = value
    elif option in words:
        words[words.index(option) + 1] = value
    else:
        words.append(f"{option}={value}")
    return words


def with_value(command: str, option: str, value: str) -> list[str]:
    """The same with `value` for an option, or for the argument of that number."""
    words = exchanged(COMMANDS[command], option, value)
    return [command, *words, "--out", "out/vectors.safetensors" if command == "persona" else "out"]


def refused(line: list[str], place: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence with which `line` is refused: exit 2, nothing on stdout, no file made or changed."""
    before = tree(place)
    with pytest.raises(SystemExit) as ended:
        main(line)
    said = capsys.readouterr()
    assert ended.value.code == 2, said.err
    told, found, _ = said.err.rpartition("mneme: ")
    assert found, said.err
    assert "mneme: " not in told, said.err  # a plan may stand before it
    assert all(one.startswith("  ") for one in said.err[len(told) :].splitlines()[1:]), said.err  # a list of what there is
    assert "Traceback" not in said.err
    assert not set(said.err) & set("\x00\x07\x08\r\x1b\x9b\u202e")
    assert said.out == ""
    assert tree(place) == before
    return said.err
