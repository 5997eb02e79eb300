"""Files of strangers in run folders: never believed, never followed, never removed (issue on safety, point 3)."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mneme.errors import BadOption, BadRun
from mneme.runs import RunFolder, add_file, read_finished, require_apart
from mneme.runs.ledger import LEDGER, Ledger, own_secret, read_ledger, remove_own, write_ledger
from mneme.runs.stages import write_marker
from mneme.runs.writing import write_atomic

COMMAND = {"command": "audit", "seed": 0}
TRUE = np.arange(6, dtype=np.float32).reshape(2, 3)


def npz(path: Path, array: np.ndarray) -> None:
    with path.open("wb") as file:
        np.savez(file, x=array)


def planted(stages: Path) -> None:
    npz(stages / "screen.npz", np.full((2, 3), 7, dtype=np.float32))


def of_another_shape(stages: Path) -> None:
    npz(stages / "screen.npz", np.zeros((1, 3), dtype=np.float32))


def of_another_type(stages: Path) -> None:
    npz(stages / "screen.npz", np.zeros((2, 3), dtype=np.int64))


def cut_short(stages: Path) -> None:
    (stages / "screen.npz").write_bytes((stages / "screen.npz").read_bytes()[:40])


def no_archive(stages: Path) -> None:
    (stages / "screen.npz").write_bytes(b"\x80\x04pickle")


def another_stage(stages: Path) -> None:
    shutil.copy(stages / "other.npz", stages / "screen.npz")
    shutil.copy(stages / "other.json", stages / "screen.json")


def sealed_by_somebody_else(stages: Path) -> None:
    planted(stages)
    content = (stages / "screen.npz").read_bytes()
    write_marker(stages, "screen", content, 1.0, stages.name.removeprefix("stages-"), b"another user's 32 bytes of secret")


def link(stages: Path) -> None:
    elsewhere = stages.parent.parent / "elsewhere.npz"
    npz(elsewhere, np.full((2, 3), 7, dtype=np.float32))
    (stages / "screen.npz").unlink()
    (stages / "screen.npz").symlink_to(elsewhere)


def no_marker(stages: Path) -> None:
    (stages / "screen.json").unlink()


def deep_marker(stages: Path) -> None:
    (stages / "screen.json").write_text("[" * 100_000)


@pytest.mark.parametrize(
    "harm",
    [
        planted,
        of_another_shape,
        of_another_type,
        cut_short,
        no_archive,
        another_stage,
        sealed_by_somebody_else,
        link,
        no_marker,
        deep_marker,
    ],
)
def test_a_stage_that_is_not_as_it_was_written_is_computed_again(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    out = tmp_path / "out"
    with RunFolder(out, COMMAND) as run:
        run.stage("screen", lambda: {"x": TRUE})
        run.stage("other", lambda: {"x": TRUE + 1})
    harm(run.stages)
    elsewhere = tmp_path / "elsewhere.npz"
    before = elsewhere.read_bytes() if elsewhere.exists() else b""
    with RunFolder(out, COMMAND) as run:
        assert np.array_equal(run.stage("screen", lambda: {"x": TRUE})["x"], TRUE)
    assert (elsewhere.read_bytes() if elsewhere.exists() else b"") == before


def test_a_stage_as_it_was_written_is_read(tmp_path: Path) -> None:
    with RunFolder(tmp_path, COMMAND) as run:
        run.stage("screen", lambda: {"x": TRUE})
    with RunFolder(tmp_path, COMMAND) as run:
        assert np.array_equal(run.stage("screen", lambda: pytest.fail("computed again"))["x"], TRUE)


def test_a_checkpoint_that_was_changed_is_passed_over(tmp_path: Path) -> None:
    with RunFolder(tmp_path, COMMAND) as run:
        checkpoint = run.workspace("checkpoints") / "checkpoint-5"
        checkpoint.mkdir()
        (checkpoint / "optimizer.pt").write_bytes(b"state")
        assert not run.is_sealed(checkpoint)
        run.seal_tree(checkpoint)
        assert run.is_sealed(checkpoint)
        (checkpoint / "more.py").write_text("import os")
        assert not run.is_sealed(checkpoint)
        (checkpoint / "more.py").unlink()
        (checkpoint / "optimizer.pt").write_bytes(b"other")
        assert not run.is_sealed(checkpoint)


def test_a_workspace_that_somebody_made_is_not_used(tmp_path: Path) -> None:
    with RunFolder(tmp_path, COMMAND) as run:
        (run.stages / "checkpoints").mkdir(parents=True)
        with pytest.raises(BadRun, match="checkpoints is not a folder that mneme made"):
            run.workspace("checkpoints")


@pytest.mark.parametrize("name", ["../precious", "a/../../precious", "/etc/hostname", "link/precious", "."])
def test_a_ledger_names_nothing_outside_its_folder(tmp_path: Path, name: str) -> None:
    """Even one with a valid seal: a name that leaves the folder, or goes through a link, is nobody's."""
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "precious").write_text("mine")
    (out / "link").symlink_to(tmp_path)
    from mneme.runs.writing import content_digest

    ledger = Ledger("0" * 16, "audit", True, {name: (content_digest(b"mine"),)})
    write_ledger(out, ledger, own_secret())
    found = read_ledger(out, own_secret())
    assert found == ledger
    remove_own(out, ledger)
    assert (tmp_path / "precious").read_text() == "mine"


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"ledger": "{}", "seal": "00"}', b"\xff\xfe", b"[" * 200_000])
def test_a_ledger_that_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / LEDGER).write_bytes(content)
    assert read_ledger(tmp_path, own_secret()) is None


def test_a_run_of_another_user_is_refused_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder(tmp_path / "out", COMMAND) as run:
        run.stage("screen", lambda: {"x": TRUE})
        run.finish({"report.json": b"{}"})
    assert read_finished(tmp_path / "out", "audit", "report.json") is not None
    monkeypatch.setenv("MNEME_CACHE", str(tmp_path / "cache of another"))
    assert read_finished(tmp_path / "out", "audit", "report.json") is None
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    for overwrite in (False, True):
        with pytest.raises(BadRun, match=r"not made by this user's mneme|did not write"):
            RunFolder(tmp_path / "out", COMMAND, overwrite=overwrite)
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == before


def test_a_result_that_was_changed_is_not_believed(tmp_path: Path) -> None:
    with RunFolder(tmp_path, COMMAND) as run:
        run.finish({"report.json": b'{"base": "mine"}'})
    assert read_finished(tmp_path, "measure", "report.json") is None
    (tmp_path / "report.json").write_bytes(b'{"base": "/etc/passwd"}')
    assert read_finished(tmp_path, "audit", "report.json") is None


def test_two_at_once_in_one_folder(tmp_path: Path) -> None:
    with (
        RunFolder(tmp_path, COMMAND),
        pytest.raises(BadRun, match=r"Another mneme is at work.*Wait"),
    ):
        RunFolder(tmp_path, COMMAND)
    RunFolder(tmp_path, COMMAND).close()


def test_files_under_a_narrow_umask_are_the_users_alone(tmp_path: Path) -> None:
    import os
    import stat

    mask = os.umask(0o077)
    try:
        with RunFolder(tmp_path / "out", COMMAND) as run:
            run.stage("screen", lambda: {"x": TRUE})
            draft = run.workspace("model")
            (draft / "config.json").write_text("{}")
            run.adopt(draft, "model")
            run.finish({"report.json": b"{}"})
        add_file(tmp_path / "out", "report.html", b"<p>")
        write_atomic(tmp_path / "one", b"1")
    finally:
        os.umask(mask)
    for path in [tmp_path / "one", *(tmp_path / "out").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700


def test_the_secret_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import stat

    monkeypatch.setenv("MNEME_CACHE", str(tmp_path / "new"))
    assert own_secret() == own_secret()
    assert len(own_secret()) == 32
    assert stat.S_IMODE((tmp_path / "new" / "seal").stat().st_mode) == 0o600
    (tmp_path / "new" / "seal").write_bytes(b"short")
    with pytest.raises(BadRun, match="Remove it"):
        own_secret()


def test_adopting_replaces_what_mneme_wrote_and_nothing_else(tmp_path: Path) -> None:
    def adopt(run: RunFolder, text: str) -> None:
        draft = run.workspace("model")
        (draft / "weights").write_text(text)
        run.adopt(draft, "model")

    with RunFolder(tmp_path, COMMAND) as run:
        adopt(run, "one")
        adopt(run, "two")
        assert (tmp_path / "model" / "weights").read_text() == "two"
        (tmp_path / "model" / "notes").write_text("mine")
        with pytest.raises(BadRun, match=r"model/notes would have to make room"):
            adopt(run, "three")
        assert (tmp_path / "model" / "weights").read_text() == "two"


def test_an_adapters_own_base_is_an_input(tmp_path: Path) -> None:
    base, adapter = tmp_path / "runs" / "model", tmp_path / "adapter"
    base.mkdir(parents=True)
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    with pytest.raises(BadOption, match=r"TUNED .*model lies inside --out .*give another folder with --out"):
        require_apart(tmp_path / "runs", {"TUNED": adapter})
    require_apart(tmp_path / "other", {"TUNED": adapter, "--corpus": "a-hub/name", "--x": None, "--rows": [{"a": 1}]})


@pytest.mark.parametrize("with_models", [False, True])
def test_a_strangers_audit_opens_no_path(tmp_path: Path, capsys: pytest.CaptureFixture[str], with_models: bool) -> None:
    """Its stages are not believed either, whichever models are named: the audit has to be run again."""
    from mneme.cli.main import main
    from tests.report.sample import sample_report

    run = tmp_path / "run"
    run.mkdir()
    (run / "report.json").write_text(sample_report().to_json())
    (run / "run.json").write_text(json.dumps({"command": "audit", "key": "0" * 16, "intended": ["biology"]}))
    line = ["repair", *(["base", "tuned"] if with_models else []), "--from", str(run), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as ended:
        main(line)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "models/world-a" in said
    assert "Run it again" in said
    assert not (tmp_path / "out").exists()
