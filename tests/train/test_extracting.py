"""`mneme persona` end to end: its vectors are those of the methods, in pieces that a kill does not lose."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mneme.errors import BadRun
from mneme.models.pair import load_model
from mneme.options import Machine, Progress
from mneme.text.rows import read_rows
from mneme.train import extracting
from mneme.train.extracting import extract, parts_folder
from mneme.train.options import PersonaOptions
from mneme.train.personas import load_personas, persona_vectors, steering_effects
from tests.conftest import WORDS, TinyPair

QUIET = Progress(Console(quiet=True))
ROWS = 10
PIECES = 2 * 8 + 2 * 2 * 3
"""Of answers, and of steering: no layer and both, of two texts."""


@pytest.fixture
def asked(tiny_pair: TinyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PersonaOptions:
    """Vectors in pieces of one text, each of which is kept at once."""
    monkeypatch.setattr("mneme.models.kept_readings.kept_tokens", lambda *_given: 1)
    monkeypatch.setattr("mneme.runs.folder.KEPT_SECONDS", 0.0)
    for name, words in (("with", WORDS[:ROWS]), ("without", WORDS[ROWS : 2 * ROWS])):
        rows = [{"prompt": "ba be ", "completion": " ".join([word] * (1 + i % 3))} for i, word in enumerate(words)]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return PersonaOptions(
        tiny_pair.base,
        with_trait=tmp_path / "with.jsonl",
        without_trait=tmp_path / "without.jsonl",
        out=tmp_path / "new" / "v.safetensors",
        machine=Machine(threads=1),
        progress=QUIET,
    )


def there(asked: PersonaOptions) -> list[str]:
    return sorted(path.name for path in Path(asked.out).parent.iterdir())


def test_pieces_add_up_to_what_the_methods_say(asked: PersonaOptions) -> None:
    made, effects = extract(asked)
    loaded = load_model(asked.model)
    sets = [read_rows(file).rows for file in (asked.with_trait, asked.without_trait)]
    used = [[row for i, row in enumerate(rows) if i % 5 != 4] for rows in sets]
    direct = persona_vectors(loaded.parts, loaded.tokenizer, *used)
    np.testing.assert_allclose(made.vectors, direct.vectors, atol=1e-6)
    steered = steering_effects(loaded.parts, loaded.tokenizer, direct, *(rows[4::5] for rows in sets))
    np.testing.assert_allclose([one.plain for one in effects], [one.plain for one in steered], atol=1e-6)
    assert (made.n_with, made.n_without) == (8, 8)
    assert there(asked) == ["v.safetensors"]  # nothing of the parts
    assert load_personas(Path(asked.out)).layer == made.layer


@pytest.mark.parametrize("at", [20, *(pytest.param(at, marks=pytest.mark.slow) for at in (1, 12, 16, 17, PIECES))])
def test_a_kill_costs_one_piece(asked: PersonaOptions, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """The piece number `at` was never finished; all others are made once."""
    extract(asked)
    whole = Path(asked.out).read_bytes()
    Path(asked.out).unlink()
    done = 0

    def counting(name: str, last: int) -> Any:
        real = getattr(extracting, name)

        def counted(*given: Any) -> Any:
            nonlocal done
            done += 1
            if done == last:
                raise KeyboardInterrupt
            return real(*given)

        return counted

    for last in (at, 0):
        with monkeypatch.context() as patch:
            patch.setattr(extracting, "_plan", lambda *_given: "")  # which reads too
            patch.setattr(extracting, "answer_sum", counting("answer_sum", last))
            patch.setattr(extracting, "steered_nll", counting("steered_nll", last))
            done = 0
            if last:
                with pytest.raises(KeyboardInterrupt):
                    extract(asked)
                assert there(asked) == ["v.safetensors.parts"]
            else:
                extract(asked)
    assert done == PIECES - (at - 1)
    assert Path(asked.out).read_bytes() == whole
    assert there(asked) == ["v.safetensors"]


def test_vectors_that_came_in_between_stay(asked: PersonaOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two runs into one file the second is refused at its end, and leaves nothing."""
    out, write = Path(asked.out), extracting.personas_file

    def late(made: Any) -> bytes:
        out.write_bytes(b"of somebody else")
        return write(made)

    monkeypatch.setattr(extracting, "personas_file", late)
    with pytest.raises(BadRun, match="holds no persona vectors"):
        extract(asked)
    assert out.read_bytes() == b"of somebody else"
    assert there(asked) == ["v.safetensors"]


def test_a_kill_after_the_vectors_were_written(asked: PersonaOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(_run: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mneme.runs.folder.RunFolder.discard", stopped)
        with pytest.raises(KeyboardInterrupt):
            extract(asked)
    whole = Path(asked.out).read_bytes()
    assert there(asked) == ["v.safetensors", "v.safetensors.parts"]
    extract(asked)
    assert Path(asked.out).read_bytes() == whole
    assert there(asked) == ["v.safetensors"]
    with pytest.raises(BadRun, match="holds persona vectors already"):
        extract(asked)


def test_a_folder_of_others_called_like_the_parts_stays(asked: PersonaOptions) -> None:
    folder = parts_folder(asked.out)
    folder.mkdir(parents=True)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(BadRun, match="did not write"):
        extract(asked)
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
