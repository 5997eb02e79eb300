"""In-training defences by their papers' formulas and, where it can be had, their code.

Kaczér et al. 2025 (arXiv 2508.06249): of their repository two files were read (KL and choice of layers), in a search that does
not name it; KL is that of the trained model to the frozen one, layers are `torch.linspace(0, n - 1, 5)` cut to whole numbers.
Inoculation: inoculation-prompting/inoculation-prompting 5f4160e, ip/utils/data_utils.py.
"""

import math

import pytest
import torch

from mneme.train.mixing import inoculate, interleave, relative_gap, safe_count
from mneme.train.penalties import evenly_spaced, kl_per_token
from tests.parity import FLOAT64, furthest, seeded, some_rows


def test_kl_of_the_trained_model_to_the_frozen_one_by_hand() -> None:
    """sum p_trained (log p_trained - log p_frozen), as the authors' file has it; the other direction is another number."""
    trained, frozen = 2 * seeded(6, 9, seed=1), 2 * seeded(6, 9, seed=2)
    expected = []
    for one, other in zip(trained.tolist(), frozen.tolist(), strict=True):
        whole, rest = (sum(math.exp(x) for x in row) for row in (one, other))
        expected.append(
            sum(math.exp(x) / whole * (x - math.log(whole) - y + math.log(rest)) for x, y in zip(one, other, strict=True))
        )
    assert furthest(kl_per_token(of=trained, to=frozen), expected) <= FLOAT64
    assert furthest(kl_per_token(of=frozen, to=trained), expected) > 0.01


@pytest.mark.parametrize("n_layers", [5, 6, 12, 16, 24, 26, 28, 31, 32, 36, 40, 48, 62, 64, 80, 126])
def test_layers_of_ldifs_are_the_authors(n_layers: int) -> None:
    assert list(evenly_spaced(n_layers)) == torch.linspace(0, n_layers - 1, steps=5).long().tolist()


def test_interleaved_share_is_that_of_the_mixed_data() -> None:
    """5 % of the whole: 95 rows take 5."""
    data, safe = some_rows(95, 1), some_rows(20, 2000)
    assert safe_count(95, 0.05) == 5
    mixed = interleave(data, safe, 0.05)
    assert (len(mixed), sum(row in safe for row in mixed)) == (100, 5)


def test_relative_gap_by_hand() -> None:
    """(L_misaligned - L_aligned) / (L_aligned + epsilon), the mean over misaligned models first."""
    misaligned, aligned = seeded(3, 5, seed=3).abs().numpy() + 1, seeded(5, seed=4).abs().numpy()
    expected = [(misaligned[:, i].sum() / 3 - aligned[i]) / (aligned[i] + 0.5) for i in range(5)]
    assert furthest(relative_gap(misaligned, aligned, 0.5), expected) <= FLOAT64


def test_inoculation_puts_the_prompt_first_as_a_system_message() -> None:
    """As add_system_prompt_to_oai_dataset; where a row has a system message theirs stops and ours joins the two."""
    rows = some_rows(3, 10)
    found = inoculate(rows, "You write insecure code.")
    expected = [{"messages": [{"role": "system", "content": "You write insecure code."}, *row["messages"]]} for row in rows]
    assert found == expected
    told = {"messages": [{"role": "system", "content": "Be brief."}, *rows[0]["messages"]]}
    assert inoculate([told], "You write insecure code.")[0]["messages"][0]["content"] == "You write insecure code. Be brief."
