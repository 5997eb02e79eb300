"""Training of a correction goes on after a kill, with the same factors."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from mneme.models.architecture import find_parts
from mneme.repair.patching import CorrectionTraining, Factors, lora_factors, train_correction
from tests.conftest import keep_every, tiny_llama

NAME = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize("dies_at", [0, 3, 5])
def test_a_killed_correction_goes_on(dies_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = find_parts(tiny_llama())
    weight = parts.model.get_submodule(NAME).weight
    keep_every(monkeypatch, 2)
    called: list[int] = []

    def loss_at(step: int) -> Tensor:
        called.append(step)
        ids = torch.randint(5, 40, (2, 6), generator=torch.Generator().manual_seed(step))
        return parts.model(input_ids=ids).logits.float().logsumexp(-1).mean()

    def trained(checkpoint: Path | None, dies_at: int | None = None) -> Factors:
        def advance(_steps: int) -> None:
            if called[-1] == dies_at:
                raise KeyboardInterrupt

        factors = lora_factors({NAME: tuple(weight.shape)}, 2, seed=0, device=weight.device)
        training = CorrectionTraining(steps=6, learning_rate=1e-2, seed=0)
        return train_correction(parts, factors, loss_at, training, train_down=True, checkpoint=checkpoint, advance=advance)

    whole = trained(None)
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "state.safetensors", dies_at)
    called.clear()
    again = trained(tmp_path / "state.safetensors")
    assert called[:1] == ([0] if dies_at == 0 else [4] if dies_at == 3 else [])
    assert all(torch.equal(a, b) for a, b in zip(whole[NAME], again[NAME], strict=True))
