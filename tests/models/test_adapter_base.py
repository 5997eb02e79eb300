"""An adapter given alone, whose base is not where it says: `--base` of every command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import typer.main
from safetensors.torch import save_file

from mneme.cli.main import app
from mneme.errors import ModelNotFound
from mneme.measure.subjects import subjects_of
from mneme.models.adapter_files import whole_fingerprint
from mneme.models.checkpoints import model_fingerprint
from mneme.models.pair import load_model, load_pair
from mneme.options import Machine
from mneme.screen.options import ScreenOptions
from mneme.screen.run import run_screen
from tests.conftest import tiny_llama
from tests.models.test_pair import save_orphan

COMMANDS = ("audit", "measure", "train", "dpo", "unlearn", "screen", "repair", "persona")


@pytest.fixture
def base(save_llama: Callable[..., Path]) -> Path:
    """A plain model."""
    return save_llama()


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    """An adapter of it that names a folder which is gone."""
    return save_orphan(tmp_path / "adapter", base)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_takes_an_adapter_has_the_option(name: str) -> None:
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    (found,) = [one for one in command.params if one.name == "adapter_base"]
    assert found.opts == ["--base"]


def test_the_given_base_wins_with_a_line(adapter: Path, base: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ModelNotFound, match=r"adapter of /gone/base-4bit, which is not at hand.*--base"):
        load_model(adapter)
    found = load_model(adapter, adapter_base=base)
    told = "says that it was trained on /gone/base-4bit; it is put on"
    assert any(told in note for note in found.notes)
    assert told in caplog.text
    ids = torch.tensor([[4, 9, 12]])
    pair = load_pair(base, adapter)
    with pair.using("tuned") as parts:
        torch.testing.assert_close(found.parts.model(ids).logits, parts.model(ids).logits, rtol=1e-4, atol=1e-4)
    assert any(told in note for note in load_pair(adapter, base, adapter_base=base).notes)


def test_measure_and_screen_read_it(adapter: Path, base: Path, tmp_path: Path) -> None:
    (subject,) = subjects_of(adapter, [], adapter_base=base)
    assert subject.loaded().parts.blocks
    rows = [{"prompt": "ba be ", "completion": word} for word in ("da", "de", "di", "do", "du", "ba", "be", "bi")]
    options = ScreenOptions(
        adapter,
        rows,
        adapter_base=base,
        unwanted=rows,
        wanted=rows,
        trial_steps=0,
        out=tmp_path / "screen",
        machine=Machine(threads=1),
    )
    assert run_screen(options).rows == len(rows)


def test_other_weights_under_the_name_of_the_base_are_another_model(tmp_path: Path) -> None:
    """Stages made with an adapter on one base may not serve the same adapter on another."""
    base, other, adapter = tmp_path / "base", tmp_path / "other", tmp_path / "adapter"
    for folder, seed in ((base, 0), (other, 1)):
        tiny_llama(seed).save_pretrained(folder)
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    save_file({"a": torch.zeros(1)}, adapter / "adapter_model.safetensors")
    before, given = whole_fingerprint(adapter), whole_fingerprint(adapter, other)
    assert len({before, given, model_fingerprint(adapter)}) == 3
    shutil.rmtree(base)
    shutil.copytree(other, base)
    assert whole_fingerprint(adapter) == given
    shutil.rmtree(base)
    assert whole_fingerprint(adapter) == model_fingerprint(adapter)
    assert whole_fingerprint(other) == model_fingerprint(other)
