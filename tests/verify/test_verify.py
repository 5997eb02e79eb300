"""A recipient finds any changed byte of report, evidence, options, page, model or text, and computes every figure again."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from typer.testing import CliRunner

from mneme.cli.main import app
from mneme.errors import BadOption, BadRun
from mneme.results import Report
from mneme.results.verify import Verification
from mneme.runs.manifest import Manifest, read_manifest
from mneme.verify.run import verify
from tests.audit.conftest import World

FILES = ("report.json", "run.json", "evidence.npz", "manifest.json", "report.html")


@pytest.fixture
def copy(audited: Path, tmp_path: Path) -> Path:
    """The run as somebody else receives it: without stages, and without the models."""
    (tmp_path / "run").mkdir()
    for name in (*FILES, "timings.json", "plan.json"):
        shutil.copy(audited / name, tmp_path / "run" / name)
    return tmp_path / "run"


def told(found: Verification) -> dict[str, str]:
    """Part -> what is said of it."""
    return {check.what: check.outcome for check in found.checks}


def flip(path: Path, at: int) -> None:
    """Another byte at this place."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1 << (at % 7)
    path.write_bytes(bytes(content))


def test_an_own_run_is_verified_whole(audited: Path) -> None:
    found = verify(audited)
    assert found.verified, found.checks
    whole = ["manifest", "report.json", "run.json", "evidence.npz", "options", "base", "tuned", "text", "effects and verdict"]
    assert [what for what, outcome in told(found).items() if outcome == "holds"] == [*whole, "page"]


def test_without_the_models_everything_else_is_verified(copy: Path) -> None:
    found = told(verify(copy))
    assert {what for what, outcome in found.items() if outcome == "not checked"} == {"base", "tuned", "text", "signature"}
    assert "changed" not in found.values()


@pytest.mark.parametrize("name", FILES)
def test_any_changed_byte_of_the_run_is_found(copy: Path, name: str) -> None:
    """The first bytes, the last and three in between, drawn under a seed."""
    path = copy / name
    whole = path.read_bytes()
    for at in [0, 1, len(whole) - 1, *random.Random(name).sample(range(len(whole)), 3)]:
        flip(path, at)
        try:
            assert not verify(copy).verified, at
        finally:
            path.write_bytes(whole)
    assert verify(copy).verified


@pytest.mark.parametrize("side", ["base", "tuned", "text"])
def test_any_changed_byte_of_models_and_text_is_found(copy: Path, world: World, tmp_path: Path, side: str) -> None:
    here = {"base": world.base, "tuned": world.damaged, "text": world.corpus}
    mine = tmp_path / side
    shutil.copytree(here[side], mine) if here[side].is_dir() else shutil.copy(here[side], mine)
    named = {"corpus" if side == "text" else side: mine}
    assert told(verify(copy, **named))[side] == "holds"
    for path in sorted(mine.iterdir()) if mine.is_dir() else [mine]:
        whole = path.read_bytes()
        for at in random.Random(path.name).sample(range(len(whole)), 1):
            flip(path, at)
            assert told(verify(copy, **named))[side] == "changed", (path, at)
            path.write_bytes(whole)
    if mine.is_dir():
        (mine / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
        assert told(verify(copy, **named))[side] == "changed"


def forged(copy: Path, change: dict[str, object]) -> None:
    """A report with another figure, and a manifest that lists it: what a careful forger writes."""
    report = json.loads((copy / "report.json").read_text("utf-8"))
    report["effects"][0]["magnitude"] |= change
    text = Report.model_validate(report).to_json().encode()
    (copy / "report.json").write_bytes(text)
    (copy / "report.html").unlink()
    manifest = read_manifest(copy / "manifest.json")
    files = {**manifest.files, "report.json": hashlib.sha256(text).hexdigest()}
    whole = Manifest(mneme=manifest.mneme, key=manifest.key, files=files, models=manifest.models, text=manifest.text)
    (copy / "manifest.json").write_bytes(whole.content())


def test_a_forged_figure_is_found_though_the_manifest_lists_it(copy: Path) -> None:
    forged(copy, {"value": -0.01})
    found = verify(copy)
    assert [check.what for check in found.checks if check.outcome == "changed"] == ["effects and verdict"]
    detail = next(check.detail for check in found.checks if check.outcome == "changed")
    assert "magnitude value: -0.01 in the report, " in detail


def write_key(folder: Path, name: str) -> tuple[Path, Path]:
    """A private and a public key as openssl writes them."""
    key = Ed25519PrivateKey.generate()
    form, no = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / f"{name}.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, no))
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    (folder / f"{name}.pub.pem").write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, spki))
    return folder / f"{name}.pem", folder / f"{name}.pub.pem"


def test_a_signature_is_of_one_key_and_one_manifest(copy: Path, tmp_path: Path) -> None:
    private, public = write_key(tmp_path, "sender")
    _, other = write_key(tmp_path, "other")
    assert told(verify(copy, key=public))["signature"] == "changed"  # it is not signed
    assert verify(copy, sign=private).signed_by
    assert told(verify(copy, key=public))["signature"] == "holds"
    assert told(verify(copy, key=other))["signature"] == "changed"
    for at in random.Random(0).sample(range(len((copy / "signature.json").read_bytes())), 4):
        whole = (copy / "signature.json").read_bytes()
        flip(copy / "signature.json", at)
        found = verify(copy, key=public)
        (copy / "signature.json").write_bytes(whole)
        if told(found)["signature"] == "holds":
            pytest.fail(f"byte {at}")
    forged(copy, {"value": -0.01})
    assert told(verify(copy, key=public))["signature"] == "changed"


def test_what_was_changed_is_not_signed(copy: Path, tmp_path: Path) -> None:
    forged(copy, {"n": 3})
    assert verify(copy, sign=write_key(tmp_path, "sender")[0]).signed_by == ""
    assert not (copy / "signature.json").exists()


def test_other_keys_are_refused(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no key", encoding="utf-8")
    rsa = generate_private_key(65537, 2048)
    form, no = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (tmp_path / "rsa.pem").write_bytes(rsa.private_bytes(serialization.Encoding.PEM, form, no))
    for name, words in (("text.pem", "is no private key in PEM"), ("rsa.pem", "another kind of key"), ("gone", "no private")):
        with pytest.raises(BadOption, match=words):
            verify(copy, sign=tmp_path / name)


def test_what_is_no_run_is_one_sentence(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BadRun, match="No finished audit in"):
        verify(tmp_path)
    with pytest.raises(BadOption, match=r"--base .* is not there"):
        verify(copy, base=tmp_path / "gone")
    (copy / "manifest.json").unlink()
    with pytest.raises(BadRun, match=r"No manifest.json in .*: nothing says what this run was made of"):
        verify(copy)


def test_the_command_ends_with_1_where_something_was_changed(copy: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["verify", str(copy)]).exit_code == 0
    flip(copy / "report.json", 100)
    done = runner.invoke(app, ["verify", str(copy)])
    assert done.exit_code == 1
    assert "Changed: report.json" in done.stdout
    assert not Verification.model_validate_json(runner.invoke(app, ["verify", str(copy), "--json"]).stdout).verified


def test_it_needs_no_torch_and_little_time(copy: Path) -> None:
    code = (
        f"import sys, time; from mneme.verify.run import verify; found = verify({str(copy)!r}); "
        "assert found.verified; assert 'torch' not in sys.modules; assert 'transformers' not in sys.modules; "
        "print(time.process_time())"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 6.0, time.perf_counter() - started
