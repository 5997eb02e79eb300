"""The program as a shell sees it: exit codes, what goes to which stream, how quick help is, what the public face holds."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import mneme
from mneme import errors
from mneme.audit.options import AuditOptions
from mneme.cli.main import app, main
from mneme.gate.policy import threshold_policy
from mneme.gate.run import gate_of
from mneme.options import Machine
from mneme.results import Report
from mneme.runs import RunFolder
from tests.report.sample import effect, sample_report

ROOT = Path(__file__).parents[2]
runner = CliRunner()


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a fresh interpreter."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def in_place_of_the_audit(monkeypatch: pytest.MonkeyPatch, pretend: Callable[..., Report]) -> None:
    """Makes `pretend` what the command line calls, without loading torch."""
    module = ModuleType("mneme.audit.run")
    module.run_audit = pretend  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mneme.audit.run", module)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[AuditOptions]:
    """Puts a hand-made report in place of the audit."""
    seen: list[AuditOptions] = []

    def pretend(options: AuditOptions) -> Report:
        seen.append(options)
        return sample_report()

    in_place_of_the_audit(monkeypatch, pretend)
    return seen


def test_help_is_quick_and_without_torch() -> None:
    code = (
        "import sys; sys.argv = ['mneme', '--help']\nfrom mneme.cli.main import main\ntry: main()\nexcept SystemExit: pass\n"
    )
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        done = python(code + "assert 'torch' not in sys.modules and 'numpy' not in sys.modules")
        seconds.append(time.perf_counter() - started)
        assert done.returncode == 0, done.stderr
        assert "audit" in done.stdout
    assert min(seconds) < 1.0


def test_import_is_without_torch() -> None:
    assert python("import sys, mneme; mneme.Report; mneme.write_html; sys.exit('torch' in sys.modules)").returncode == 0


@pytest.mark.parametrize("name", mneme.__all__)
def test_every_public_name_is_where_the_face_says(name: str) -> None:
    home, _, other = mneme._HOMES[name].partition(":")
    assert callable(getattr(importlib.import_module(f"mneme.{home}"), other or name))


def test_a_command_stays_a_command_after_its_folder_was_imported() -> None:
    assert python("import mneme.audit.forecast, mneme; assert not isinstance(mneme.audit, type(mneme))").returncode == 0


def test_a_public_name_is_kept_after_first_use() -> None:
    done = python("import mneme; assert mneme.Report is mneme.Report; assert 'Report' in vars(mneme)")
    assert done.returncode == 0, done.stderr


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'adit'; it has Card, DisplacementMonitor, Effect, .*audit"):
        _ = mneme.adit  # type: ignore[attr-defined]


def test_version_is_that_of_the_distribution() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'\nversion = "{mneme.__version__}"' in text
    assert runner.invoke(app, ["--version"]).output == f"mneme {mneme.__version__}\n"


def test_audit_hands_over_every_option(called: list[AuditOptions], tmp_path: Path) -> None:
    line = (
        "a b --corpus c.txt --areas d.yaml --intended biology --intended law --dictionary rotated --layers 3,2 --tokens 1000 "
        "--seed 7 --describe http://x/v1 --device meta --threads 1 --trust-remote-code"
    )
    done = runner.invoke(app, ["audit", *line.split(), "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert called == [
        AuditOptions(
            "a",
            "b",
            corpus="c.txt",
            areas="d.yaml",
            out=str(tmp_path),
            dictionary="rotated",
            layers=[2, 3],
            tokens=1000,
            seed=7,
            describe="http://x/v1",
            intended=["biology", "law"],
            machine=Machine(threads=1, device="meta", trust_remote_code=True),
        )
    ]


def test_audit_without_models_leaves_the_choice_to_the_audit(called: list[AuditOptions], tmp_path: Path) -> None:
    done = runner.invoke(app, ["audit", "--out", str(tmp_path)])
    assert done.exit_code == 0
    assert (called[0].base, called[0].tuned, called[0].corpus) == (None, None, None)
    assert "Side effects found" in done.stdout
    assert (tmp_path / "report.html").is_file()
    assert f"Page: {tmp_path / 'report.html'}" in done.stdout


def test_json_goes_to_stdout_alone(called: list[AuditOptions], tmp_path: Path) -> None:
    done = runner.invoke(app, ["audit", "--json", "--out", str(tmp_path)])
    assert done.stdout == sample_report().to_json()
    assert json.loads(done.stdout)["schema"] == "mneme.report/1"
    assert "Page:" in done.stderr


@pytest.mark.parametrize(("threshold", "code"), [("0.9", 1), ("0.93", 1), ("0.95", 0), ("0", 1)])
def test_fail_on_counts_only_unintended_effects(called: list[AuditOptions], tmp_path: Path, threshold: str, code: int) -> None:
    done = runner.invoke(app, ["audit", "--fail-on", threshold, "--out", str(tmp_path)])
    assert done.exit_code == code
    if code:
        assert "was reached by chemistry (P 0.93)" in done.stderr
        assert "biology" not in done.stderr


def test_an_affected_area_without_a_calibrated_p_is_not_passed_over() -> None:
    found = {one: effect(one, 0.1, 0.3, finding=one) for one in ("affected", "unaffected", "not enough evidence")}
    effects = [one.model_copy(update={"probability": None, "calibrated": False}) for one in found.values()]
    for threshold in (0.0, 0.5, 1.0):
        result = gate_of(sample_report(effects=effects), threshold_policy(threshold))
        assert [(check.area, check.reason) for check in result.of("fail")] == [("affected", "affected, P uncalibrated")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--fail-on", "1.5"],
        ["--dictionary", "other"],
        ["--tokens", "0"],
        ["--tokens", "many"],
        ["--no-such-option"],
        ["a", "b", "c"],
    ],
)
def test_a_bad_option_ends_with_2_before_any_work(called: list[AuditOptions], arguments: list[str]) -> None:
    done = runner.invoke(app, ["audit", *arguments])
    assert done.exit_code == 2
    assert called == []


@pytest.mark.parametrize("device", ["banana", "cuda:99"])
def test_a_device_that_is_not_there_is_told(called: list[AuditOptions], device: str) -> None:
    done = runner.invoke(app, ["audit", "--device", device])
    assert isinstance(done.exception, errors.BadOption)
    assert f"--device '{device}' cannot be used here" in str(done.exception)
    assert "Use cpu, or a device that this torch has." in str(done.exception)
    assert called == []


def test_a_deliberate_error_is_one_sentence_and_2(
    called: list[AuditOptions], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def refuse(*_: object, **__: object) -> Report:
        raise errors.ModelNotFound("No model at nowhere: expected a folder. Check the path.")

    in_place_of_the_audit(monkeypatch, refuse)
    with pytest.raises(SystemExit) as ended:
        main(["audit", "nowhere", "x", "--out", str(tmp_path / "run")])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "mneme: No model at nowhere: expected a folder. Check the path.\n"
    assert not (tmp_path / "run").exists()


def test_ctrl_c_says_that_the_same_command_resumes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(*_: object, **__: object) -> Report:
        with RunFolder(tmp_path, {"command": "audit"}):
            raise KeyboardInterrupt

    in_place_of_the_audit(monkeypatch, interrupted)
    done = runner.invoke(app, ["audit", "--out", str(tmp_path)])
    assert done.exit_code == 130
    assert "mneme: stopped. The same command goes on where it stopped" in done.stderr


def test_a_real_interrupt_ends_a_real_process_with_130(tmp_path: Path) -> None:
    code = (
        "import sys, time, types\n"
        "run = types.ModuleType('mneme.audit.run'); from mneme.runs import RunFolder\n"
        "def go(_):\n    with RunFolder(__import__('pathlib').Path('x'), {}): print('in', flush=True); time.sleep(30)\n"
        "run.run_audit = go\n"
        "sys.modules['mneme.audit.run'] = run\nsys.argv = ['mneme', 'audit', '--out', 'x']\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from mneme.cli.main import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    os.kill(process.pid, signal.SIGINT)
    _, complaint = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "goes on where it stopped" in complaint
    assert "Traceback" not in complaint


def test_report_renders_again_without_torch(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(sample_report().to_json(), encoding="utf-8")
    (tmp_path / "timings.json").write_text('{"screen": 8.1}')
    done = python(
        f"import sys; sys.argv = ['mneme', 'report', {str(tmp_path)!r}]\nfrom mneme.cli.main import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code, e.code\nassert 'torch' not in sys.modules"
    )
    assert done.returncode == 0, done.stderr
    assert "chemistry" in done.stdout
    assert "8.1 s" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No report at .*report.json. Name a run folder"),
        ("{", "is not a report of schema mneme.report/1: the file: Invalid JSON"),
        ("{}", r"pair: Field required \(\d+ problem"),
        ('{"schema": "mneme.report/9"}', "schema mneme.report/1"),
        (b"\xff\xfe", "Expected the report.json that"),
    ],
)
def test_a_report_that_cannot_be_read_is_told(tmp_path: Path, content: str | bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / "report.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(errors.BadRun, match=words):
        mneme.read_report(tmp_path)


def test_a_report_survives_json_to_the_byte() -> None:
    text = sample_report().to_json()
    assert Report.model_validate_json(text).to_json() == text


def test_organism_prints_its_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    catalogue = importlib.import_module("mneme.worlds.catalogue")
    seen: dict[str, object] = {}

    def pretend(name: str, **options: object) -> object:
        seen.update(name=name, **options)
        paths = [tmp_path / part for part in ("base", "tuned", "corpus.txt", "areas.yaml")]
        return catalogue.Organism(name, "a", 3, *paths, None)

    monkeypatch.setattr(catalogue, "build_organism", pretend)
    done = runner.invoke(app, ["organism", "continue", "--seed", "3", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert seen == {"name": "continue", "world": "a", "seed": 3, "cache": tmp_path}
    assert f"base    {tmp_path / 'base'}" in done.stdout
    assert f"mneme audit {tmp_path / 'base'} {tmp_path / 'tuned'}" in done.stdout


def test_the_reference_is_current() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "make_cli.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


NAMES = {
    "escape": "x\x1b[31mred",
    "title": "x\x1b]0;owned\x07",
    "C1": "x\x9b31m",
    "backspace": "x\x08\x08",
    "carriage return": "x\ry",
    "line end": "x\nmneme: done",
    "direction": "x\u202egpj",
}
COMMANDS = {
    "model": lambda name: ["audit", f"./{name}", "b", "--corpus", "c"],
    "layers": lambda name: ["audit", "a", "b", "--layers", name],
    "device": lambda name: ["audit", "a", "b", "--device", name],
    "judge": lambda name: ["measure", "a", "--judge", name],
    "suite": lambda name: ["measure", "a", "--suite", name],
    "report": lambda name: ["report", name],
    "organism": lambda name: ["organism", name],
    "a value that is no number": lambda name: ["audit", "a", "b", "--fail-on", name],
    "a value that is no choice": lambda name: ["audit", "a", "b", "--dictionary", name],
    "an argument too many": lambda name: ["audit", "a", "b", name],
    "an option that is none": lambda name: ["audit", f"--{name}"],
    "a command that is none": lambda name: [name],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("command", COMMANDS)
def test_what_was_typed_cannot_drive_the_terminal(
    command: str, name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(COMMANDS[command](NAMES[name]))
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert not set(said.err) & set("\x1b\x07\x08\r\x9b\u202e")
    assert "\nmneme: done" not in said.err


@pytest.mark.parametrize("name", NAMES)
def test_an_area_of_a_stranger_cannot_drive_the_terminal(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = sample_report(effects=[effect(NAMES[name], 0.9, -0.5)])
    in_place_of_the_audit(monkeypatch, lambda _options: report)
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main(["audit", "a", "b", "--out", str(tmp_path), "--fail-on", "0.5", *more])
        assert ended.value.code == 1
        said = capsys.readouterr()
        assert not set(said.out + said.err) & set("\x1b\x07\x08\r\x9b\u202e")
        assert "--fail-on 0.5 was reached by x" in said.err
        assert "\nmneme: done" not in said.out + said.err
        if more:
            assert Report.model_validate_json(said.out) == report
