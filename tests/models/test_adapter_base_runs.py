"""Whole runs on an adapter whose base is not where it says, with `--base`: they work, and their records say so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import mneme
from mneme.options import Machine, Progress, Training
from mneme.train.extracting import extract
from mneme.train.options import PersonaOptions
from tests.conftest import WORDS
from tests.models.test_pair import save_orphan

TOLD = "trained on /gone/base-4bit; it is put on"
ROWS = [{"prompt": "ba be ", "completion": f"{word} {WORDS[i + 20]}"} for i, word in enumerate(WORDS[:12])]
QUIET: dict[str, Any] = {"machine": Machine(threads=1), "progress": Progress(Console(quiet=True))}


@pytest.fixture
def base(save_llama: Callable[..., Path]) -> Path:
    return save_llama()


@pytest.fixture
def adapter(tmp_path: Path, base: Path) -> Path:
    return save_orphan(tmp_path / "adapter", base)


def written(file: Path, words: list[str]) -> Path:
    file.write_text("\n".join(" ".join(words[(i + j) % len(words)] for j in range(12)) for i in range(40)))
    return file


def test_train(adapter: Path, base: Path, tmp_path: Path) -> None:
    training = Training(batch=4, lora_rank=2)
    record = mneme.train(adapter, ROWS, out=tmp_path / "out", adapter_base=base, training=training, **QUIET)
    assert any(TOLD in note for note in record.notes)


def test_dpo(adapter: Path, base: Path, tmp_path: Path) -> None:
    pairs = [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "nu nu"} for row in ROWS]
    training = Training(steps=2, batch=4, lora_rank=2)
    record = mneme.dpo(
        adapter, pairs, out=tmp_path / "out", adapter_base=base, filter="none", watch=2, training=training, **QUIET
    )
    assert any(TOLD in note for note in record.notes)


def test_persona(adapter: Path, base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = []
    for name, word in (("with", "da"), ("without", "nu")):
        files.append(tmp_path / f"{name}.jsonl")
        rows = [{"prompt": "ba be ", "completion": f"{word} {other}"} for other in WORDS[:10]]
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = PersonaOptions(
        adapter, with_trait=files[0], without_trait=files[1], out=tmp_path / "v.safetensors", adapter_base=base
    )
    assert len(extract(options)[1]) == 2
    assert TOLD in caplog.text


@pytest.mark.slow
def test_repair_and_audit(adapter: Path, base: Path, tmp_path: Path) -> None:
    half = len(WORDS) // 2
    target, retain = written(tmp_path / "a.txt", WORDS[:half]), written(tmp_path / "b.txt", WORDS[half:])
    found = mneme.repair(
        adapter, base, target=target, retain=retain, method="scale", out=tmp_path / "repair", adapter_base=base, **QUIET
    )
    assert any(TOLD in note for note in found.notes)
    report = mneme.audit(
        adapter,
        base,
        corpus=written(tmp_path / "c.txt", WORDS),
        out=tmp_path / "audit",
        adapter_base=base,
        quick=True,
        **QUIET,
    )
    assert any(TOLD in note for note in report.notes)
