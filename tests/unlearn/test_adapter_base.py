"""Unlearning from an adapter whose base is not where it says."""

import json
from pathlib import Path

import pytest
from rich.console import Console

import mneme
from mneme.options import Machine, Progress, Training
from tests.models.test_pair import save_adapter
from tests.unlearn.conftest import Known


@pytest.mark.slow
def test_unlearn_with_base(known: Known, tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", known.model)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/gone/base-4bit"}))
    found = mneme.unlearn(
        adapter,
        forget=known.forget,
        retain=known.retain,
        out=tmp_path / "out",
        adapter_base=known.model,
        training=Training(steps=60, learning_rate=1e-2),
        machine=Machine(threads=1),
        progress=Progress(Console(quiet=True)),
    )
    assert any("trained on /gone/base-4bit; it is put on" in note for note in found.notes)
