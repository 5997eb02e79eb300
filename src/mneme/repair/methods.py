"""The repair methods by name, made ready on the calibration halves of the probes, then applied at any strength."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor, nn

from mneme.errors import BadOption
from mneme.models.architecture import Parts
from mneme.repair.ablation import ablate
from mneme.repair.antidote import antidote
from mneme.repair.arithmetic import arithmetic, dare
from mneme.repair.controls import random_mask, scale
from mneme.repair.inputs import gram_groups, input_grams, mean_squares
from mneme.repair.obs import obs
from mneme.repair.patching import (
    CorrectionTraining,
    Factors,
    draw,
    kl_loss,
    lora_factors,
    nll_loss,
    subspace_factors,
    teach,
    train_correction,
)
from mneme.repair.projection import alignment_projector, likeness, project
from mneme.repair.regmean import regmean
from mneme.repair.wanda_delta import wanda_delta
from mneme.repair.workbench import Workbench
from mneme.text.encoded import text_numbers
from mneme.text.probes import Probe

Apply = Callable[[float], None]
"""Sets the working copy to the repair at a strength from 0 to 1."""
Correction = Literal["patch", "retrain"]
DARE_RATE = 0.3
FEW_TEXTS = 16


@dataclass(frozen=True)
class Task:
    """What a method may see. Development halves are not in here."""

    bench: Workbench
    target: Probe
    retain: Probe
    fallen: tuple[int, ...]
    """Numbers of the target texts that became less likely: what `retrain` trains on."""
    unaligned: Parts | None
    """The model before alignment, for `project` and `arithmetic`."""
    directions: dict[int, Float[Tensor, "latent d_model"]] | None
    """Block -> directions of the change latents to remove, for `ablate`."""
    training: CorrectionTraining
    retain_weight: float
    memory_bytes: int
    """How much the Grams of the blocks that are in memory at a time may take."""
    kept_correction: Callable[[Correction, Callable[[Path | None], Factors]], Factors]
    """Trains a correction once and keeps it across a kill; the training is given the file of its state."""


def prepare_method(name: str, task: Task) -> Apply:
    """Method `name`, ready to be applied. Raises BadOption for an unknown name, and where `lacking` has a reason."""
    if name not in METHODS:
        raise BadOption(f"No repair method {name!r}. The methods are: {', '.join(METHODS)}, or `all`.")
    reason = lacking(name, task)
    if reason is not None:
        raise BadOption(f"{name} cannot be used here: {reason}.")
    return METHODS[name](task)


def lacking(name: str, task: Task) -> str | None:
    """Why a method cannot be used on this task; None where it can."""
    if name in ("project", "arithmetic") and task.unaligned is None:
        return "it needs the model before alignment (--unaligned)"
    if name == "ablate" and not task.directions:
        return "it needs the change latents of an audit (--from)"
    if name == "ablate" and task.bench.writers.isdisjoint(task.bench.names):
        return "no linear map that writes into the residual stream changed"
    if name == "retrain" and len(task.fallen) < 2:
        return "no target text became less likely, so there is nothing to train back"
    return None


def _scale(task: Task) -> Apply:
    return lambda strength: task.bench.each(lambda _name, delta: scale(delta, strength), strength)


def _random(task: Task) -> Apply:
    seeds = {name: 1_000 * task.training.seed + i for i, name in enumerate(task.bench.names)}
    return lambda strength: task.bench.each(lambda n, delta: random_mask(delta, strength, seed=seeds[n]), strength)


def _antidote(task: Task) -> Apply:
    """On an adapter its factors, else q, k and v whole; calibrated on every real token of the target, as the
    authors do."""
    bench, pair = task.bench, task.bench.pair
    if pair.adapter:
        model, active = pair.peft_model.get_base_model(), pair.peft_model.active_adapter
        layers = {name: model.get_submodule(name) for name in bench.names}
        factors = {f"{name}.{part}": getattr(layer, part)[active] for name, layer in layers.items() for part in _FACTORS}
        with pair.using("tuned") as parts:
            squares = mean_squares(parts, task.target, factors, counting="real")

        def pruned(name: str, _delta: Tensor, strength: float) -> Tensor:
            down, up = (antidote(factors[f"{name}.{p}"].weight, squares[f"{name}.{p}"], strength) for p in _FACTORS)
            product: Tensor = (up @ down).detach() * layers[name].scaling[active]
            return product

        return lambda strength: bench.each(lambda name, delta: pruned(name, delta, strength), strength)
    names = [name for name in bench.names if name.rpartition(".")[2] in ("q_proj", "k_proj", "v_proj")] or list(bench.names)
    whole = {name: pair.tuned_parts.model.get_submodule(name) for name in names}
    squares = mean_squares(pair.tuned_parts, task.target, whole, counting="real")

    def apply(strength: float) -> None:
        bench.restore()
        for name in names:
            bench.set_weight(name, antidote(whole[name].weight.detach(), squares[name], strength))

    return apply


_FACTORS = ("lora_A", "lora_B")


def _wanda_delta(task: Task) -> Apply:
    bench = task.bench
    with bench.pair.using("tuned") as parts:
        layers = _layers(parts, bench)
        target, retain = mean_squares(parts, task.target, layers), mean_squares(parts, task.retain, layers)
    return lambda strength: bench.each(lambda n, delta: wanda_delta(delta, target[n], retain[n], strength), strength)


def _second_order(task: Task, rule: Callable[[Tensor, Tensor, Tensor, float], Tensor]) -> Apply:
    """Grams of the base on the target and of the tuned model on the retained text, some blocks at a time."""
    bench = task.bench
    with bench.pair.using("tuned") as parts:
        layers = _layers(parts, bench)
    groups = list(gram_groups(layers, bench.block, task.memory_bytes))
    kept: dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}

    def grams(number: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if number not in kept:
            kept.clear()
            with bench.pair.using("base") as parts:
                own = _layers(parts, bench)
                target = input_grams(parts, task.target, {name: own[name] for name in groups[number]})
            with bench.pair.using("tuned") as parts:
                own = _layers(parts, bench)
                retain = input_grams(parts, task.retain, {name: own[name] for name in groups[number]})
            kept[number] = target, retain
        return kept[number]

    def apply(strength: float) -> None:
        if strength == 0.0:
            bench.restore()
            return
        for number, names in enumerate(groups):
            target, retain = grams(number)
            for name in names:
                bench.set(name, rule(bench.delta(name), target[name], retain[name], strength))
        bench.set_others(strength)

    return apply


def _project(task: Task) -> Apply:
    """Projects the share `strength` of the changed layers, those least like alignment first."""
    bench = task.bench
    safety = _safety(task)
    projectors = {name: alignment_projector(safety[name]) for name in bench.names}
    order = sorted(bench.names, key=lambda name: likeness(projectors[name], bench.delta(name)))

    def apply(strength: float) -> None:
        bench.restore()
        for name in order[: round(strength * len(order))]:
            bench.set(name, project(bench.delta(name), projectors[name]))

    return apply


def _arithmetic(task: Task) -> Apply:
    bench = task.bench
    safety = _safety(task)
    seeds = {name: 1_000 * task.training.seed + i for i, name in enumerate(bench.names)}

    def apply(strength: float) -> None:
        bench.restore()
        if strength > 0:
            for name in bench.names:
                thinned = dare(bench.delta(name), DARE_RATE, seed=seeds[name])
                bench.set(name, arithmetic(thinned, safety[name], strength))

    return apply


def _ablate(task: Task) -> Apply:
    """Every changed writer of a block gets rid of the directions of the first audited layer at or after that block."""
    bench, directions = task.bench, task.directions or {}
    layers = sorted(directions)

    def change(name: str, delta: Tensor, strength: float) -> Tensor:
        after = [layer for layer in layers if layer >= bench.block[name]]
        if not after or name not in bench.writers:
            return delta
        return ablate(delta, directions[after[0]].to(delta), strength)

    def apply(strength: float) -> None:
        bench.restore()
        if strength > 0:
            for name in bench.names:
                bench.set(name, change(name, bench.delta(name), strength))

    return apply


def _patch(task: Task) -> Apply:
    target = task.target.part(_few(len(task.target.texts)))
    retain = task.retain.part(_few(len(task.retain.texts)))
    training = task.training

    def train(checkpoint: Path | None) -> Factors:
        bench = task.bench
        bench.restore()
        with bench.pair.using("base") as parts:
            wanted = teach(parts, target)
        kept = teach(bench.work, retain)
        factors = subspace_factors(bench.delta, bench.names, training.rank)
        every = list(range(FEW_TEXTS))

        def loss_at(_step: int) -> Float[Tensor, ""]:
            pull = kl_loss(bench.work, target, wanted, every[: len(target.texts)])
            return pull + kl_loss(bench.work, retain, kept, every[: len(retain.texts)])

        return train_correction(bench.work, factors, loss_at, training, train_down=False, checkpoint=checkpoint)

    return _apply_correction(task, task.kept_correction("patch", train))


def _retrain(task: Task) -> Apply:
    target, training = task.target.part(task.fallen), task.training

    def train(checkpoint: Path | None) -> Factors:
        bench = task.bench
        bench.restore()
        kept = teach(bench.work, task.retain) if task.retain_weight > 0 else []
        shapes = {name: tuple(bench.delta(name).shape) for name in bench.names}
        factors = lora_factors(shapes, training.rank, seed=training.seed, device=bench.work.device)  # type: ignore[arg-type]

        def loss_at(step: int) -> Float[Tensor, ""]:
            loss = nll_loss(bench.work, target, draw(len(target.texts), training.batch_texts, step, training.seed))
            if task.retain_weight > 0:
                chosen = draw(len(task.retain.texts), training.batch_texts, step, training.seed + 1)
                loss = loss + task.retain_weight * kl_loss(bench.work, task.retain, kept, chosen)
            return loss

        return train_correction(bench.work, factors, loss_at, training, train_down=True, checkpoint=checkpoint)

    return _apply_correction(task, task.kept_correction("retrain", train))


def _apply_correction(task: Task, factors: Factors) -> Apply:
    bench = task.bench

    def apply(strength: float) -> None:
        bench.restore()
        if strength > 0:
            for name, (up, down) in factors.items():
                bench.set(name, bench.delta(name) + strength * (up @ down))

    return apply


def _few(n_texts: int) -> list[int]:
    return [i * n_texts // FEW_TEXTS for i in range(FEW_TEXTS)] if n_texts > FEW_TEXTS else list(range(n_texts))


def _layers(parts: Parts, bench: Workbench) -> dict[str, nn.Linear]:
    """The changed linear maps as modules whose inputs can be read, in any of the pair's models."""
    found = {}
    for name in bench.names:
        layer = parts.model.get_submodule(name)
        found[name] = layer.get_base_layer() if hasattr(layer, "get_base_layer") else layer
    return found


def _safety(task: Task) -> dict[str, Tensor]:
    """W_base - W_unaligned of every changed linear map, float32."""
    bench = task.bench
    if task.unaligned is None:
        raise BadOption("There is no model before alignment: give one with --unaligned.")
    own = {name: task.unaligned.model.get_submodule(name).weight.detach() for name in bench.names}
    return {name: bench.base_weight(name).float() - weight.float() for name, weight in own.items()}


METHODS: dict[str, Callable[[Task], Apply]] = {
    "scale": _scale,
    "random": _random,
    "antidote": _antidote,
    "wanda-delta": _wanda_delta,
    "project": _project,
    "arithmetic": _arithmetic,
    "obs": lambda task: _second_order(task, obs),
    "regmean": lambda task: _second_order(task, regmean),
    "patch": _patch,
    "retrain": _retrain,
    "ablate": _ablate,
}
"""In the order of the search, controls first."""
CONTROLS = ("scale", "random")


def fallen_texts(probe: Probe, base: Float[np.ndarray, " token"], tuned: Float[np.ndarray, " token"]) -> tuple[int, ...]:
    """Numbers of the texts that the tuned model finds less likely than the base, all counted tokens together."""
    change = np.bincount(text_numbers(probe.texts), weights=tuned - base)
    return tuple(int(i) for i in np.flatnonzero(change < 0))
