"""The plan: from configurations alone, in the right order of magnitude, linear where the work is."""

import importlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from mneme.audit.forecast import Hardware, forecast, forecast_run, shape_of
from mneme.audit.options import AuditOptions
from mneme.audit.work import Read, Work
from mneme.errors import BadOption, BrokenWeights
from mneme.models.threads import computing_threads
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
    alone, two = (forecast(shape, 65_536, 64, "change", machine=Hardware(processes=n)).parts["dictionaries"] for n in (1, 2))
    assert two == pytest.approx((0.97 / 2 + 0.03) * alone)


@pytest.mark.usefixtures("clock")
def test_two_models_that_run_at_once_take_half_the_time_and_more_memory(world: World) -> None:
    shape = shape_of(world.base, world.damaged)
    work = Work(Read(100_000, 0), Read(0, 0), Read(0, 0), Read(0, 0), 4)

    def planned(threads: int, adapter: bool) -> tuple[float, int]:
        with computing_threads(threads):
            found = forecast(shape._replace(adapter=adapter), 16_384, 64, None, work=work)
        return found.parts["own words"], found.peak_bytes

    (alone, less), (both, more) = planned(1, adapter=False), planned(2, adapter=False)
    assert both == pytest.approx(alone / 2)
    assert more > less
    assert planned(2, adapter=True) == planned(1, adapter=True)


def test_plan_reads_the_text_and_checks_the_layers(world: World) -> None:
    asked = AuditOptions(world.base, world.damaged, corpus=world.corpus, machine=Machine(threads=1))
    found = forecast_run(asked)
    assert found.tokens > 1000
    assert found.seconds > 0
    quick = forecast_run(replace(asked, quick=True))
    assert not quick.parts["survey"]
    assert quick.parts["own words"] > 0
    with pytest.raises(BadOption, match="layers go from 0"):
        forecast_run(replace(asked, layers=[99]))


def test_plan_and_fact_stand_beside_each_other(whole_run: Run) -> None:
    beside = json.loads((whole_run.out / "plan.json").read_text())
    assert 0.2 < beside["planned"]["seconds"] / beside["measured"]["seconds"] < 5
    # What is measured is the peak of this whole process, which other tests may have raised.
    assert 0 < beside["planned"]["peak_bytes"] < 2 * beside["measured"]["peak_bytes"]


@pytest.mark.usefixtures("clock")
def test_without_a_dictionary_nothing_of_one_is_planned(world: World) -> None:
    shape = shape_of(world.base, world.damaged)
    work = Work(Read(1000, 10), Read(200, 5), Read(0, 0), Read(100, 1), 4)
    plain = forecast(shape, 65_536, 64, None, work=work)
    assert {name for name, seconds in plain.parts.items() if seconds} == {"own words", "paired answers", "null"}
    assert plain.flops == 2 * shape.parameters * (2 * 1200 + 4 * 100)
    assert forecast(shape, 65_536, 64, "change", work=work).parts["survey"] > 0


def test_plan_reads_the_text_with_the_template_that_was_given(world: World, tmp_path: Path) -> None:
    template = tmp_path / "long.jinja"
    template.write_text("{% for m in messages %}{{ m['role'] + ' ba be bi bo ' * 8 + m['content'] }}{% endfor %}")
    texts = world.corpus.read_text().splitlines()
    rows = [{"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "ba be"}]} for text in texts]
    corpus = tmp_path / "chats.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = AuditOptions(world.base, world.damaged, corpus=corpus, machine=Machine(threads=1))
    plain, long = forecast_run(asked), forecast_run(replace(asked, chat_template=template))
    assert long.tokens > 1.5 * plain.tokens
    with pytest.raises(BadOption, match="cannot be read"):
        forecast_run(replace(asked, chat_template=tmp_path / "none.jinja"))
