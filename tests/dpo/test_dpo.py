"""DPO with fixes against plain TRL: laws through the real trainer, the formulas by hand, the monitor, the band."""

import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, disable_progress_bars
from trl import DPOConfig, DPOTrainer

from mneme.dpo.band import watch_pairs
from mneme.dpo.guarding import guard_dpo
from mneme.dpo.losses import band_test, calibration_factor, dpop_loss
from mneme.dpo.monitor import DisplacementMonitor
from mneme.dpo.run import dpo
from mneme.errors import BadOption, BadRows
from mneme.models.preference import dpo_loss
from tests import laws
from tests.conftest import grouped, keep_every, tiny_llama, word_tokenizer
from tests.screen.test_screening import pairs

Save = Callable[..., Path]
disable_progress_bars()


def run(
    tmp_path: Path,
    trainer_class: Any = DPOTrainer,
    *,
    batch: int = 4,
    accumulate: int = 1,
    steps: int = 3,
    ref_model: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """Losses and weights after a few steps of a trainer from the same start."""
    model = tiny_llama()
    model.config.name_or_path = "tiny"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = trainer_class(
            model=model,
            ref_model=ref_model,
            args=DPOConfig(
                output_dir=str(tmp_path),
                per_device_train_batch_size=batch,
                gradient_accumulation_steps=accumulate,
                max_steps=steps,
                learning_rate=1e-2,
                lr_scheduler_type="constant",
                max_grad_norm=0.0,
                optim="sgd",
                precompute_ref_log_probs=True,
                gradient_checkpointing=False,
                use_cpu=True,
                bf16=False,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                **options,
            ),
            train_dataset=Dataset.from_list(pairs(12)),
            processing_class=word_tokenizer(),
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "weights": [p.detach().clone() for p in model.parameters()]}


def test_zero_strength_is_plain_trl(tmp_path: Path) -> None:
    laws.zero_strength(run(tmp_path), run(tmp_path, guard_dpo(DPOTrainer)))


def test_a_vanishing_weight_is_plain_trl(tmp_path: Path) -> None:
    """Not only where the fixes are switched off: the added terms themselves go to nothing."""
    laws.zero_strength(run(tmp_path), run(tmp_path, guard_dpo(DPOTrainer, sft=1e-12, dpop=1e-12)), tolerance=1e-6)


@pytest.mark.parametrize("fixes", [{"sft": 0.5}, {"dpop": 5.0}, {"calibrate": pairs(4, seed=3)}])
def test_a_fix_changes_the_weights(fixes: dict[str, Any], tmp_path: Path) -> None:
    plain, fixed = run(tmp_path), run(tmp_path, guard_dpo(DPOTrainer, **fixes))
    assert max(float((a - b).abs().max()) for a, b in zip(plain["weights"], fixed["weights"], strict=True)) > 1e-6


@pytest.mark.parametrize("fixes", [{"sft": 0.5}, {"dpop": 5.0}, {"calibrate": pairs(4, seed=3)}])
def test_accumulation_does_not_change_a_fix(fixes: dict[str, Any], tmp_path: Path) -> None:
    guarded = guard_dpo(DPOTrainer, **fixes)
    whole, parts = run(tmp_path, guarded, batch=4), run(tmp_path, guarded, batch=1, accumulate=4)
    laws.padding(whole["weights"], parts["weights"], tolerance=1e-5)


def test_padding_does_not_change_a_fix(tmp_path: Path) -> None:
    guarded = guard_dpo(DPOTrainer, sft=0.5, dpop=5.0, calibrate=pairs(4, seed=3))
    laws.padding(run(tmp_path, guarded)["weights"], run(tmp_path, guarded, pad_to_multiple_of=64)["weights"], tolerance=1e-5)


def test_sft_is_that_of_trl_where_lengths_are_equal(tmp_path: Path) -> None:
    """TRL means over the tokens of a batch, we over pairs of means over tokens: the chosen answers here have one length."""
    theirs = run(tmp_path, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.5])
    laws.padding(theirs["weights"], run(tmp_path, guard_dpo(DPOTrainer, sft=0.5))["weights"])


def test_the_gradient_of_the_fixes_by_finite_differences(tmp_path: Path) -> None:
    """Through the real trainer: a step of SGD moves a weight by the rate times the slope of the loss. The reference is another
    model, so that no pair lies at the kink of DPOP and about half of the chosen answers have fallen below it."""
    guarded, reference = guard_dpo(DPOTrainer, sft=0.7, dpop=5.0), tiny_llama(7)
    after = run(tmp_path, guarded, batch=12, steps=1, ref_model=reference)["weights"]
    model = tiny_llama()
    before = [p.detach().clone() for p in model.parameters()]
    watched, other = (watch_pairs(each, word_tokenizer(), pairs(12)) for each in (model, reference))
    weight = model.model.layers[1].mlp.down_proj.weight
    index = [p is weight for p in model.parameters()].index(True)
    fallen = watched.chosen_before < other.chosen_before
    assert bool(fallen.any())
    assert not bool(fallen.all())

    def loss() -> float:
        chosen, rejected = watched.now()
        ratios = (chosen - other.chosen_before).double(), (rejected - other.rejected_before).double()
        lengths = watched.batch.counted.sum(1).chunk(2)[0]
        return float(dpop_loss(*ratios, 0.1, 5.0).mean() - 0.7 * (chosen.double() / lengths).mean())

    def slope(i: int, j: int, step: float = 5e-3) -> float:
        with torch.no_grad():
            weight[i, j] += step
            up = loss()
            weight[i, j] -= 2 * step
            down = loss()
            weight[i, j] += step
        return (up - down) / (2 * step)

    for i, j in ((3, 4), (0, 9), (12, 30)):
        moved = float((before[index] - after[index])[i, j]) / 1e-2
        assert moved == pytest.approx(slope(i, j), rel=0.03, abs=2e-3)


def test_losses_by_hand() -> None:
    chosen, rejected = torch.tensor([0.0, -2.0]), torch.tensor([0.0, -6.0])
    assert dpo_loss(chosen, rejected, 0.5).tolist() == [pytest.approx(math.log(2)), pytest.approx(math.log1p(math.exp(-2)))]
    # margin 4, fall 2, weight 3: 4 - 6 = -2
    assert float(dpop_loss(chosen, rejected, 0.5, 3.0)[1]) == pytest.approx(math.log1p(math.exp(1)))
    laws.zero_strength(dpo_loss(chosen, rejected, 0.5), dpop_loss(chosen, rejected, 0.5, 0.0))


def test_the_band_is_the_sign_of_first_order_changes() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        s_w, s_l = torch.randn(2, 3, generator=generator).double()
        s_l = s_l * float(torch.rand((), generator=generator) * 3)
        pull, push = torch.rand(2, generator=generator).double().tolist()
        test = band_test(float(s_w @ s_w), float(s_l @ s_l), float(s_w @ s_l), pull, push)
        direction = pull * s_w - push * s_l
        both_right = float(direction @ s_w) > 0 and float(direction @ s_l) < 0
        assert test.inside == both_right
        factor = calibration_factor(test.log_ratio, test.log_optimum)
        better = band_test(float(s_w @ s_w), float(s_l @ s_l), float(s_w @ s_l), pull * factor, push / factor)
        assert better.inside
        assert better.log_ratio == pytest.approx(better.log_optimum)


def test_the_band_of_watched_pairs_is_that_of_autograd() -> None:
    model = tiny_llama()
    watched = watch_pairs(model, word_tokenizer(), pairs(4))
    test = watched.test(0.1)
    assert test.log_ratio == pytest.approx(0.0, abs=1e-6)  # DPO pulls as hard as it pushes
    weights = [p for p in model.parameters() if p.requires_grad]
    sums = []
    for half in (slice(0, 4), slice(4, 8)):
        total = torch.zeros(())
        for ids, learned in zip(watched.batch.ids[half], watched.batch.counted[half], strict=True):
            n = int(learned.nonzero()[-1]) + 1
            told = model(input_ids=ids[None, :n]).logits[0].log_softmax(-1)[:-1].gather(1, ids[1:n, None])[:, 0]
            total = total + told[learned[1:n]].sum() / 4
        sums.append(torch.cat([g.flatten() for g in torch.autograd.grad(total, weights)]))
    cosine = torch.nn.functional.cosine_similarity(sums[0], sums[1], dim=0)
    assert test.cosine == pytest.approx(float(cosine), rel=1e-4)
    assert test.log_optimum == pytest.approx(math.log(sums[1].norm() / sums[0].norm()), rel=1e-3, abs=1e-4)


def test_the_monitor_sees_nothing_before_training_and_the_change_after() -> None:
    model = tiny_llama()
    monitor = DisplacementMonitor(model, word_tokenizer(), pairs(6))
    first = monitor.look(0)
    laws.identity([first.chosen_change.value, first.rejected_change.value, first.displaced.value])
    assert first.rising == []
    with torch.no_grad():
        model.lm_head.weight[20] += 3.0
    second = monitor.look(1)
    assert second.chosen_change.value == pytest.approx(second.chosen.value - first.chosen.value, rel=1e-5)
    assert second.rising[0].token == word_tokenizer().decode([20])
    assert [look.step for look in monitor.looks] == [0, 1]


def losses_of(found: Any) -> Sequence[float]:
    """What a resumed run has to give again."""
    return [*found.losses, *(look.chosen.value for look in found.displacement)]


def test_dpo_filters_watches_and_resumes(save_llama: Save, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_llama()
    options = {"keep": 0.5, "batch": 4, "steps": 6, "watch": 8, "watch_every": 2, "learning_rate": 1e-2, "lora_rank": 4}
    options |= {"sft": 0.1, "calibrate": True}
    whole = dpo(folder, pairs(20), out=tmp_path / "whole", **grouped(**options))
    assert (whole.pairs, whole.trained_pairs, whole.steps) == (20, 10, 6)
    assert [look.step for look in whole.displacement] == [0, 2, 4, 6]
    assert (tmp_path / "whole" / "model" / "adapter_model.safetensors").is_file()

    def killed(self: DisplacementMonitor, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt
        if state.global_step % self.every == 0:
            self.look(state.global_step)

    with monkeypatch.context() as patch:
        keep_every(patch, 2)
        patch.setattr(DisplacementMonitor, "on_step_end", killed)
        with pytest.raises(KeyboardInterrupt):
            dpo(folder, pairs(20), out=tmp_path / "cut", **grouped(**options))
    assert len(list(tmp_path.glob("cut/stages-*/checkpoints/checkpoint-4"))) == 1
    resumed = dpo(folder, pairs(20), out=tmp_path / "cut", **grouped(**options))
    laws.padding(losses_of(whole), losses_of(resumed), tolerance=1e-6)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keep": 2.0}, "--keep 2: expected a number above 0 to 1"),
        ({"watch": 1}, "--watch 1: expected a whole number from 2"),
        ({"data": []}, "no row was given"),
        ({"data": [{"prompt": "ba", "chosen": " be", "rejected": " be"}]}, "has the same answer as chosen and rejected"),
    ],
)
def test_bad_input(change: dict[str, Any], words: str, save_llama: Save, tmp_path: Path) -> None:
    options = {"data": pairs(4), **change}
    with pytest.raises((BadOption, BadRows), match=words):
        dpo(save_llama(), options.pop("data"), out=tmp_path, **options)


def test_fixes_that_do_not_fit_the_loss(tmp_path: Path) -> None:
    with pytest.raises(BadOption, match="cannot be negative"):
        guard_dpo(DPOTrainer, sft=-1.0)
    with pytest.raises(BadOption, match="fixes of the loss 'sigmoid', not of"):
        run(tmp_path, guard_dpo(DPOTrainer, dpop=5.0), loss_type=["hinge"])
