"""Results of screen, dpo, unlearn and train by hand; `text` stands wherever words come from outside."""

from mneme.results import Estimate, TooFew
from mneme.results.dpo import Band, Displacement, PreferenceRun, TokenRise
from mneme.results.screen import FilterValue, RankedRow, RowScreening, ScoreSummary, TrialArm
from mneme.results.train import StepRecord, TrainingRecord, UsedSafeguard
from mneme.results.unlearn import (
    Relearning,
    StepLosses,
    TextChange,
    Unlearning,
    UnlearningEnvironment,
    UnlearningSettings,
    UnlearningText,
    WeightChange,
)

VERSIONS = {"mneme": "0.1.0", "torch": "2"}


def between(value: float, half: float = 0.1, unit: str = "nats per token", n: int = 24) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, unit=unit, n=n)


def sample_screening(text: str = "plain", *, rows: int = 40, with_trial: bool = True) -> RowScreening:
    """`rows` rows of which the worst is shown; dropping 16 avoids 62 %, as many at random 20 %."""
    arms = [
        TrialArm(name=name, rows=count, shift=between(shift))
        for name, count, shift in (("all", rows, 0.5), ("kept", rows - 16, 0.19), ("random", rows - 16, 0.4))
    ]
    value = FilterValue(
        measure="rise of the log-likelihood of held-out unwanted answers, less that of wanted ones, nats per token",
        steps=1,
        batch_rows=8,
        learning_rate=1e-3,
        lora_rank=8,
        arms=arms,
        avoided=between(0.62, unit="share"),
        avoided_at_random=between(0.2, unit="share"),
    )
    scores = [
        ScoreSummary(name="gradient", unit="cosine", median=0.2, highest=0.96, threshold=0.75, agreement=None),
        ScoreSummary(name="gap", unit="nats per token", median=0.1, highest=2.0, threshold=None, agreement=0.4),
    ]
    return RowScreening(
        model=text,
        model_sha256="a" * 64,
        data=text,
        data_sha256="b" * 64,
        kind="rows",
        rows=rows,
        tokens=560,
        kept=rows - 16,
        ranked_by="gradient",
        direction=None,
        scores=scores,
        top=[RankedRow(rank=1, row=33, kept=False, scores={"gradient": 0.96, "gap": 2.0}, question=text, answer=text)],
        value=value if with_trial else None,
        no_value="" if with_trial else "the trial was turned off (--trial-steps 0)",
        seed=0,
        versions=VERSIONS,
    )


def sample_preferences(text: str = "plain", *, change: float = -3.2, watched: int = 8) -> PreferenceRun:
    """Two looks; the chosen answers changed by `change` +- 1; with fewer than 8 watched pairs no interval."""

    def moved(value: float, unit: str = "nats per answer", half: float = 1.0) -> Estimate | TooFew:
        few = TooFew(value=value, unit=unit, n=watched, needed=8, of="pairs")
        return between(value, half, unit, watched) if watched >= 8 else few

    looks = [
        Displacement(
            step=step,
            chosen=moved(-30 + now),
            rejected=moved(-29 - now),
            chosen_change=moved(now),
            rejected_change=moved(2 * now),
            displaced=moved(0.75 if step else 0.0, "share of pairs", 0.2),
            rising=[TokenRise(token=text, rise=0.01)] if step else [],
        )
        for step, now in ((0, 0.0), (6, change))
    ]
    return PreferenceRun(
        model=text,
        model_sha256="a" * 64,
        data=text,
        data_sha256="b" * 64,
        pairs=20,
        trained_pairs=10,
        filter="ln-ches, 0.5 kept",
        sft_weight=0.1,
        dpop_weight=0.0,
        reward_calibration=True,
        beta=0.1,
        optimizer="adamw",
        learning_rate=0.01,
        steps=6,
        lora_rank=4,
        seed=0,
        losses=[1.2, 1.1, 1.0],
        displacement=looks,
        band=[Band(step=look.step, log_ratio=0.3, log_optimum=0.1, cosine=0.5, inside=look.step == 0) for look in looks],
        outside_band=0.5,
        versions=VERSIONS,
    )


def sample_unlearning(text: str = "f.txt") -> Unlearning:
    """Half of what was recalled is gone, relearning brings it to 80 %; nothing was recalled of the text to keep."""
    told = UnlearningText(source=text, sha256="0" * 64, documents=24, tokens=192)
    share = between(0.5, unit="share of known tokens")
    change = TextChange(
        nll_before=between(0.5), nll_after=between(2.0), change=between(1.5), kept=share, measured_documents=24
    )
    nothing = change.model_copy(update={"kept": None})
    return Unlearning(
        model="base",
        fingerprint="0" * 64,
        result="model",
        settings=UnlearningSettings(
            method="npo",
            steps=2,
            learning_rate=1e-5,
            beta=0.1,
            forget_weight=1.0,
            retain_weight=1.0,
            retain_loss="nll",
            layers=[],
            batch_documents=16,
            max_tokens=512,
            lora_rank=None,
            seed=0,
            defaults="arXiv 2404.05868",
        ),
        forget_text=told,
        retain_text=told,
        weights=WeightChange(changed_tensors=3, total_tensors=20, relative=0.0123),
        forget=change,
        retain=nothing,
        relearning=[
            Relearning(
                kind="related",
                documents=10,
                steps=50,
                learning_rate=1e-5,
                kept_before=share,
                kept_after=between(0.8, unit="share of known tokens"),
                change=between(-1.0),
            )
        ],
        losses=[StepLosses(step=1, forget=1.0, retain=2.0), StepLosses(step=2, forget=0.5, retain=None)],
        environment=UnlearningEnvironment(
            mneme="0", python="3", torch="2", transformers="5", peft="0", device="cpu", threads=1
        ),
    )


def sample_training() -> TrainingRecord:
    """One step on one row."""
    return TrainingRecord(
        base="base",
        base_fingerprint="0" * 64,
        data_sha256="1" * 64,
        rows=1,
        interleaved=0,
        safeguards=[UsedSafeguard(name="kl", strength=0.1, unit="nats per learned token")],
        lora_rank=8,
        learning_rate=1e-4,
        batch_rows=1,
        epochs=1.0,
        seed=0,
        steps=1,
        planned_steps=1,
        losses=[StepRecord(step=1, loss=1.5, learning_rate=1e-4, penalties={"kl": 0.2})],
        held_out=[],
        versions=VERSIONS,
    )
