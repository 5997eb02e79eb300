"""Row a of the issue on safety: whatever `--out` is, inputs and files of others stay byte for byte as they were.

Every command x {input at OUT/model, input = OUT, OUT inside an input, files of others in OUT, another command's run in OUT,
links in OUT}: one sentence, exit 2, and the same tree before and after.
"""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mneme.cli.main import main
from mneme.runs import RunFolder
from tests.conftest import WORDS, TinyPair

TEMPLATE = (
    "{% for m in messages %} {{ m['role'] }} : {{ m['content'] }}{% if m['role'] == 'assistant' %}</s>{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Place:
    """A folder of one test with all inputs."""

    root: Path

    def line(self, command: str, model: Path, out: Path) -> list[str]:
        """The command line of `command` with `model` as its first input."""
        tuned, text, rows, pairs = (str(self.root / name) for name in ("tuned", "text.txt", "rows.jsonl", "pairs.jsonl"))
        other, suite = str(self.root / "other.txt"), str(self.root / "suite.jsonl")
        arguments = {
            "audit": [tuned, "--corpus", text, "--dictionary", "none", "--tokens", "2048"],
            "measure": [tuned, "--suite", suite],
            "screen": [pairs, "--pairs", "--score", "edit", "--trial-steps", "0"],
            "train": [rows, "--epochs", "0.1"],
            "dpo": [pairs, "--steps", "1"],
            "unlearn": ["--forget", text, "--retain", other, "--steps", "1"],
            "repair": [tuned, "--target", text, "--retain", other, "--method", "scale"],
            "persona": ["--with", rows, "--without", rows],
        }[command]
        where = out / "persona.safetensors" if command == "persona" and out.name != "persona.safetensors" else out
        return [command, str(model), *arguments, "--out", str(where)]


COMMANDS = ("audit", "measure", "screen", "train", "dpo", "unlearn", "repair", "persona")
WRITES = {
    "audit": "report.json",
    "measure": "measurement.json",
    "screen": "kept.jsonl",
    "train": "model/adapter_config.json",
    "dpo": "model/adapter_config.json",
    "unlearn": "model/config.json",
    "repair": "repair.json",
}


@pytest.fixture
def place(tmp_path: Path, tiny_pair: TinyPair) -> Place:
    root = tmp_path / "place"
    root.mkdir()
    for name in ("base", "tuned"):
        shutil.copytree(getattr(tiny_pair, name), root / name)
        (root / name / "chat_template.jinja").write_text(TEMPLATE)
    shutil.copy(tiny_pair.corpus, root / "text.txt")
    rng = random.Random(1)

    def said() -> str:
        return " ".join(rng.choices(WORDS, k=6))

    (root / "other.txt").write_text("".join(f"{said()} {said()}\n" for _ in range(40)))
    chats = [{"messages": [{"role": "user", "content": said()}, {"role": "assistant", "content": said()}]} for _ in range(12)]
    (root / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in chats))
    pairs = [{"prompt": said(), "chosen": said(), "rejected": said()} for _ in range(12)]
    (root / "pairs.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in pairs))
    asked = [{"id": str(i), "area": "x", "prompt": said(), "choices": [said(), said()], "answer": 0} for i in range(6)]
    (root / "suite.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in asked))
    return Place(root)


def tree(root: Path) -> dict[str, str]:
    """Every path below `root` with what it is: the hash of a file, the target of a link."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = f"-> {os.readlink(path)}"
        else:
            found[name] = "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def refused(line: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the program says of a line that it refuses: one sentence, exit 2."""
    with pytest.raises(SystemExit) as ended:
        main(list(line))
    said = capsys.readouterr().err
    assert ended.value.code == 2, said
    last = said.strip().splitlines()[-1]
    assert last.startswith("mneme: "), said
    assert "Traceback" not in said
    return last


def input_at_out_model(place: Place) -> tuple[Path, Path]:
    out = place.root / "out"
    out.mkdir()
    shutil.copytree(place.root / "base", out / "model")
    return out / "model", out


def input_is_out(place: Place) -> tuple[Path, Path]:
    return place.root / "base", place.root / "base"


def out_in_input(place: Place) -> tuple[Path, Path]:
    return place.root / "base", place.root / "base" / "runs" / "one"


def input_below_a_link(place: Place) -> tuple[Path, Path]:
    """The input lies in OUT, but neither name shows it."""
    model, out = input_at_out_model(place)
    (place.root / "named").symlink_to(model)
    (place.root / "elsewhere").symlink_to(out)
    return place.root / "named", place.root / "elsewhere"


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("how", [input_at_out_model, input_is_out, out_in_input, input_below_a_link])
def test_a_run_never_writes_where_its_input_lies(
    place: Place, capsys: pytest.CaptureFixture[str], command: str, how: Callable[[Place], tuple[Path, Path]]
) -> None:
    if command == "persona" and how in (input_at_out_model, input_below_a_link):
        pytest.skip("persona writes one file, which may lie beside a model")
    model, out = how(place)
    before = tree(place.root)
    said = refused(place.line(command, model, out), capsys)
    assert "--out" in said
    assert tree(place.root) == before


def strangers_files(place: Place, _command: str) -> None:
    (place.root / "out" / "thesis").mkdir(parents=True)
    (place.root / "out" / "thesis" / "chapter.txt").write_text("years of work")
    (place.root / "out" / "stages-mine").mkdir()
    (place.root / "out" / "stages-mine" / "take-1.txt").write_text("mine")


def strangers_result(place: Place, command: str) -> None:
    path = place.root / "out" / WRITES[command]
    path.parent.mkdir(parents=True)
    path.write_text("somebody's")


def another_run(place: Place, _command: str) -> None:
    with RunFolder(place.root / "out", {"command": "another"}) as run:
        run.finish({"report.json": b"{}", "measurement.json": b"{}"})


def links(place: Place, _command: str) -> None:
    out = place.root / "out"
    out.mkdir()
    (place.root / "precious").mkdir()
    (place.root / "precious" / "weights.bin").write_text("the only copy")
    for name in ("stages-0123456789abcdef", "model", "reaudit", "inspect"):
        (out / name).symlink_to(place.root / "precious")
    for name in ("run.json", "report.json", "areas.yaml", "timings.json"):
        (out / name).symlink_to(place.root / "precious" / "weights.bin")


@pytest.mark.parametrize("command", list(WRITES))
@pytest.mark.parametrize("how", [strangers_files, strangers_result, another_run, links])
def test_what_lies_in_out_stays(
    place: Place, capsys: pytest.CaptureFixture[str], command: str, how: Callable[[Place, str], None]
) -> None:
    how(place, command)
    before = tree(place.root)
    said = refused(place.line(command, place.root / "base", place.root / "out"), capsys)
    assert "--out" in said
    assert tree(place.root) == before


@pytest.mark.parametrize("how", [strangers_result, links])
def test_overwrite_does_not_touch_what_mneme_did_not_write(
    place: Place, capsys: pytest.CaptureFixture[str], how: Callable[[Place, str], None]
) -> None:
    how(place, "audit")
    before = tree(place.root)
    said = refused([*place.line("audit", place.root / "base", place.root / "out"), "--overwrite"], capsys)
    assert "did not write it" in said
    assert tree(place.root) == before


def test_overwrite_works_beside_files_of_others(place: Place) -> None:
    strangers_files(place, "screen")
    before = tree(place.root)
    with pytest.raises(SystemExit) as ended:
        main([*place.line("screen", place.root / "base", place.root / "out"), "--overwrite"])
    assert not ended.value.code
    after = tree(place.root)
    assert {name: after[name] for name in before} == before
    assert "out/kept.jsonl" in after


def test_a_second_command_needs_another_folder_or_overwrite(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    line = place.line("screen", place.root / "base", place.root / "out")
    for _ in range(2):  # the same command again is the same run
        with pytest.raises(SystemExit) as ended:
            main(line)
        assert not ended.value.code
    before = tree(place.root)
    assert "holds a finished run of mneme screen" in refused([*line, "--seed", "1"], capsys)
    assert tree(place.root) == before
    with pytest.raises(SystemExit) as ended:
        main([*line, "--seed", "1", "--overwrite"])
    assert not ended.value.code
    assert json.loads((place.root / "out" / "screening.json").read_text())["seed"] == 1


def test_a_persona_file_is_not_written_over(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    path = place.root / "persona.safetensors"
    path.write_text("something else")
    before = tree(place.root)
    assert "holds no persona vectors" in refused(place.line("persona", place.root / "base", path), capsys)
    assert "holds no persona vectors" in refused([*place.line("persona", place.root / "base", path), "--overwrite"], capsys)
    assert tree(place.root) == before


def test_a_bench_keeps_files_of_others(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    strangers_files(place, "bench")
    before = tree(place.root)
    assert "did not write" in refused(["bench", "--out", str(place.root / "out")], capsys)
    assert tree(place.root) == before


def test_a_page_is_not_written_over_a_strangers(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.report.sample import sample_report

    run = place.root / "run"
    run.mkdir()
    (run / "report.json").write_text(sample_report().to_json())
    (run / "report.html").write_text("<p>a page that somebody wrote")
    before = tree(run)
    assert "report.html" in refused(["report", str(run)], capsys)
    assert {name: tree(run)[name] for name in before} == before
