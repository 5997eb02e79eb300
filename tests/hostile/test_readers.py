"""Commands that read what others have made (gate, verify, compare, compare-logs, card) and the callback `SideEffects`: bad
files, numbers, names, folders and terminals, by the rule of every other command."""

import io
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mneme import SideEffects
from mneme.audit.stored import evidence_bytes
from mneme.cli.main import main
from mneme.errors import BadRun, MnemeError
from mneme.results import Report
from mneme.runs import write_atomic
from mneme.runs.manifest import Manifest, whole_digest
from mneme.verify.run import verify
from tests.audit.test_stored import AREAS, sample_evidence
from tests.cli.test_out import tree
from tests.conftest import tiny_llama, word_tokenizer
from tests.hostile.conftest import exchanged, refused
from tests.hostile.test_files import HARMS, a_folder, a_link_to_itself, binary, missing
from tests.hostile.test_parsers import ARRAYS, TOLD, damaged, values
from tests.report.sample import effect, hostile_report, sample_report

LINES = {
    "gate": ["run", "--policy", "policy.yaml", "--out", "out"],
    "verify": ["run"],
    "compare": ["run", "run2", "--out", "out"],
    "compare-logs": ["one.jsonl", "two.jsonl", "--out", "out"],
    "card": ["run", "--out", "out"],
}
"""A good line of each."""
WRITES = ("gate", "compare", "compare-logs", "card")


def line_of(command: str, option: str, value: str) -> list[str]:
    """The good line with another value for an option, or for the argument of that number."""
    return [command, *exchanged(LINES[command], option, value)]


def write_run(folder: Path, report: Report, asked: Any = None, evidence: bytes | None = None) -> None:
    """A finished audit as somebody sends it: with a manifest that vouches for whatever is in it."""
    folder.mkdir(exist_ok=True)
    (folder / "report.json").write_text(report.to_json(), "utf-8")
    (folder / "run.json").write_text(json.dumps({} if asked is None else asked))
    (folder / "evidence.npz").write_bytes(evidence_bytes(sample_evidence()) if evidence is None else evidence)
    files = {name: whole_digest(folder / name) for name in ("report.json", "run.json", "evidence.npz")}
    told = Manifest(mneme="1", key="k", files=files, models={}, text={"texts": report.corpus.sha256})
    (folder / "manifest.json").write_bytes(told.content())


def items(right: str) -> str:
    rows = [{"id": str(i), "task": "\x1b[31mlaw → 猫", "correct": mark == "1", "prompt": "p"} for i, mark in enumerate(right)]
    return "".join(f"{json.dumps(row)}\n" for row in rows)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, two logs and a policy; nobody writes to it but below `out`."""
    root = tmp_path_factory.mktemp("readers")
    write_run(root / "run", sample_report())
    write_run(root / "run2", sample_report(effects=[effect("law", 0.9, -0.2)]))
    write_run(root / "hostile", hostile_report())
    (root / "one.jsonl").write_text(items("1101101101" * 4))
    (root / "two.jsonl").write_text(items("1001100101" * 4))
    (root / "policy.yaml").write_text(
        "not_worse_than: 100\nrules: [{everything: true, verdict: [affected, unaffected, not enough evidence]}]\n"
    )
    (root / "text.txt").write_text("ba be bi\n" * 400)
    return root


@pytest.fixture
def here(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same as the working folder, without `out`."""
    monkeypatch.chdir(finished)
    shutil.rmtree(finished / "out", ignore_errors=True)
    yield finished
    shutil.rmtree(finished / "out", ignore_errors=True)


def ended(line: list[str]) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(line)
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("command", LINES)
def test_a_good_line_is_run(here: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert ended([command, *LINES[command]]) in (0, 1, 3), capsys.readouterr().err
    assert "mneme: " not in capsys.readouterr().err
    assert (here / "out").exists() == (command in WRITES)


FILES = [
    ("gate", "0"),
    ("gate", "--policy"),
    ("gate", "--baseline"),
    ("verify", "0"),
    ("verify", "--key"),
    ("compare", "0"),
    ("compare", "1"),
    ("compare-logs", "0"),
    ("compare-logs", "1"),
    ("compare-logs", "--audit"),
    ("card", "0"),
    ("card", "--into"),
]


TERMINALS = [("40", "ascii"), *(pytest.param(*one, marks=pytest.mark.slow) for one in (("120", "cp1252"), ("40", "utf-8")))]
QUICK = (a_folder, missing, binary)
SOME = [harm if harm in QUICK else pytest.param(harm, marks=pytest.mark.slow) for harm in HARMS]
"""All harms, most of them in the slow suite."""


@pytest.mark.parametrize("harm", SOME)
@pytest.mark.parametrize(("command", "option"), FILES)
def test_a_file_that_cannot_be_read(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, option: str, harm: Callable[[Path], Path]
) -> None:
    if option == "--into" and harm not in (a_folder, a_link_to_itself) and harm is not binary:
        pytest.skip("a card of any words is a card, and one that is missing is written")
    refused(line_of(command, option, str(harm(tmp_path / "given"))), here, capsys)


@pytest.mark.parametrize("value", ["n" * 300, "d/" * 3000, "", "\0"], ids=["long name", "long path", "empty", "zero byte"])
@pytest.mark.parametrize(("command", "option"), FILES)
def test_a_name_that_names_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], command: str, option: str, value: str
) -> None:
    refused(line_of(command, option, value), here, capsys)


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e400", "1180591620717411303424", "twelve", ""])
def test_a_number_that_is_none(here: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert "--margin" in refused(line_of("compare-logs", "--margin", value), here, capsys)


@pytest.mark.parametrize("value", ["2027-13-45", "tomorrow", "", "99999-01-01", "1", "\x1b[31m"])
def test_a_day_that_is_none(here: Path, capsys: pytest.CaptureFixture[str], value: str) -> None:
    assert "--today" in refused(line_of("gate", "--today", value), here, capsys)


@pytest.mark.parametrize("command", WRITES)
@pytest.mark.parametrize("out", ["n" * 300, "", "\0", "text.txt", "text.txt/below", "/proc/nothing", "one.jsonl/x"])
def test_an_out_that_cannot_be(here: Path, capsys: pytest.CaptureFixture[str], command: str, out: str) -> None:
    refused(line_of(command, "--out", out), here, capsys)


@pytest.mark.parametrize("into", ["text.txt/x", "missing/README.md", "pipe"])
def test_a_card_that_cannot_be_written_leaves_nothing_beside(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], into: str
) -> None:
    os.mkfifo(tmp_path / "pipe")  # stands for a device: no test may name a real one where files are written
    refused(line_of("card", "--into", str(tmp_path / "pipe") if into == "pipe" else into), here, capsys)
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)


def test_no_write_takes_the_place_of_a_device(tmp_path: Path) -> None:
    """A rename would: as root, /dev/null became a model card."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(BadRun, match="not a file"):
            write_atomic(tmp_path / name, b"x")
    assert stat.S_ISFIFO((tmp_path / "pipe").lstat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


@pytest.mark.parametrize("command", ["compare", "compare-logs"])
@pytest.mark.parametrize("out", ["run", "."])
def test_files_of_others_stay(here: Path, capsys: pytest.CaptureFixture[str], command: str, out: str) -> None:
    refused(line_of(command, "--out", out), here, capsys)


@pytest.mark.parametrize(("command", "name"), [("gate", "gate.json"), ("gate", "junit.xml"), ("card", "badge.svg")])
def test_a_file_of_others_of_that_name_stays(here: Path, capsys: pytest.CaptureFixture[str], command: str, name: str) -> None:
    (here / "out").mkdir()
    (here / "out" / name).write_text("mine")
    refused([command, *LINES[command]], here, capsys)


@pytest.mark.parametrize(("width", "encoding"), TERMINALS)
@pytest.mark.parametrize("command", LINES)
def test_any_terminal(here: Path, monkeypatch: pytest.MonkeyPatch, command: str, width: str, encoding: str) -> None:
    monkeypatch.setenv("COLUMNS", width)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    words = ["hostile" if word == "run" else word for word in LINES[command]]
    if command == "compare":
        words[1] = "hostile/../hostile"
    assert ended([command, *words]) in (0, 1, 3)
    sys.stdout.flush()
    shown = raw.getvalue().decode(encoding)
    assert not set(shown) & set("\x00\x07\x08\r\x1b\x9b\u202e")
    assert all(len(line) <= int(width) for line in shown.splitlines() if "/" not in line and "SHA-256" not in line)


@pytest.mark.parametrize("name", ["report.json", "run.json", "evidence.npz", "manifest.json", "signature.json"])
@pytest.mark.parametrize("harm", SOME)
def test_a_part_of_a_run_that_is_something_else(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, harm: Callable[[Path], Path]
) -> None:
    """`verify` tells it from the run that was made, and says so."""
    shutil.copytree(here / "run", tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink(missing_ok=True)
    if harm is not missing:
        harm(tmp_path / "given").rename(path)
    before = tree(tmp_path)
    assert ended(["verify", str(tmp_path / "run")]) in (1, 2)
    said = capsys.readouterr()
    assert "Traceback" not in said.err + said.out
    assert "mneme: a fault" not in said.err
    assert tree(tmp_path) == before


ASKED = {
    "key": "k", "version": "1", "command": "audit", "options": {"base": "a", "tuned": "b", "corpus": "c", "areas": None},
    "areas": [area.model_dump(mode="json") for area in AREAS],
}  # fmt: skip


def try_runs(tmp_path: Path, examples: int) -> None:
    """Whatever a sender put into a run, with a manifest of his own over it."""

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged(ASKED), st.data())
    def tried(asked: Any, data: st.DataObject) -> None:
        arrays = dict(ARRAYS)
        for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), max_size=2)):
            array = arrays[name]
            wild = data.draw(st.sampled_from([np.nan, np.inf, -1.0, 1e300, 0.0]))
            arrays[name] = np.full(array.shape, wild).astype(array.dtype) if array.dtype.kind in "fu" else array[::-1].copy()
        told = data.draw(st.one_of(st.just(TOLD), damaged(TOLD), values))
        arrays["told"] = np.frombuffer(json.dumps(told).encode(), dtype=np.uint8)
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_run(tmp_path / "run", sample_report(), asked, buffer.getvalue())
        with suppress(MnemeError):
            assert not verify(tmp_path / "run").verified

    with np.errstate(all="ignore"):
        tried()


@pytest.mark.slow
def test_a_run_of_any_content(tmp_path: Path) -> None:
    try_runs(tmp_path, 60)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_run_of_any_content_10_000_times(tmp_path: Path) -> None:
    try_runs(tmp_path, 10_000)


BAD: dict[str, list[Any]] = {
    "share": [0.0, -1.0, float("nan"), float("inf"), 1.1],
    "every": [0, -1],
    "tokens": [0, -1, 2**70],
    "seed": [-1, 2**70],
    "intended": ["\x1b[31m", [""]],
    "policy": [
        "nope.yaml", "", "\0", "n" * 300, {"not_worse_than": "x"}, {"rules": 3}, {"baseline": "x"},
        {"rules": [{"area": "nope", "size": 3}]},
    ],
    "corpus": ["nope.txt", "n" * 300, "\0", "", "/dev/full"],
    "areas": ["nope.yaml", "n" * 300, "\0", "", "policy.yaml", "text.txt"],
}  # fmt: skip


def begin(**named: Any) -> SideEffects:
    """What a trainer does before its first step."""
    watch = SideEffects(**{"corpus": "text.txt", "tokens": 512, **named})
    state = type("State", (), {"global_step": 0, "max_steps": 10})()
    watch.on_train_begin(None, state, None, model=tiny_llama(), processing_class=word_tokenizer())
    return watch


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, bad in BAD.items() for value in bad])
def test_a_callback_that_cannot_be_used(here: Path, name: str, value: Any) -> None:
    before = tree(here)
    with pytest.raises(MnemeError) as error:
        begin(**{name: value})
    assert str(error.value).rstrip().endswith((".", "?", "!"))
    assert tree(here) == before


@pytest.mark.parametrize("harm", SOME)
@pytest.mark.parametrize("name", ["corpus", "areas", "policy"])
def test_a_file_of_a_callback_that_cannot_be_read(here: Path, tmp_path: Path, name: str, harm: Callable[[Path], Path]) -> None:
    with pytest.raises(MnemeError):
        begin(**{name: harm(tmp_path / "given")})
