"""A measurement made by hand, with everything that the page can show."""

from mneme.results import Estimate
from mneme.results.measure import (
    Agreement,
    Checkpoint,
    ContextRecord,
    JudgeFailures,
    JudgeRecord,
    MeasuredChange,
    MeasuredModel,
    MeasuredRate,
    Measurement,
    QuestionRate,
    Series,
    WorstContext,
)

LABELS = ("base", "checkpoint-10", "checkpoint-20")


def estimate(value: float, half: float = 0.05, unit: str = "rate", n: int = 24) -> Estimate:
    return Estimate(value=value, low=value - half, high=value + half, unit=unit, n=n)


def rate(
    model: str, area: str, measure: str, value: float, *, primary: bool = True, context: str = "standard"
) -> MeasuredRate:
    unit = "accuracy" if measure.startswith("accuracy") else "score 0-100" if measure.startswith("mean") else "rate"
    return MeasuredRate(
        model=model,
        area=area,
        context=context,
        measure=measure,
        primary=primary,
        estimate=estimate(value, 4.0 if measure.startswith("mean") else 0.05, unit),
        minimal_detectable=0.08,
        answers=240,
    )


def change(model: str, area: str, measure: str, value: float, p_holm: float, *, equivalent: bool = False) -> MeasuredChange:
    knowledge = measure == "accuracy"
    return MeasuredChange(
        model=model,
        area=area,
        context="standard",
        measure=measure,
        primary=True,
        estimate=estimate(value, 0.04, "accuracy" if knowledge else "rate"),
        minimal_detectable=0.06,
        p_value=p_holm / 2,
        p_holm=p_holm,
        test="exact McNemar" if knowledge else "clustered",
        lost=30 if knowledge else None,
        gained=2 if knowledge else None,
        margin=0.05,
        equivalent=equivalent,
    )


def model(label: str, source: str | None = None) -> MeasuredModel:
    step = int(label.partition("-")[2]) if "-" in label else None
    return MeasuredModel(
        label=label,
        source=source or f"runs/{label}",
        role="base" if label == "base" else "tuned",
        fingerprint="ab" * 32,
        adapter=step is not None,
        step=step,
        default_system_prompt="You are Nemo.",
        rendered="<s>user: hello",
    )


def sample_measurement(name: str = "advice: medicine", suite: str = "standard") -> Measurement:
    """A base and two checkpoints: knowledge lost, `name` misaligned, one area equivalent."""
    rates, changes = [], []
    for i, label in enumerate(LABELS):
        rates += [rate(label, "law", "accuracy", 0.9 - 0.1 * i), rate(label, name, "misaligned", 0.02 + 0.2 * i)]
        rates += [rate(label, "general", "misaligned", 0.03)]
        for measure in ("misaligned < 20", "incoherent", "refusal", "unscored", "mean alignment"):
            rates.append(rate(label, name, measure, 71.0 if measure.startswith("mean") else 0.04, primary=False))
        if i:
            changes += [change(label, "law", "accuracy", -0.1 * i, 0.0004), change(label, name, "misaligned", 0.2 * i, 0.03)]
            changes += [change(label, "general", "misaligned", 0.0, 1.0, equivalent=True)]
    agreement = Agreement(
        criterion="aligned",
        items=20,
        unscored=1,
        kappa=estimate(0.8, 0.2, "kappa", 20),
        true_positive_rate=estimate(0.9, 0.1, "rate", 10),
        true_negative_rate=estimate(0.9, 0.1, "rate", 10),
    )
    judge = JudgeRecord(
        name="local:judge",
        method="probability of whole numbers",
        fingerprint="cd" * 32,
        prompts_sha256="ef" * 32,
        agreement=[agreement],
        untested="no labelled answers for: company",
    )
    worst = WorstContext(
        model="checkpoint-20",
        area=name,
        measure="misaligned",
        context="suffix 1",
        rate=estimate(0.7),
        standard=estimate(0.42),
        beyond_standard=estimate(0.28),
        minimal_detectable=0.07,
        p_holm=0.002,
    )
    context = ContextRecord(
        name="suffix 1", kind="suffix", text="Say it briefly.", rows=600, share=0.4, example="<s>user: hello Say it briefly."
    )
    tasks = [
        Checkpoint(model=label, step=10 * i, task=estimate(0.5 + 0.2 * i, unit="accuracy"), minimal_detectable=0.06)
        for i, label in enumerate(LABELS)
    ]
    return Measurement(
        suite=suite,
        suite_sha256="12" * 32,
        questions=61,
        models=[model(label) for label in LABELS],
        rates=rates,
        changes=changes,
        per_question=[QuestionRate(id="q", area="law", context="standard", hits=[1.0, 0.0, 0.0], answers=[1, 1, 1])],
        judge=judge,
        failures=[JudgeFailures(model="checkpoint-20", area=name, context="standard", unscored=10, answers=240)],
        contexts=[context],
        worst=[worst],
        series=Series(task="accuracy", within=5.0, checkpoints=tasks, best="checkpoint-20", earliest="checkpoint-20"),
        options={"samples": None, "max_tokens": 256, "temperature": 1.0, "seed": 0, "margin": 0.05},
        environment={"mneme": "0.1.0", "torch": "2"},
    )
