"""Every file that a command reads, in every way that a file can be wrong: one sentence, 2, nothing left."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile.conftest import refused, with_value

OPTIONS = [
    ("audit", "--corpus"),
    ("audit", "--areas"),
    ("measure", "--suite"),
    ("measure", "--data"),
    ("screen", "1"),
    ("screen", "--unwanted"),
    ("train", "1"),
    ("train", "--safe"),
    ("train", "--vectors"),
    ("dpo", "1"),
    ("unlearn", "--forget"),
    ("unlearn", "--retain"),
    ("repair", "--target"),
    ("repair", "--retain"),
    ("repair", "--from"),
    ("persona", "--with"),
    ("persona", "--without"),
]
MODELS = [
    *((command, "0") for command in ("audit", "measure", "screen", "train", "dpo", "unlearn", "repair", "persona")),
    ("audit", "1"),
    ("measure", "1"),
    ("repair", "1"),
    ("repair", "--unaligned"),
]


def jsonl(path: Path, rows: list[object]) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def missing(path: Path) -> Path:
    return path.with_suffix(".jsonl")


def a_folder(path: Path) -> Path:
    path.mkdir()
    return path


def empty(path: Path) -> Path:
    return jsonl(path, [])


def binary(path: Path) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_bytes(bytes(range(256)) * 40)
    return path


def latin1(path: Path) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text('{"text": "b\u00e4 be bi"}\n' * 40, encoding="latin-1")
    return path


def deep(path: Path) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text('{"messages":' * 20_000 + "1" + "}" * 20_000 + "\n")
    return path


def brackets(path: Path) -> Path:
    path = path.with_suffix(".yaml")
    path.write_text("[" * 20_000)
    return path


def numbers(path: Path) -> Path:
    return jsonl(path, [1, 2, 3])


def nulls(path: Path) -> Path:
    return jsonl(
        path, [{"text": None, "messages": None, "prompt": None, "chosen": None, "rejected": None, "choices": None}] * 9
    )


def wrong_types(path: Path) -> Path:
    return jsonl(path, [{"text": ["x"], "messages": {"role": 1}, "prompt": 3, "chosen": {}, "rejected": [], "choices": 1}] * 9)


def a_link_to_itself(path: Path) -> Path:
    path.symlink_to(path)
    return path


HARMS: list[Callable[[Path], Path]] = [
    missing, a_folder, empty, binary, latin1, deep, brackets, numbers, nulls, wrong_types, a_link_to_itself,
]  # fmt: skip


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize(("command", "option"), OPTIONS)
def test_a_file_that_cannot_be_read(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, option: str, harm: Callable[[Path], Path]
) -> None:
    path = harm(tmp_path / "given")
    if path.suffix == ".yaml" and (command, option) in (("unlearn", "--forget"), ("unlearn", "--retain")):
        pytest.skip("what has no known ending is read as text, and brackets are text")
    refused(with_value(command, option, str(path)), place, capsys)
