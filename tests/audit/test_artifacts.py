"""What a finished audit left is read back whole, or refused."""

import shutil
from pathlib import Path

import pytest

from mneme.audit.artifacts import areas_read, audited_options, read_audit, stored_codes
from mneme.errors import BadRun
from tests.audit.conftest import Run, World


def test_a_finished_audit_is_read_back(world: World, whole_run: Run) -> None:
    found = read_audit(whole_run.out)
    options = audited_options(found)
    assert (options.base, options.tuned, options.machine.threads) == (str(world.base), str(world.damaged), 1)
    told = {effect.area for effect in whole_run.report.effects} | {area.area for area in whole_run.report.absent}
    assert {area["name"] for area in areas_read(found)} <= told
    layers = {latent.layer for latent in whole_run.report.latents}
    codes = stored_codes(found, options.dictionary, layers)
    assert [one.layer for one in codes] == sorted(layers)
    assert stored_codes(found, "none", layers) == []


def test_what_was_changed_since_is_not_believed(whole_run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole_run.out, out)
    stage = next(out.glob("stages-*/dictionary-change-*.npz"))
    stage.write_bytes(stage.read_bytes()[:-1] + b"x")
    layers = {latent.layer for latent in whole_run.report.latents}
    with pytest.raises(BadRun, match="was removed or changed"):
        stored_codes(read_audit(out), "change", layers)
    (out / "run.json").write_text((out / "run.json").read_text().replace("weaving", "welding"))
    with pytest.raises(BadRun, match="was not made by this user's mneme, or was changed since"):
        read_audit(out)
