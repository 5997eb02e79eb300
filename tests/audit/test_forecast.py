"""The plan: from configurations alone, in the right order of magnitude, linear where the work is."""

import importlib
import json
from pathlib import Path

import pytest

from mneme.audit.forecast import forecast, forecast_run, shape_of
from mneme.errors import BadOption, BrokenWeights
from mneme.options import Machine
from tests.audit.conftest import Run, World


def test_shape_comes_from_the_configuration_alone(world: World, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((world.base / "config.json").read_text())
    shape = shape_of(tmp_path, tmp_path)
    assert shape.parameters == shape_of(world.base, world.damaged).parameters > 10_000
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_configuration_of_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "nothing"}))
    with pytest.raises(BrokenWeights, match="cannot be loaded as a causal language model"):
        shape_of(tmp_path, tmp_path)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part that is tried out takes one second."""
    monkeypatch.setattr(importlib.import_module("mneme.audit.forecast"), "_seconds", lambda _work, _device: 1.0)


@pytest.mark.usefixtures("clock")
def test_work_grows_with_the_text(world: World) -> None:
    shape = shape_of(world.base, world.damaged)
    small, large = (forecast(shape, tokens, 64, "change") for tokens in (16_384, 262_144))
    assert large.flops > 2 * small.flops
    assert large.disk_bytes > small.disk_bytes
    assert large.parts["survey"] == pytest.approx(16 * small.parts["survey"])
    assert sum(small.parts.values()) == pytest.approx(small.seconds)


@pytest.mark.usefixtures("clock")
def test_several_processes_share_the_work(world: World) -> None:
    shape = shape_of(world.base, world.damaged)
    alone, two = (forecast(shape, 65_536, 64, "change", processes=n).parts["dictionaries"] for n in (1, 2))
    assert two == pytest.approx((0.97 / 2 + 0.03) * alone)


def test_plan_reads_the_text_and_checks_the_layers(world: World) -> None:
    found = forecast_run(
        world.base,
        world.damaged,
        corpus=world.corpus,
        machine=Machine(threads=1),
    )
    assert found.tokens > 1000
    assert found.seconds > 0
    with pytest.raises(BadOption, match="layers go from 0"):
        forecast_run(
            world.base,
            world.damaged,
            corpus=world.corpus,
            layers=[99],
            machine=Machine(threads=1),
        )


def test_plan_and_fact_stand_beside_each_other(whole_run: Run) -> None:
    beside = json.loads((whole_run.out / "plan.json").read_text())
    assert 0.2 < beside["planned"]["seconds"] / beside["measured"]["seconds"] < 5
    # What is measured is the peak of this whole process, which other tests may have raised.
    assert 0 < beside["planned"]["peak_bytes"] < 2 * beside["measured"]["peak_bytes"]
