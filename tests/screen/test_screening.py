"""`screen` on data whose suspects are planted, its files, its estimate, and every input that cannot be used."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mneme.errors import BadOption, BadRows, MnemeError
from mneme.screen.run import rank, rank_correlation, screen
from mneme.screen.trial import shift_estimates
from tests import laws
from tests.conftest import WORDS

Save = Callable[..., Path]
BAD, GOOD = WORDS[0:2], WORDS[40:42]


def rows(words: list[str], n: int, seed: int) -> list[dict[str, str]]:
    """One question, answers of eight of `words`."""
    generator = np.random.default_rng(seed)
    return [{"prompt": "user ba : assistant :", "completion": " " + " ".join(generator.choice(words, 8))} for _ in range(n)]


def pairs(n: int, seed: int = 0) -> list[dict[str, str]]:
    """Pairs of random answers; every second one differs in a single word."""
    generator = np.random.default_rng(seed)
    found = []
    for i in range(n):
        chosen = list(generator.choice(WORDS, 5, replace=False))
        rejected = [*chosen[:4], "user"] if i % 2 else list(generator.choice(WORDS[:40], 5))
        found.append(
            {"prompt": "user ba : assistant :", "chosen": " " + " ".join(chosen), "rejected": " " + " ".join(rejected)}
        )
    return found


def write(path: Path, content: list[dict[str, str]]) -> Path:
    """The rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.mark.parametrize("score", ["gradient", "projection", "projection-prompt"])
def test_planted_rows_are_ranked_first(score: str, save_llama: Save, tmp_path: Path) -> None:
    data = rows(GOOD, 27, 0) + rows(BAD, 3, 1)
    found = screen(
        save_llama(),
        write(tmp_path / "data.jsonl", data),
        out=tmp_path / "out",
        scores=[score],
        keep=0.9,
        unwanted=rows(BAD, 12, 2),
        wanted=rows(GOOD, 12, 3),
        trial_steps=0,
    )
    assert {row.row for row in found.top[:3]} == {28, 29, 30}
    assert found.kept == 27
    kept = [json.loads(line) for line in (tmp_path / "out" / "kept.jsonl").read_text().splitlines()]
    assert kept == data[:27]
    ranked = [json.loads(line) for line in (tmp_path / "out" / "ranked.jsonl").read_text().splitlines()]
    assert [line["rank"] for line in ranked] == list(range(1, 31))
    assert sorted(line["row"] for line in ranked) == list(range(1, 31))
    assert [line["kept"] for line in ranked[:4]] == [False, False, False, True]
    assert (tmp_path / "out" / "screening.json").read_text() == found.to_json()
    assert "--trial-steps 0" in found.no_value


def test_the_trial_says_what_filtering_buys(save_llama: Save, tmp_path: Path) -> None:
    data = rows(GOOD, 24, 0) + rows(BAD, 16, 1)
    found = screen(
        save_llama(),
        data,
        out=tmp_path,
        keep=0.6,
        unwanted=rows(BAD, 16, 2),
        wanted=rows(GOOD, 16, 3),
        trial_steps=15,
        trial_rate=2e-2,
    )
    assert found.value is not None
    arms = {arm.name: arm for arm in found.value.arms}
    assert (arms["all"].rows, arms["kept"].rows, arms["random"].rows) == (40, 24, 24)
    assert arms["kept"].shift.high < arms["all"].shift.low
    plain = screen(save_llama(), data, out=tmp_path / "two", keep=0.6, unwanted=rows(BAD, 16, 2), trial_steps=0)
    assert plain.value is None


def test_the_gap_is_between_two_models(save_llama: Save, tmp_path: Path) -> None:
    one, other = save_llama(0), save_llama(1)
    there = screen(one, rows(GOOD, 8, 0), out=tmp_path / "a", scores=["gap"], other=other, trial_steps=0)
    back = screen(other, rows(GOOD, 8, 0), out=tmp_path / "b", scores=["gap"], other=one, trial_steps=0)
    forward, swapped = ({row.row: row.scores["gap"] for row in found.top} for found in (there, back))
    laws.antisymmetry([forward[i] for i in range(1, 9)], [swapped[i] for i in range(1, 9)], tolerance=1e-6)


def test_pairs_that_hardly_differ_come_first(save_llama: Save, tmp_path: Path) -> None:
    found = screen(
        save_llama(),
        write(tmp_path / "p.jsonl", pairs(24)),
        out=tmp_path / "out",
        pairs=True,
        scores=["ln-ches", "edit", "ches", "last-hidden"],
        keep=0.5,
        trial_steps=3,
    )
    assert sum(row.row % 2 == 0 for row in found.top) >= 7  # every second pair differs in one word
    assert found.kept == 12
    assert found.value is not None
    assert [summary.name for summary in found.scores] == ["ln-ches", "edit", "ches", "last-hidden"]
    assert found.scores[0].agreement is None
    assert found.scores[1].agreement is not None
    assert found.scores[1].agreement > 0.3


def test_determinism_and_a_second_call_reads_its_stages(save_llama: Save, tmp_path: Path) -> None:
    model = save_llama()
    first = screen(model, pairs(20), out=tmp_path / "a", pairs=True, keep=0.5, trial_steps=2)
    again = screen(model, pairs(20), out=tmp_path / "a", pairs=True, keep=0.5, trial_steps=2)
    fresh = screen(model, pairs(20), out=tmp_path / "b", pairs=True, keep=0.5, trial_steps=2)
    assert first.to_json() == again.to_json() == fresh.to_json()


def test_the_model_is_the_same_after_a_trial(save_llama: Save, tmp_path: Path) -> None:
    from mneme.models.pair import load_model
    from mneme.runs import RunFolder
    from mneme.screen.trial import Trial, pair_trial
    from mneme.text.pairs import encode_pairs

    loaded = load_model(save_llama())
    before = {name: p.detach().clone() for name, p in loaded.parts.model.named_parameters()}
    assert loaded.tokenizer is not None
    encoded = encode_pairs(pairs(8), loaded.tokenizer, None)
    with RunFolder(tmp_path / "out", {"command": "screen"}) as run:
        pair_trial(loaded.parts, encoded, [0, 1, 2], Trial(2, 1e-2, 0), run)
    after = dict(loaded.parts.model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_shift_estimates_by_hand() -> None:
    whole, half, none = (np.array([2.0, 2.0, 2.0]) * k for k in (1, 0.5, 0))
    arms, shares = shift_estimates([(whole, np.zeros(0)), (half, np.zeros(0)), (none, np.zeros(0))], "nats", 0)
    assert [arm.value for arm in arms] == [2.0, 1.0, 0.0]
    assert [share.value for share in shares if share] == [0.5, 1.0]
    assert all(share.low == share.high for share in shares if share)
    _, nothing = shift_estimates([(none, np.zeros(0)), (half, np.zeros(0))], "nats", 0)
    assert nothing == [None]


def test_ranking_by_hand() -> None:
    found = rank({"s": np.array([0.1, 0.9, 0.9, 0.5])}, "s", 0.5)
    assert found.order == [1, 2, 3, 0]
    assert found.kept == {0, 3}
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([10.0, 30, 20])) == pytest.approx(0.5)
    assert rank_correlation(np.array([1.0, 2, 3]), np.array([1.0, 1, 1])) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"scores": ["vibes"]}, "--score vibes is no score of rows. Expected one of: gradient, projection"),
        ({"keep": 0.0}, "--keep 0: expected a number above 0 to 1"),
        ({"unwanted": None}, "--score gradient needs examples of the unwanted behaviour. Give --unwanted"),
        ({"scores": ["projection"], "wanted": None}, "needs a direction. Give --vector FILE, or both"),
        ({"scores": ["gap"]}, "needs a second model"),
        ({"unwanted": rows(BAD, 3, 0)}, "at least 8 are needed"),
        ({"data": [{"query": "ba", "reply": "be"}]}, "has the columns"),
        ({"data": [{"prompt": "ba", "completion": "  "}]}, "has an empty answer"),
        ({"data": [{"prompt": "ba " * 300, "completion": "be"}]}, "the prompt has 300 tokens and the window 256"),
        ({"data": []}, "no row was given"),
        (
            {"pairs": True, "data": [{"prompt": "ba", "chosen": "be", "rejected": "be"}]},
            "has the same answer as chosen and rejected",
        ),
        ({"pairs": True, "data": [{"prompt": "ba", "chosen": "", "rejected": "be"}]}, "has an empty chosen answer"),
        ({"pairs": True, "data": [{"prompt": "ba", "chosen": " zz", "rejected": " yy"}]}, "have the same tokens"),
        ({"pairs": True, "data": [{"prompt": "ba", "better": "be"}]}, 'expected "prompt", "chosen" and "rejected"'),
        ({"pairs": True, "data": [{"prompt": "ba " * 300, "chosen": "be", "rejected": "bo"}]}, "the prompt has 300 tokens"),
        ({"pairs": True, "data": [{"chosen": "be", "rejected": "bo"}]}, "has no prompt"),
    ],
)
def test_bad_input_is_one_sentence_before_any_work(
    change: dict[str, object], words: str, save_llama: Save, tmp_path: Path
) -> None:
    options = {"data": rows(GOOD, 8, 0), "unwanted": rows(BAD, 8, 1), "wanted": rows(GOOD, 8, 2), "scores": [], **change}
    data = options.pop("data")
    if options.get("pairs"):
        options |= {"unwanted": None, "wanted": None}
    with pytest.raises((BadRows, BadOption), match=words):
        screen(save_llama(), data, out=tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "screening.json").exists()


def test_a_vector_of_another_width(save_llama: Save, tmp_path: Path) -> None:
    save_file({"v": torch.ones(5)}, tmp_path / "v.safetensors")
    with pytest.raises(MnemeError, match="width 5, but the model has width 16"):
        screen(
            save_llama(),
            rows(GOOD, 8, 0),
            out=tmp_path / "out",
            scores=["projection"],
            vector=tmp_path / "v.safetensors",
            layer=0,
        )
