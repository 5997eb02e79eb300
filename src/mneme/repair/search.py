"""The strength search: for each method find the weakest strength that closes the wanted share, and measure what it cost.
Ours."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from mneme.models.likelihood import token_log_likelihoods
from mneme.repair.coherence import Coherence, prompts_of
from mneme.repair.likelihood import ProbeReadings, check_changed, selectivity, share_lost, share_undone
from mneme.repair.methods import CONTROLS, METHODS, Apply, Task, prepare_method
from mneme.repair.strength import weakest_strength
from mneme.results import Estimate, TooFew
from mneme.results.repair import RepairMethod, RepairPoint
from mneme.runs import RunFolder
from mneme.stats import clustered_ratio
from mneme.text.encoded import counted_tokens, text_numbers
from mneme.text.probes import Probe

Texts = dict[str, Float[ndarray, " token"]]
"""Log-likelihood of every counted token of `target`, `retain` and, where given, `other`."""

DESCRIPTIONS = {
    "scale": "control: the whole change made smaller",
    "random": "control: random entries of the change removed",
    "antidote": "entries that harmful text uses most set to zero, as the authors' code does",
    "wanda-delta": "entries of the change that the target uses and the retained text does not, removed",
    "project": "change projected onto what alignment did (Safe LoRA)",
    "arithmetic": "alignment vector added, change thinned (RESTA, DARE)",
    "obs": "entries of the change dropped by their second-order cost, the rest compensates",
    "regmean": "closed form: as tuned on retained text, as the base on the target",
    "patch": "a few texts: pulled to the base on the target, held on retained text, in the row space of the change",
    "retrain": "training on target text that became less likely (MNEME)",
    "ablate": "change latents of the audit folded out of the writers of the residual stream",
}


@dataclass(frozen=True)
class Development:
    """The halves of the probes that measure, and what base and tuned model say of them."""

    probes: dict[str, Probe]
    base: Texts
    tuned: Texts
    coherence: Coherence


def develop(task: Task, probes: dict[str, Probe], *, seed: int) -> Development:
    """Measure base and tuned model. Raises NothingToRepair where the base shows target or retained text as the tuned model
    does."""
    task.bench.restore()
    with task.bench.pair.using("base") as parts:
        base = {name: token_log_likelihoods(parts, probe.texts) for name, probe in probes.items()}
    tuned = {name: token_log_likelihoods(task.bench.work, probe.texts) for name, probe in probes.items()}
    check_changed(
        probes["target"],
        base["target"],
        tuned["target"],
        wanted="the base shows it as well. Give text that the change reached.",
    )
    check_changed(
        probes["retain"], base["retain"], tuned["retain"], wanted="there is no gain to keep in it. Give text of its purpose."
    )
    tokenizer = task.bench.pair.tokenizer
    prompts = [prompt for name in ("target", "retain") for prompt in prompts_of(probes[name], tokenizer, limit=24)]
    return Development(probes, base, tuned, Coherence(task.bench.pair, prompts, seed=seed))


def climb(
    name: str, task: Task, development: Development, goal: float, run: RunFolder, *, seed: int, say: Callable[[str], None]
) -> RepairMethod:
    """One method: searched, and measured at the strength that was chosen. Finished strengths are read from their stages."""
    ready: list[Apply] = []

    def apply(strength: float) -> None:
        if not ready:
            ready.append(prepare_method(name, task))
        ready[0](strength)

    def measured(strength: float) -> Texts:
        def compute() -> dict[str, np.ndarray]:
            apply(strength)
            return {key: token_log_likelihoods(task.bench.work, probe.texts) for key, probe in development.probes.items()}

        return run.stage(f"{name}-{strength:.5f}", compute)

    points: dict[float, RepairPoint] = {}

    def closed_at(strength: float) -> float:
        if strength not in points:
            points[strength] = point_at(strength, development, measured(strength), seed=seed)
            say(
                f"{name} at {strength:.3f}: closes {points[strength].closed.plain:.2f}, loses "
                f"{points[strength].lost.plain:.2f}"
            )
        return points[strength].closed.plain

    chosen = weakest_strength(closed_at, goal)
    energy = other = coherent = None
    if chosen is not None:
        apply(chosen)
        energy = energy_removed(task)
        coherent = development.coherence.judge(task.bench.work)
        other = other_change(development, measured(chosen), seed=seed)
    return RepairMethod(
        method=name,
        description=DESCRIPTIONS[name],
        control=name in CONTROLS,
        points=[points[strength] for strength in sorted(points)],
        chosen=None if chosen is None else points[chosen],
        energy_removed=energy,
        other_change=other,
        coherent=coherent,
    )


def point_at(strength: float, development: Development, repaired: Texts, *, seed: int) -> RepairPoint:
    """What a strength closes and loses on the development halves."""
    target, retain = (
        ProbeReadings(
            text_numbers(development.probes[name].texts), development.base[name], development.tuned[name], repaired[name]
        )
        for name in ("target", "retain")
    )
    return RepairPoint(
        strength=strength,
        closed=share_undone(target, seed=seed),
        lost=share_lost(retain, seed=seed),
        selectivity=selectivity(target, retain, seed=seed),
    )


def other_change(development: Development, repaired: Texts, *, seed: int) -> Estimate | TooFew | None:
    """Change in log-likelihood of other text against the base, nats per token; None where there is no other text."""
    if "other" not in development.probes:
        return None
    probe = development.probes["other"]
    change = np.bincount(text_numbers(probe.texts), weights=repaired["other"] - development.base["other"])
    same = bool(np.array_equal(repaired["other"], development.base["other"]))
    counts = counted_tokens(probe.texts).astype(np.float64)
    return clustered_ratio(change, counts, "nats per token", seed=seed, identical=same, of="texts")


def energy_removed(task: Task) -> float | None:
    """|D - dW|^2 / |dW|^2 over the linear maps of the working copy as it stands; None where none of them had changed."""
    above = below = 0.0
    for name in task.bench.names:
        delta = task.bench.delta(name)
        above += float((task.bench.repaired_delta(name).to(delta) - delta).double().square().sum())
        below += float(delta.double().square().sum())
    return above / below if below > 0 else None


def best(methods: Sequence[RepairMethod]) -> str | None:
    """The method with the highest selectivity among those with a chosen strength; a control only where nothing else reaches
    it."""
    reached = [method for method in methods if method.chosen is not None]
    ranked = sorted(reached, key=lambda m: (m.control, -(m.chosen.selectivity.plain if m.chosen is not None else 0.0)))
    return ranked[0].method if ranked else None


def check_methods(names: Sequence[str]) -> tuple[str, ...]:
    """The methods to search: both controls always, then those asked for, in the order of METHODS."""
    wanted = set(METHODS) if "all" in names else {*CONTROLS, *names}
    return tuple(name for name in METHODS if name in wanted)
