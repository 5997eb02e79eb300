"""An audit on a GPU mixes no devices and says what it says on the CPU. The GPU is pretended (tests/pretend_gpu.py)."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from mneme.audit import run as run_module
from mneme.audit.forecast import HERE, Forecast, forecast
from mneme.models.pair import load_pair
from mneme.options import Machine
from tests.audit.conftest import Run, World
from tests.pretend_gpu import OnGpu, PretendGpu, on_gpu


def planned(*given: Any, **options: Any) -> Forecast:
    return forecast(*given, **(options | {"machine": HERE}))


def test_what_a_gpu_refuses() -> None:
    with PretendGpu():
        there, here = torch.ones(3, device="cuda"), torch.ones(3)
        assert isinstance(there, OnGpu)
        assert there.device.type == "cuda"
        with pytest.raises(RuntimeError, match="same device"):
            there + here
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="indices should be"):
            here[there.long()]
        assert type(there.cpu()) is torch.Tensor
        assert isinstance(here.to(there.device) + there, OnGpu)


@pytest.mark.parametrize("in_memory", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_audit_on_a_gpu(
    world: World, whole_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    if not in_memory:
        monkeypatch.setattr(importlib.import_module("mneme.audit.dictionary"), "RESIDENT_BYTES", 0)
        monkeypatch.setattr(importlib.import_module("mneme.audit.halves"), "made_ahead", lambda batches, _device: batches)
    pair = load_pair(world.base, world.damaged)  # transformers loads through tricks of its own, which are not pretended
    monkeypatch.setattr(run_module, "load_pair", lambda *_given, **_options: on_gpu(pair))
    monkeypatch.setattr(run_module, "forecast", planned)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 1)
    with PretendGpu() as gpu:
        report = run_module.audit(
            world.base,
            world.damaged,
            corpus=world.corpus,
            areas=world.areas,
            out=tmp_path,
            machine=Machine(device="cuda", precision="float32", threads=1),
        )
    assert gpu.ran > 1000
    assert report.verdict == whole_run.report.verdict
    assert [effect.area for effect in report.effects] == [effect.area for effect in whole_run.report.effects]
    for found, expected in zip(report.effects, whole_run.report.effects, strict=True):
        assert found.magnitude.value == pytest.approx(expected.magnitude.value, abs=1e-4)
    assert report.latents
    if in_memory:  # else the dictionaries learn from other batches
        assert [latent.id for latent in report.latents] == [latent.id for latent in whole_run.report.latents]
