"""What a dropped entry of a change is made up for with: SparseGPT, IRR and Safe Delta against the authors' code.

All three pass it on to the columns on the right by the Cholesky factor of the damped inverse Hessian. Which entries go is
theirs, read off what they give: by design each has another score. Repositories and commits: numbers.json.
"""

import pytest
import torch
from torch import Tensor

from mneme.repair.obs import _compensated, inverse_factor, obs
from tests.parity import FLOAT32, authors_numbers, furthest, seeded

WIDTH, ROWS, TOKENS = 140, 2, 400
"""More inputs than one block of 128 columns."""
DAMPING = 0.01


def inputs() -> Tensor:
    """[token input], inputs of different size and correlated neighbours."""
    drawn = seeded(TOKENS, WIDTH, seed=31)
    return ((drawn + 0.5 * drawn.roll(1, 1)) * torch.linspace(0.5, 2, WIDTH, dtype=torch.float64)).float()


def change() -> Tensor:
    return seeded(ROWS, WIDTH, seed=32, dtype=torch.float32)


def base() -> Tensor:
    return seeded(ROWS, WIDTH, seed=33, dtype=torch.float32)


def compensated(delta: Tensor, dropped: Tensor) -> Tensor:
    gram = inputs().T @ inputs() / TOKENS
    return _compensated(delta, dropped, inverse_factor(gram, DAMPING))


@pytest.mark.parametrize("name", ["sparsegpt", "irr"])
def test_columns_on_the_right_make_up_for_what_goes(name: str) -> None:
    """SparseGPT on a weight, half of it pruned; IRR on a change, without its entries of another sign and high Fisher
    information."""
    expected = torch.tensor(authors_numbers(name))
    dropped = expected == 0
    assert 0.2 < float(dropped.double().mean()) < 0.6
    found = compensated(change(), dropped)
    assert furthest(found, expected) <= FLOAT32
    assert furthest(found, change() * ~dropped) > 0.05


def test_safe_delta_is_the_same_with_the_two_models_exchanged() -> None:
    """It adds entries of the change to the aligned weight and makes up for them there: here, entries of aligned minus tuned
    are dropped. One column at a time; their runner takes four at once and leaves out what these owe each other."""
    expected = authors_numbers("safedelta")
    aligned, tuned = base(), base() + change()
    taken = torch.tensor(expected["taken"]).bool()
    found = tuned + compensated(aligned - tuned, taken)
    assert furthest(found, expected["one_column_at_a_time"]) <= FLOAT32
    assert 0.001 < furthest(found, expected["four_columns_at_a_time"]) < 0.5


def test_the_cost_of_an_entry_is_that_before_anything_went() -> None:
    """Ours divides by the diagonal of the inverse Hessian of all columns; SparseGPT by that of the columns from this one on,
    the square of the factor's diagonal. They are the same in the first column only."""
    factor = inverse_factor(inputs().T @ inputs() / TOKENS, DAMPING)
    ours, theirs = factor.square().sum(0), factor.diagonal().square()
    assert furthest(ours[:1], theirs[:1]) <= FLOAT32
    assert bool((ours[1:] > theirs[1:]).all())
    gram = inputs().T @ inputs() / TOKENS
    dropped = obs(change(), torch.eye(WIDTH), gram, 0.5, damping=DAMPING) == 0
    assert int(dropped.sum()) == ROWS * WIDTH // 2
