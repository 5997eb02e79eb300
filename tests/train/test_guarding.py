"""Penalties through the real TRL trainer: weight 0 is the plain run, gradients are true, batching does not matter."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import trl
from packaging.version import Version
from transformers import Trainer
from trl import SFTTrainer

from mneme.errors import BadOption
from mneme.train.guarding import guard
from mneme.train.penalties import Penalty, Probes, kl_base_to_tuned, kl_tuned_to_base, ldifs
from tests import laws
from tests.conftest import tiny_llama
from tests.train.conftest import chat_rows, gradients_of_one_step, step_losses, weights_after, with_lora

Build = Callable[..., Trainer]
PROBES = Probes(chat_rows(6, seed=5), batch_rows=3)
Make = Callable[[float], list[Penalty]]
TOGETHER: dict[str, Make] = {
    "batch": lambda weight: [kl_tuned_to_base(weight), kl_base_to_tuned(2 * weight), ldifs(weight)],
    "probes": lambda w: [kl_tuned_to_base(w, PROBES), kl_base_to_tuned(2 * w, PROBES), ldifs(w, PROBES)],
}
"""Three penalties at once: what holds of their sum for several weights holds of each."""
EACH: dict[str, Make] = {
    f"{name}-{place}": (lambda weight, i=i, make=make: [make(weight)[i]])
    for place, make in TOGETHER.items()
    for i, name in enumerate(("kl", "reverse", "ldifs"))
}
every_penalty = pytest.mark.parametrize("make", TOGETHER.values(), ids=TOGETHER)
slowly = pytest.mark.slow
each_penalty = pytest.mark.parametrize(
    "make", [*TOGETHER.values(), *(pytest.param(make, marks=slowly) for make in EACH.values())], ids=[*TOGETHER, *EACH]
)


@every_penalty
def test_weight_0_is_the_plain_run_step_by_step(trainer_of: Build, make: Make) -> None:
    plain, guarded = trainer_of(), trainer_of(guard(SFTTrainer, make(0.0)))
    laws.zero_strength(weights_after(plain), weights_after(guarded))
    laws.zero_strength(step_losses(plain), step_losses(guarded))


@each_penalty
def test_a_weight_changes_the_run_and_is_logged(trainer_of: Build, make: Make) -> None:
    """The public pattern with `return_outputs=True` moved nothing at any weight."""
    plain, guarded = weights_after(trainer_of()), trainer_of(guard(SFTTrainer, make(1.0)))
    moved = weights_after(guarded)
    assert max(float((plain[name] - moved[name]).abs().max()) for name in plain) > 1e-3
    logged = [e for e in guarded.state.log_history if "loss" in e]
    assert all(e[f"penalty/{penalty.name}"] > 0 for e in logged for penalty in make(1.0))


@every_penalty
@pytest.mark.parametrize("full", [False, True], ids=["lora", "full"])
def test_gradients_are_true_by_finite_differences(trainer_of: Build, make: Make, full: bool) -> None:
    """In float64: the gradient that the trainer accumulates against differences of the loss that it computes."""
    model = (tiny_llama() if full else with_lora(tiny_llama())).double()
    settings: dict[str, Any] = {"max_grad_norm": 0.0, "max_steps": 1, "model": model}
    guarded = trainer_of(guard(SFTTrainer, make(3.0)), **settings)
    if full:  # the reference is the model as given, so the tuned one has to be moved before anything can differ
        generator = torch.Generator().manual_seed(3)
        for weight in guarded.model.parameters():
            weight.data += 0.02 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    watch = guarded._watch
    batch = next(iter(guarded.get_train_dataloader()))
    count = (batch["labels"][:, 1:] != -100).sum()
    guarded.model.train()

    def penalty() -> torch.Tensor:
        watch.probed_at = -1
        guarded.current_gradient_accumulation_steps = 1
        with_penalty = guarded.compute_loss(guarded.model, dict(batch), num_items_in_batch=count)
        return with_penalty - SFTTrainer.compute_loss(guarded, guarded.model, dict(batch), num_items_in_batch=count)

    guarded.model.zero_grad()
    penalty().backward()
    trained = {n: w for n, w in guarded.model.named_parameters() if w.requires_grad}
    generator = torch.Generator().manual_seed(1)
    for name in sorted(trained)[:: max(1, len(trained) // 6)]:
        weight = trained[name]
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        expected = float((weight.grad * direction).sum())
        with torch.no_grad():
            weight += 1e-3 * direction
            above = float(penalty())
            weight -= 2e-3 * direction
            below = float(penalty())
            weight += 1e-3 * direction
        measured = (above - below) / 2e-3
        # The norms of a Llama are computed in float32 whatever the model is.
        assert measured == pytest.approx(expected, rel=2e-3, abs=1e-3), name


@every_penalty
@pytest.mark.parametrize(
    "changes", [{"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4}], ids=["accumulated"]
)
def test_gradient_accumulation_changes_nothing(trainer_of: Build, make: Make, changes: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"max_grad_norm": 0.0, "max_steps": 1}
    whole = gradients_of_one_step(trainer_of(guard(SFTTrainer, make(2.0)), **settings))
    parts = gradients_of_one_step(trainer_of(guard(SFTTrainer, make(2.0)), **settings, **changes))
    laws.padding(whole, parts, tolerance=2e-5)


@every_penalty
@pytest.mark.parametrize(
    "changes",
    [
        {"pad_to_multiple_of": 64},
        {"padding_free": True, "max_length": None},
        pytest.param({"gradient_checkpointing": True}, marks=slowly),
        pytest.param({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}, marks=slowly),
    ],
    ids=["padded", "padding-free", "checkpointed", "reentrant"],
)
def test_padding_packing_and_checkpointing_change_nothing(trainer_of: Build, make: Make, changes: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"max_grad_norm": 0.0, "max_steps": 1}
    one = gradients_of_one_step(trainer_of(guard(SFTTrainer, make(2.0)), **settings))
    other = gradients_of_one_step(trainer_of(guard(SFTTrainer, make(2.0)), **(settings | changes)))
    laws.padding(one, other, tolerance=2e-5)


@every_penalty
def test_packing_changes_nothing(trainer_of: Build, make: Make) -> None:
    """All twelve rows in one step, each in a line of its own, or several in a line."""
    settings: dict[str, Any] = {"max_grad_norm": 0.0, "max_steps": 1, "per_device_train_batch_size": 12}
    rows = gradients_of_one_step(trainer_of(guard(SFTTrainer, make(2.0)), **settings))
    packed = trainer_of(guard(SFTTrainer, make(2.0)), **settings, packing=True)
    assert 1 < len(packed.train_dataset) < 12
    laws.padding(rows, gradients_of_one_step(packed), tolerance=2e-5)


@every_penalty
def test_an_adapter_that_does_nothing_has_no_penalty(trainer_of: Build, make: Make) -> None:
    guarded = trainer_of(guard(SFTTrainer, make(1.0)), model=with_lora(tiny_llama(), started=False), max_steps=1)
    weights_after(guarded)
    (entry,) = [e for e in guarded.state.log_history if "loss" in e]
    laws.identity([entry[f"penalty/{penalty.name}"] for penalty in make(1.0)])


@pytest.mark.skipif(Version(trl.__version__) < Version("1.16"), reason="TRL 1.9 cannot smooth labels at all")
def test_a_loss_that_hides_the_gradient_is_refused(trainer_of: Build) -> None:
    """Label smoothing feeds the metrics by a second pass, without a gradient, which is what the hooks see last."""
    guarded = trainer_of(guard(SFTTrainer, [kl_tuned_to_base(1.0)]), label_smoothing_factor=0.1)
    with pytest.raises(BadOption, match="has no gradient, so a penalty on it would do nothing"):
        weights_after(guarded)


def test_bad_penalties_are_refused(trainer_of: Build) -> None:
    with pytest.raises(BadOption, match="weight -1 makes no sense"):
        kl_tuned_to_base(-1.0)
    with pytest.raises(BadOption, match="two penalties are called ldifs"):
        guard(SFTTrainer, [ldifs(1.0), ldifs(2.0)])
    with pytest.raises(BadOption, match="layer 7 does not exist"):
        trainer_of(guard(SFTTrainer, [ldifs(1.0, layers=[7])]))
    with pytest.raises(BadOption, match="at least one probe row"):
        trainer_of(guard(SFTTrainer, [kl_tuned_to_base(1.0, Probes([]))]))


def test_determinism(trainer_of: Build) -> None:
    laws.determinism(lambda: weights_after(trainer_of(guard(SFTTrainer, TOGETHER["probes"](0.5)))))
