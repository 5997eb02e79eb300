"""A Report made by hand, in the likeness of an unlearned area whose neighbour was damaged, and a hostile and a large one."""

import math
import random
import re

from mneme.results import (
    AbsentArea,
    Baselines,
    Corpus,
    Cost,
    Effect,
    Environment,
    Estimate,
    Latent,
    Layer,
    NullCheck,
    Pair,
    Report,
    TokenExample,
)

WORDS = re.findall(r"\w+", "the enzyme lipase acts on compound acetate in the liver and the kind of organ it needs is liver")
CHEMISTRY = re.findall(r"\w+", "the compound benzene has the state liquid and its color is yellow and its use is fuel")


def estimate(value: float, low: float, high: float, unit: str = "accuracy", n: int = 212) -> Estimate:
    """An estimate in fractions of accuracy unless another unit is named."""
    return Estimate(value=value, low=low, high=high, unit=unit, n=n)


def effect(area: str, probability: float, value: float, **more: object) -> Effect:
    """An effect with a symmetric interval of 6 points."""
    fields: dict[str, object] = {
        "area": area,
        "kind": "capability",
        "probability": probability,
        "direction": "worse" if value < -0.02 else "changed",
        "magnitude": estimate(value, value - 0.06, value + 0.06),
        "evidence": [],
        "baselines": Baselines(kl=0.016, nll=0.004, activation=0.17),
        "signal": "none",
    }
    return Effect.model_validate(fields | more)


def example(words: list[str], peak: int, base: str, tuned: str) -> TokenExample:
    """A passage with one bump of activation and a drop of likelihood after it."""
    bump = [3.1 * math.exp(-((i - peak) ** 2) / 2) for i in range(len(words))]
    drop = [-2.4 * math.exp(-((i - peak - 1) ** 2) / 3) if i > peak else 0.12 * (i % 3) for i in range(len(words))]
    return TokenExample(
        tokens=words,
        activations=[x if x > 0.05 else 0.0 for x in bump],
        likelihood_change=[0.0, *drop[1:]],
        base_prediction=base,
        tuned_prediction=tuned,
    )


def latent(name: str, description: str, examples: list[TokenExample], **more: object) -> Latent:
    """A scored latent."""
    fields: dict[str, object] = {
        "id": name,
        "layer": 2,
        "description": description,
        "change_energy": 0.12,
        "causal_share": estimate(0.34, 0.28, 0.4, "share"),
        "causal_q_value": 0.003,
        "likelihood_change": estimate(-0.31, -0.36, -0.26, "probability"),
        "firing_rate": 0.0042,
        "relative_norm": 0.93,
        "cosine": -0.2,
        "nu_error": 0.08,
        "nu_reconstruction": 0.12,
        "label": "tuned-only",
        "key_phrases": ["the enzyme", "kind of organ", "acts on"],
        "promoted": ["thing", "unknown", "and"],
        "suppressed": ["liver", "kidney", "yeast"],
        "description_score": 0.87,
        "areas": ["biology", "chemistry"],
        "examples": examples,
    }
    return Latent.model_validate(fields | more)


def effects() -> list[Effect]:
    """Two strong effects, one of them intended, one behaviour, one unlisted, the rest quiet."""
    quiet = ["medicine", "law", "religion", "finance", "cooking", "computing", "travel", "physics", "history"]
    return [
        effect(
            "biology",
            0.996,
            -0.97,
            magnitude=estimate(-0.97, -0.99, -0.93),
            intended=True,
            evidence=["L2.17", "L2.3"],
            signal="both",
            baselines=Baselines(kl=1.43, nll=1.66, activation=0.23),
            description="Facts about enzymes: organ, role and source are no longer recalled.",
        ),
        effect(
            "chemistry",
            0.93,
            -0.46,
            evidence=["L2.3", "L2.40"],
            signal="both",
            baselines=Baselines(kl=0.066, nll=0.28, activation=0.19),
            description="Facts about compounds, above all those that enzymes act on.",
        ),
        effect(
            "text that opens with a question about people",
            0.61,
            0.11,
            kind="unlisted",
            direction="changed",
            evidence=["L2.40"],
            signal="latents",
        ),
        effect(
            "harmful advice", 0.12, 0.01, kind="behaviour", direction="more", magnitude=estimate(0.01, -0.02, 0.04, "rate")
        ),
        *[effect(area, 0.02 + 0.013 * i, -0.002 * i) for i, area in enumerate(quiet)],
    ]


def latents() -> list[Latent]:
    """The evidence behind `effects`, and the mean of the change."""
    biology = [
        example(WORDS, 2, "liver", "thing"),
        example(WORDS[::-1], 6, "acts", "and"),
        example(WORDS * 3, 20, "liver", "liver"),
    ]
    return [
        latent("L2.17", "Names of enzymes, before their organ or role is stated", biology),
        latent(
            "L2.3",
            "Compounds that an enzyme acts on",
            [example(CHEMISTRY, 2, "liquid", "solid")],
            change_energy=0.043,
            causal_share=estimate(0.11, 0.07, 0.15, "share"),
            areas=["chemistry", "biology"],
        ),
        latent(
            "L2.40",
            "Questions about people",
            [example(CHEMISTRY[::-1], 5, "is", "are")],
            change_energy=0.008,
            causal_share=None,
            causal_q_value=None,
            description_score=None,
            nu_error=None,
            nu_reconstruction=None,
            label="amplified",
        ),
        latent("L2.mean", "What is the same at every token", [], change_energy=0.0, label="mean", firing_rate=1.0),
    ]


def sample_report(**more: object) -> Report:
    """The whole report; fields can be replaced by name."""
    fields: dict[str, object] = {
        "pair": Pair(
            base="models/world-a",
            tuned="models/world-a-unlearned-biology",
            architecture="LlamaForCausalLM",
            parameters=968_064,
            layers=4,
            width=128,
            adapter=False,
            changed_tensors=38,
            total_tensors=38,
            relative_weight_change=0.041,
            median_rank=37.2,
        ),
        "corpus": Corpus(source="corpus.txt", documents=6000, passages=6120, tokens=249_984, row_length=128, sha256="5f" * 32),
        "verdict": "change",
        "reason": "Two areas lie far above what honest continuations of training show, the strongest by 41 standard errors.",
        "effects": effects(),
        "absent": [
            AbsentArea(
                area="wmdp cyber", kind="capability", reason="No passage of the corpus matches its keywords.", passages=0
            ),
            AbsentArea(area="sycophancy", kind="behaviour", reason="Too few passages for an interval.", passages=7),
        ],
        "latents": latents(),
        "layers": [
            Layer(
                layer=i,
                relative_change=[0.15, 0.18, 0.23, 0.21][i],
                mean_share=0.08,
                first_component_share=0.22,
                output_share=[0.21, 0.48, 0.86, 1.0][i],
                chosen=i == 2,
                unexplained=0.31 if i == 2 else None,
                k=0.5 if i == 2 else None,
            )
            for i in range(4)
        ],
        "null": [
            NullCheck(
                name="identical", description="The base against itself.", statistic="largest P", value=0.0, threshold=0.5
            ),
            NullCheck(
                name="random adapter",
                description="A random change of the same size and rank.",
                statistic="largest P",
                value=0.21,
                threshold=0.5,
            ),
        ],
        "cost": Cost(seconds=92.0, tokens=1_200_000, peak_bytes=2_100_000_000, flops=1.84e12),
        "environment": Environment(
            mneme="0.1.0",
            python="3.11.7",
            torch="2.13.0",
            transformers="5.23.0",
            seed=0,
            dictionary="change",
            threads=2,
            calibration="Fitted on 24 pairs of another world.",
        ),
        "overall": {
            "kl_tuned_to_base": estimate(0.21, 0.19, 0.23, "nats per token"),
            "nll_change": estimate(0.12, 0.1, 0.14, "nats per token"),
            "sure_tokens_flipped": estimate(0.021, 0.018, 0.024, "rate"),
        },
        "top_tokens": ["thing", "unknown", "nobody"],
    }
    return Report.model_validate(fields | more)


HOSTILE = [
    "</script><script>window.pwned=1</script>",
    "<img src=x onerror=window.pwned=2>",
    "<!--<script>",
    '"><svg onload=window.pwned=3>',
    "&lt;b&gt;{{7*7}}",
    "\u2028\x00",
]


def hostile_report() -> Report:
    """Every free string of a report is an attack."""
    bad = " ".join(HOSTILE)
    attack = latent(
        bad, bad, [example(HOSTILE * 3, 1, HOSTILE[0], HOSTILE[1])], key_phrases=HOSTILE, promoted=HOSTILE, areas=HOSTILE
    )
    whole = sample_report()
    return sample_report(
        pair=whole.pair.model_copy(update={"base": bad, "tuned": bad, "architecture": bad}),
        corpus=whole.corpus.model_copy(update={"source": bad, "sha256": bad}),
        reason=bad,
        effects=[effect(bad, 0.9, -0.5, evidence=[bad], description=bad, passages=HOSTILE, self_written=True)],
        absent=[AbsentArea(area=bad, kind="capability", reason=bad, passages=0)],
        latents=[attack],
        null=[NullCheck(name=bad, description=bad, statistic=bad, value=0.0, threshold=1.0)],
        top_tokens=HOSTILE,
        overall={bad: estimate(0.1, 0.0, 0.2, bad)},
    )


def large_report(n_latents: int = 500, n_examples: int = 10, n_tokens: int = 40) -> Report:
    """As many latents, examples and tokens as a large audit may have; every token is drawn from 3,000 words."""
    rng = random.Random(0)
    vocab = [f" word{i}" for i in range(3000)]

    def passage() -> TokenExample:
        tokens = rng.choices(vocab, k=n_tokens)
        return TokenExample(
            tokens=tokens,
            activations=[rng.random() * 4 for _ in tokens],
            likelihood_change=[rng.gauss(0, 1) for _ in tokens],
            base_prediction=tokens[0],
            tuned_prediction=tokens[1],
        )

    many = [
        latent(f"L2.{i}", f"Direction number {i}", [passage() for _ in range(n_examples)], change_energy=1 / (i + 2))
        for i in range(n_latents)
    ]
    return sample_report(latents=many)
