"""The built wheel in an empty environment outside the repository: it installs and audits the pair that ships, within 90 s.

Python 3.11, 3.12 and 3.13 where they are found. Packages come from the registry, so this is slow and needs a network.
"""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WITHIN = 90.0
"""Seconds that the audit of the built-in pair may take after installation, on two quiet cores."""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]


def interpreter(version: str) -> str | None:
    """A Python of that version that really starts."""
    names = [shutil.which(f"python{version}"), *map(str, Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))]
    for name in filter(None, names):
        told = subprocess.run(
            [name, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True, check=False
        )
        if told.stdout.strip() == version:
            return name
    return None


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(command, check=True)
    return next(folder.glob("mneme_audit-*.whl"))


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_wheel_audits_the_pair_that_ships(wheel: Path, tmp_path: Path, version: str) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} here")
    subprocess.run([python, "-m", "venv", str(tmp_path / "venv")], check=True)
    inside = tmp_path / "venv" / "bin" / "python"
    install = [str(inside), "-m", "pip", "install", "--quiet", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*install, "torch"], check=True)
    subprocess.run([*install, str(wheel)], check=True)
    where = subprocess.run(
        [str(inside), "-c", "import mneme; print(mneme.__file__)"], cwd=tmp_path, capture_output=True, text=True, check=True
    ).stdout
    assert str(tmp_path) in where, "the wheel, and not the checkout"
    command = [str(tmp_path / "venv" / "bin" / "mneme"), "audit", "--out", "demo"]
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    started = time.monotonic()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "demo" / "report.html").is_file()
    assert "biology" in done.stdout
    assert seconds <= WITHIN, f"Python {version}: {seconds:.0f} s"
