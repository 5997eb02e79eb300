"""Antidote, Safe LoRA, DARE, task vectors, WiSE-FT, RegMean against the authors' code (repository, commit: numbers.json)."""

import pytest
import torch

from mneme.repair.antidote import antidote
from mneme.repair.arithmetic import arithmetic, dare
from mneme.repair.controls import scale
from mneme.repair.projection import alignment_projector, likeness, project
from mneme.repair.regmean import regmean
from tests.parity import FLOAT32, FLOAT64, authors_numbers, furthest, seeded

DTYPES = {"float32": (torch.float32, FLOAT32), "float64": (torch.float64, FLOAT64)}


@pytest.mark.parametrize("key", authors_numbers("antidote"))
def test_antidote_prunes_the_entries_that_the_authors_prune(key: str) -> None:
    """Entry for entry, of rows of 8 (a LoRA factor), 32 and 256 inputs, at five of the authors' settings."""
    width, alpha = int(key.split(",")[0]), float(key.split(",")[1])
    expected = authors_numbers("antidote")[key]
    inputs = [seeded(n, width, seed=10 + n, dtype=torch.float32) * torch.linspace(0.2, 2, width) for n in (5, 9, 3)]
    weight = seeded(len(expected), width, seed=1, dtype=torch.float32)
    pruned = antidote(weight, torch.cat(inputs).square().mean(0), alpha)
    assert [row.nonzero().flatten().tolist() for row in pruned == 0] == expected


def test_antidote_prunes_how_many_the_authors_prune() -> None:
    """26 of 256 at alpha .1, one of a factor of rank 8, one of 256 at their full-fine-tuning setting of 1e-5."""
    counts = {key: {len(row) for row in rows} for key, rows in authors_numbers("antidote").items()}
    assert (counts["256,0.1"], counts["8,0.1"], counts["256,1e-05"]) == ({26}, {1}, {1})


@pytest.mark.parametrize("name", DTYPES)
def test_safe_lora_with_the_published_matrix(name: str) -> None:
    """C = V V^T / |V|, the projected change, and the cosine by which layers are chosen."""
    dtype, tolerance = DTYPES[name]
    expected = authors_numbers(f"safelora_{name}")
    alignment = seeded(6, 8, seed=41, dtype=dtype) - seeded(6, 8, seed=42, dtype=dtype)
    delta = seeded(6, 2, seed=43, dtype=dtype) @ seeded(2, 8, seed=44, dtype=dtype)
    matrix = alignment_projector(alignment, "published")
    assert furthest(matrix, expected["C"]) <= tolerance
    assert furthest(project(delta, matrix), expected["change"]) <= tolerance
    assert furthest(likeness(matrix, delta), expected["cos"]) <= tolerance


def test_dare_rescales_what_it_keeps_as_the_authors_do() -> None:
    """The authors draw their mask from torch's own generator, ours has a seed of its own: given which entries were kept, the
    values are theirs; and as many are dropped as the rate says."""
    expected = authors_numbers("dare")
    delta, rate = seeded(6, 8, seed=51), 0.3
    authors_kept = torch.tensor(expected["mask"]) == 0
    values = torch.tensor(expected["kept"], dtype=torch.float64)
    found = dare(delta, rate, seed=0)
    both = authors_kept & (found != 0)
    assert int(both.sum()) > 5
    assert furthest(found[both], values[both]) <= FLOAT64
    dropped = dare(seeded(200, 500, seed=53), rate, seed=1) == 0
    assert float(dropped.double().mean()) == pytest.approx(rate, abs=4 * (rate * (1 - rate) / 1e5) ** 0.5)


def test_task_arithmetic_is_a_sum_of_task_vectors() -> None:
    """(tuned - base) + 1 x (aligned - unaligned), as the sum of two TaskVectors."""
    expected = authors_numbers("arith")
    base, tuned, aligned, unaligned = (seeded(4, 5, seed=seed) for seed in (61, 62, 63, 64))
    assert furthest(arithmetic(tuned - base, aligned - unaligned, 1.0), expected["sum1"]) <= FLOAT64
    assert furthest(arithmetic(torch.zeros(4, 5).double(), aligned - unaligned, 1.0), expected["neg"]) <= FLOAT64


@pytest.mark.parametrize("alpha", authors_numbers("wise_ft"))
def test_a_smaller_change_is_their_interpolation(alpha: str) -> None:
    """(1 - alpha) x base + alpha x tuned is the base and the change at strength 1 - alpha."""
    base, tuned = seeded(4, 5, seed=61), seeded(4, 5, seed=62)
    assert furthest(base + scale(tuned - base, 1 - float(alpha)), authors_numbers("wise_ft")[alpha]) <= FLOAT64


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8])
def test_regmean_of_the_tuned_and_the_base_model(name: str, strength: float) -> None:
    """Merged by the authors: the tuned model with its Gram on the retained text and coefficient 1 - s, the base with its Gram
    on the target and coefficient s. Ours is the change from the base, without damping; theirs keeps the Gram whole here."""
    dtype, tolerance = DTYPES[name]
    expected = authors_numbers(f"regmean_{name}")[str(strength)]
    retain = seeded(40, 8, seed=71, dtype=dtype)
    target = seeded(40, 8, seed=72, dtype=dtype) * torch.linspace(0.5, 2, 8, dtype=dtype)
    base, tuned = seeded(5, 8, seed=73, dtype=dtype), seeded(5, 8, seed=74, dtype=dtype)
    change = regmean(tuned - base, target.T @ target / 40, retain.T @ retain / 40, strength, damping=0.0)
    assert furthest(base + change, expected) <= tolerance
