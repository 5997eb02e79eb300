"""`train` as a user calls it: what it writes, that a kill changes nothing, that bad input is refused before training."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from mneme.cli.main import app
from mneme.errors import BadOption, BadRows, MnemeError
from mneme.models.pair import load_model, load_pair
from mneme.models.trainers import last_checkpoint
from mneme.results.train import TrainingRecord
from mneme.runs import RunFolder
from mneme.text.files import Row
from mneme.train.personas import PersonaVectors, save_personas
from mneme.train.run import train
from tests.conftest import WORDS, grouped, keep_every, tiny_llama
from tests.train.conftest import chat_rows, chat_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
QUIET = Console(quiet=True)
ROWS, SAFE = chat_rows(40, 1, WORDS[:30]), chat_rows(16, 2, WORDS[30:])
EVERYTHING: dict[str, float] = {"kl": 0.1, "ldifs": 1.0, "interleave": 0.1, "contexts": 0.5, "steer": 0.5, "project": 1.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    tiny_llama().save_pretrained(folder)
    chat_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "v.safetensors"
    save_personas(PersonaVectors(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)), 3, 3, layer=1), path)
    return path


def written(path: Path, rows: list[Row]) -> Path:
    """Rows as a .jsonl file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def short(base: Path, out: Path, **changes: Any) -> TrainingRecord:
    """Ten steps of four rows."""
    settings = {"lora_rank": 2, "learning_rate": 1e-2, "batch": 4, "console": QUIET}
    return train(base, changes.pop("data", ROWS), out=out, **grouped(**(settings | changes)))


def test_it_writes_an_adapter_that_loads_and_a_record(base: Path, vectors: Path, tmp_path: Path) -> None:
    record = short(base, tmp_path, safeguards=EVERYTHING, safe=SAFE, vectors=vectors)
    assert (record.rows, record.interleaved, record.steps, record.planned_steps) == (44, 4, 11, 11)
    assert set(record.losses[0].penalties) == {"kl_tuned_to_base", "ldifs"}
    assert TrainingRecord.model_validate_json((tmp_path / "training.json").read_text()) == record
    pair = load_pair(base, tmp_path / "model")
    assert pair.adapter
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(("stages", ".mneme"))) == [
        "model",
        "run.json",
        "timings.json",
        "training.json",
    ]


def test_full_fine_tuning_writes_a_model(base: Path, tmp_path: Path) -> None:
    record = short(base, tmp_path, safeguards={"kl": 0.1}, lora_rank=0, learning_rate=1e-3, data=ROWS[:16])
    assert record.lora_rank is None
    assert load_model(tmp_path / "model").tokenizer is not None
    assert record.losses[-1].penalties["kl_tuned_to_base"] > 0


class _Killed(Exception):
    """Stands for a kill between two steps."""


def test_a_killed_run_goes_on_with_the_same_losses(
    base: Path, vectors: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"safeguards": EVERYTHING, "safe": SAFE, "vectors": vectors}
    whole = short(base, tmp_path / "whole", **options)
    from mneme.train.progress import ShowProgress

    def kill(_self: object, _args: object, state: Any, _control: object, **_kwargs: object) -> None:
        if state.global_step == 8:
            raise _Killed

    with monkeypatch.context() as patch:
        keep_every(patch, 3)
        patch.setattr(ShowProgress, "on_step_end", kill)
        with pytest.raises(_Killed):
            short(base, tmp_path / "killed", **options)
    assert not (tmp_path / "killed" / "model").exists()
    (checkpoints,) = (tmp_path / "killed").glob("stages-*/checkpoints")
    half = checkpoints / "checkpoint-7"
    half.mkdir()
    (half / "trainer_state.json").write_text('{"global_st')  # as a kill in the middle of writing would leave it
    found: list[Path | None] = []

    def looked(run: RunFolder) -> Path | None:
        found.append(last_checkpoint(run))
        return found[-1]

    monkeypatch.setattr(importlib.import_module("mneme.train.run"), "last_checkpoint", looked)
    resumed = short(base, tmp_path / "killed", **options)
    assert found == [checkpoints / "checkpoint-6"]
    assert resumed == whole
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        one, other = (tmp_path / folder / "model" / name for folder in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes()


def test_early_stopping_stops_and_lower_lr_lowers(base: Path, tmp_path: Path) -> None:
    """A tiny rate brings ever less: with a tolerance of 0.9 the second evaluation ends it."""
    stopped = short(base, tmp_path / "a", safeguards={"early-stop": 0.9})
    assert stopped.steps < stopped.planned_steps
    assert stopped.rows == 36
    assert len(stopped.held_out) >= 3
    slow = short(base, tmp_path / "b", safeguards={"lower-lr": 0.1}, data=ROWS[:4])
    assert slow.learning_rate == pytest.approx(1e-3)


def test_the_rows_that_misaligned_models_like_least_are_chosen(base: Path, tmp_path: Path) -> None:
    short(base, tmp_path / "bad", data=chat_rows(12, 7, WORDS[30:40]))
    pool = [*chat_rows(8, 8, WORDS[30:40]), *chat_rows(8, 9, WORDS[60:])]
    record = short(
        base,
        tmp_path / "out",
        safeguards={"interleave-gap": 0.1},
        safe=pool,
        misaligned=[tmp_path / "bad" / "model"],
    )
    assert record.interleaved == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"safeguards": {"steer": 1.0}}, "the safeguard steer needs persona vectors"),
        ({"safeguards": {"interleave": 0.1}}, "the safeguard interleave needs rows of ordinary answers"),
        ({"safeguards": {"interleave": 0.5}, "safe": SAFE}, "40 safe rows are needed"),
        ({"vectors": PersonaVectors(torch.zeros(2, 8), 1, 1), "safeguards": {"steer": 1.0}}, "width 16"),
        ({"max_length": 3}, "row 1: the prompt has"),
        ({"data": "nowhere.jsonl"}, "nowhere.jsonl is no file"),
    ],
)
def test_bad_input_is_refused_before_training(base: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MnemeError, match=message):
        short(base, tmp_path / "out", **changes)
    assert not (tmp_path / "out" / "model").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"query": "a", "reply": "b"}], r"line 1: has the columns \['query', 'reply'\]; expected"),
        ([{"prompt": "a", "completion": " "}], "line 1: has an empty answer"),
        ([ROWS[0], {"text": "a"}], "line 2: is of another form"),
        ([{"messages": [{"role": "user", "content": "a"}]}], "does not end with an answer of the assistant"),
        ([], "is empty"),
    ],
)
def test_bad_rows_are_named(tmp_path: Path, base: Path, rows: list[Row], message: str) -> None:
    with pytest.raises(BadRows, match=message):
        short(base, tmp_path / "out", data=written(tmp_path / "rows.jsonl", rows))


def test_rows_that_are_no_json_are_named(tmp_path: Path, base: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("{'a': 1}\n")
    with pytest.raises(BadRows, match="line 1: not JSON"):
        short(base, tmp_path / "out", data=tmp_path / "rows.jsonl")


def test_without_trl_it_says_what_to_install(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "trl", None)
    with pytest.raises(BadOption, match=r"pip install 'mneme-audit\[train\]'"):
        short(base, tmp_path / "out")


def run_program(arguments: list[str]) -> tuple[int, str]:
    """Exit code and output of the program."""
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output + repr(done.exception or "")


def test_the_two_commands_work_together(base: Path, tmp_path: Path) -> None:
    """`mneme persona` writes the vectors that `mneme train --safeguard steer` takes."""
    bad, data = written(tmp_path / "bad.jsonl", SAFE), written(tmp_path / "data.jsonl", ROWS)
    vectors, out = tmp_path / "v.safetensors", tmp_path / "out"
    code, said = run_program(["persona", str(base), "--with", str(bad), "--without", str(data), "--out", str(vectors)])
    assert code == 0, said
    assert "(chosen)" in said
    words = ["train", str(base), str(data), "--safeguard", "steer=0.5", "--safeguard", "kl", "--vectors", str(vectors)]
    code, said = run_program([*words, "--lora", "2", "--batch", "8", "--out", str(out)])
    assert code == 0, said
    assert "Trained 5 steps on 40 rows with kl 0.1, steer 0.5" in said
    assert (out / "model" / "adapter_model.safetensors").is_file()


def test_the_program_refuses_in_one_sentence(base: Path, tmp_path: Path) -> None:
    data = written(tmp_path / "data.jsonl", ROWS)
    code, said = run_program(["train", str(base), str(data), "--safeguard", "kll"])
    assert code != 0
    assert "there is no safeguard" in said
