"""What an audit was asked is kept whole, decides no more than it must, and comes back."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

from mneme.audit.options import AuditOptions
from mneme.audit.run import run_audit
from mneme.options import restored
from mneme.runs import read_finished
from tests.audit.conftest import World, audited


def written(out: Path) -> dict[str, int]:
    """When every stage was written."""
    return {path.name: path.stat().st_mtime_ns for path in sorted(out.glob("stages-*/*.npz"))}


def test_naming_the_purpose_later_computes_nothing_again(world: World, tmp_path: Path) -> None:
    first = audited(world, tmp_path, dictionary="none")
    stages = written(tmp_path)
    assert stages
    area = first.effects[0].area
    second = audited(world, tmp_path, dictionary="none", intended=[area])
    assert written(tmp_path) == stages
    assert [e.area for e in first.effects if e.intended] == []
    assert [e.area for e in second.effects if e.intended] == [area]
    assert [e.magnitude for e in second.effects] == [e.magnitude for e in first.effects]


def test_another_seed_computes_it_again(world: World, tmp_path: Path) -> None:
    audited(world, tmp_path, dictionary="none")
    stages = written(tmp_path)
    audited(world, tmp_path, dictionary="none", seed=1, overwrite=True)
    assert not set(written(tmp_path).values()) & set(stages.values())


def test_make_it_again_does(world: World, tmp_path: Path) -> None:
    """The record of run.json, into another folder: the same bytes. The command of the page names the same options."""
    report = audited(world, tmp_path / "one", dictionary="none", tokens=2048, seed=3, quick=True, intended=["botany"])
    found = read_finished(tmp_path / "one", "audit", "report.json")
    assert found is not None
    asked = restored(AuditOptions, found.command["options"])
    assert (asked.tokens, asked.seed, asked.quick, asked.machine.threads) == (2048, 3, True, 1)
    assert run_audit(replace(asked, out=tmp_path / "two")) == report
    assert (tmp_path / "one" / "report.json").read_bytes() == (tmp_path / "two" / "report.json").read_bytes()
    words = shlex.split(json.loads((tmp_path / "one" / "report.json").read_text())["command"])
    assert words[:4] == ["mneme", "audit", str(world.base), str(world.damaged)]
    for flag in ("--corpus", "--areas", "--intended", "--tokens", "--seed", "--quick"):
        assert flag in words
