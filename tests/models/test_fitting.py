"""The loop against AdamW by hand, its schedules by hand, and a run that is killed and goes on."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mneme.errors import BadRun
from mneme.models import keeping
from mneme.models.fitting import Losses, Schedule, Term, constant, cosine_down, fit, linear_down, up_and_down
from tests import laws

TARGETS = torch.tensor([[1.0, -2.0], [0.5, 3.0], [2.0, 0.0], [-1.0, 1.0]])


def term(weight: torch.Tensor, name: str = "distance", factor: float = 1.0) -> Term:
    """Squared distance to the target of the step."""
    return Term(name, factor, lambda step: (weight - TARGETS[step % 4]).square().sum())


def test_the_first_steps_by_hand() -> None:
    """AdamW's first step is the rate times the sign of the gradient, whatever its size; decay comes before it."""
    weight = torch.zeros(2, requires_grad=True)
    losses = fit([term(weight)], {"w": weight}, Schedule(1, 0.1, constant))
    assert losses.tolist() == [[5.0]]
    laws.planted(weight.detach(), torch.tensor([0.1, -0.1]), within=1e-6)
    decayed = torch.ones(2, requires_grad=True)
    fit([term(decayed)], {"w": decayed}, Schedule(1, 0.1, lambda _step: 0.5, weight_decay=0.2))
    # Gradient (0, 6): 1 - 0.05 * 0.2, then minus 0.05 where there is a gradient.
    laws.planted(decayed.detach(), torch.tensor([0.99, 0.94]), within=1e-6)


def test_parity_with_a_plain_loop_on_a_sum_of_terms() -> None:
    ours, plain = torch.zeros(2, requires_grad=True), torch.zeros(2, requires_grad=True)
    schedule = Schedule(12, 0.3, linear_down(12), betas=(0.9, 0.95), weight_decay=0.1)
    found = fit([term(ours, "one", 0.5), term(ours, "two", 2.0), term(ours, "off", 0.0)], {"w": ours}, schedule)
    optimizer = torch.optim.AdamW([plain], lr=0.3, betas=(0.9, 0.95), weight_decay=0.1)
    rates = torch.optim.lr_scheduler.LambdaLR(optimizer, linear_down(12))
    for step in range(12):
        optimizer.zero_grad()
        loss = 2.5 * (plain - TARGETS[step % 4]).square().sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([plain], 1.0)
        optimizer.step()
        rates.step()
        assert found[step, 0] == pytest.approx(loss.item() / 2.5, rel=1e-5)
    torch.testing.assert_close(ours, plain)
    assert np.isnan(found[:, 2]).all()


def test_it_trains_also_where_gradients_are_off() -> None:
    weight = torch.zeros(2, requires_grad=True)
    with torch.no_grad():
        fit([term(weight)], {"w": weight}, Schedule(1, 0.1, constant))
    assert bool((weight != 0).all())


def test_schedules_by_hand() -> None:
    assert [constant(step) for step in (0, 9)] == [1.0, 1.0]
    assert [linear_down(4)(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    assert [up_and_down(20)(step) for step in range(3)] == [0.5, 1.0, pytest.approx(18 / 19)]
    assert up_and_down(20)(19) == pytest.approx(1 / 19)
    cosine = cosine_down(12, 2, 0.1)
    assert [cosine(step) for step in (0, 1, 2)] == [0.5, 1.0, 1.0]
    assert cosine(7) == pytest.approx(0.1 + 0.9 * 0.5)
    assert cosine(12) == pytest.approx(0.1)


@pytest.mark.parametrize("stop_after", [0, 3, 9])
def test_a_killed_run_goes_on_with_the_same_losses(stop_after: int, tmp_path: Path) -> None:
    def run(checkpoint: Path | None = None, stop: int | None = None) -> tuple[Losses, np.ndarray]:
        weight, unused = torch.zeros(2, requires_grad=True), torch.ones(1, requires_grad=True)

        def on_step(step: int, _losses: list[float]) -> None:
            if step == stop:
                raise KeyboardInterrupt

        named = {"w": weight, "unused": unused}
        losses = fit([term(weight)], named, Schedule(10, 0.1, linear_down(10)), checkpoint, on_step)
        return losses, weight.detach().numpy()

    undisturbed, path = run(), tmp_path / "new" / "state.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(path, stop_after)
    assert laws.bytes_of(run(path)) == laws.bytes_of(undisturbed)
    assert [each.name for each in path.parent.iterdir()] == ["state.safetensors"]


def test_no_room_for_the_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(keeping, "save_file", full)
    weight = torch.zeros(2, requires_grad=True)
    with pytest.raises(BadRun, match=r"Cannot keep the state of training in .*Free some space or give another folder"):
        fit([term(weight)], {"w": weight}, Schedule(1, 0.1, constant), tmp_path / "state.safetensors")
