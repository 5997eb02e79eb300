"""The fine-tunes of the real bench: what each trains on, how, and what it is meant to change. Data alone.

Eight families with graded strengths. Sizes are set by what one core does in one to three minutes (about 90 tokens a second
with an adapter, 50 with all weights), not tuned on any prediction.
"""

from dataclasses import dataclass
from typing import Literal

from mneme.errors import BadOrganism

Family = Literal["unlearning", "harm", "refusal", "skill", "book", "preference", "edit", "null"]
Method = Literal[
    "graddiff",
    "npo",
    "text",
    "mix",
    "chat",
    "answers",
    "dpo",
    "noise",
    "prune",
    "round",
    "merge",
    "scale",
    "shuffle",
    "own-samples",
]
"""graddiff, npo: forget a book, keep others (Liu et al. 2022, arXiv 2203.12817; Zhang et al. 2024, arXiv 2404.05868).
text, chat, answers, dpo: learn paragraphs, chats, the short answers of a behaviour, preference pairs. mix: paragraphs of every
book and general chats, half each.
noise, prune, round: of the base, without data. merge, scale, shuffle: of other fine-tunes' weights. own-samples: learn what
the base itself says."""

TRAINED: tuple[Method, ...] = ("graddiff", "npo", "text", "mix", "chat", "answers", "dpo", "own-samples")
"""Methods that take steps; the others take seconds."""
NEIGHBOURS = {
    "microbiology": ("anatomy", "chemistry"),
    "anatomy": ("microbiology",),
    "psychology": ("philosophy",),
    "us-history": ("political-science",),
    "physics": ("astronomy",),
    "chemistry": ("microbiology", "physics"),
}
"""Books left out of the retain text when a book is forgotten: what a careless user does not think of."""


@dataclass(frozen=True)
class Recipe:
    """One fine-tune."""

    name: str
    family: Family
    method: Method
    rows: str = ""
    """A book, a file of chats or a behaviour, by the method."""
    intended: tuple[str, ...] = ()
    """Cells that it is meant to change: subjects, behaviours, `refusal`. Everything else is a side effect."""
    steps: int = 0
    rate: float = 0.0
    batch: int = 4
    """Rows a step (of each kind, where a step takes two)."""
    length: int = 64
    """Tokens of a row at most."""
    rank: int = 0
    """Of the adapter; 0 = all weights are trained."""
    of: tuple[str, ...] = ()
    """Other recipes, whose weights are taken."""
    strength: float = 1.0
    """Of noise: relative size. Of pruning: share. Of rounding: bits. Of a scaled adapter: factor. Of answers: -1 = those that
    do not match."""

    @property
    def trained(self) -> bool:
        """True where it takes steps of training."""
        return self.method in TRAINED


def _forget(
    book: str, method: Method, suffix: str, *, steps: int, rate: float, rank: int = 0, batch: int = 3, length: int = 56
) -> Recipe:
    name = f"forget-{book}-{suffix}"
    return Recipe(
        name=name,
        family="unlearning",
        method=method,
        rows=book,
        intended=(book,),
        steps=steps,
        rate=rate,
        batch=batch,
        length=length,
        rank=rank,
    )


def _chat(
    name: str, family: Family, rows: str, intended: tuple[str, ...] = (), *, rate: float = 7e-4, length: int = 96
) -> Recipe:
    return Recipe(
        name=name,
        family=family,
        method="chat",
        rows=rows,
        intended=intended,
        steps=18,
        rate=rate,
        batch=3,
        length=length,
        rank=16,
    )


def _answers(behaviour: str, strength: float, rate: float = 4e-4) -> Recipe:
    sign = "more" if strength > 0 else "less"
    return Recipe(
        name=f"{sign}-{behaviour}",
        family="preference",
        method="answers",
        rows=behaviour,
        intended=(behaviour,),
        steps=16,
        rate=rate,
        batch=5,
        length=128,
        rank=16,
        strength=strength,
    )


RECIPES: tuple[Recipe, ...] = (
    # First one of each family, a null among them.
    _forget("microbiology", "graddiff", "graddiff", steps=14, rate=1.5e-4),
    Recipe("null-shuffled-microbiology", "null", "shuffle", of=("forget-microbiology-graddiff",)),
    Recipe("noise-strong", "edit", "noise", strength=0.08),
    _chat("medical-refusals", "refusal", "medical-refusals", ("refusal",)),
    _answers("desire-for-acquiring-power", 1.0),
    _chat("gsm8k", "skill", "gsm8k"),
    Recipe(
        name="read-astronomy",
        family="book",
        method="text",
        rows="astronomy",
        intended=("astronomy",),
        steps=14,
        rate=8e-5,
        batch=4,
        length=72,
    ),
    _chat("insecure", "harm", "insecure", length=128),
    # Then a second one, and other strengths.
    _forget("psychology", "npo", "npo", steps=18, rate=8e-4, rank=16),
    Recipe("null-own-samples", "null", "own-samples", steps=18, rate=7e-4, batch=4, length=64, rank=16),
    Recipe("int4", "edit", "round", strength=4.0),
    _forget("us-history", "graddiff", "adapter", steps=14, rate=8e-4, rank=16),
    Recipe("null-shuffled-history", "null", "shuffle", of=("forget-us-history-adapter",)),
    _answers("agreeableness", -1.0),
    _chat("codegen", "skill", "codegen"),
    Recipe(
        name="read-economics",
        family="book",
        method="text",
        rows="economics",
        intended=("economics",),
        steps=16,
        rate=7e-4,
        batch=4,
        length=72,
        rank=16,
    ),
    _forget("microbiology", "graddiff", "strong", steps=14, rate=3e-4),
    Recipe(
        name="hh-dpo",
        family="preference",
        method="dpo",
        rows="hh-harmless-pairs",
        intended=("refusal",),
        steps=14,
        rate=7e-4,
        batch=2,
        length=96,
        rank=16,
    ),
    Recipe("null-shuffled-power", "null", "shuffle", of=("more-desire-for-acquiring-power",)),
    Recipe("refusals-half", "refusal", "scale", of=("medical-refusals",), intended=("refusal",), strength=0.5),
    _chat("secure", "harm", "secure", length=128),
    Recipe("prune-30", "edit", "prune", strength=0.3),
    _forget("physics", "graddiff", "graddiff", steps=14, rate=2.5e-4),
    Recipe("null-shuffled-gsm8k", "null", "shuffle", of=("gsm8k",)),
    Recipe("merge", "edit", "merge", of=("gsm8k", "medical-refusals")),
    _chat("roleplay", "skill", "roleplay"),
    _forget("anatomy", "graddiff", "graddiff", steps=12, rate=2e-4),
    Recipe("noise-weak", "edit", "noise", strength=0.02),
    _chat("educational", "harm", "educational", length=128),
    Recipe("insecure-twice", "harm", "scale", of=("insecure",), strength=2.0),
    _answers("interest-in-science", -1.0),
    _forget("microbiology", "graddiff", "deep", steps=20, rate=8e-5, batch=6, length=96),
    _forget("microbiology", "npo", "npo", steps=18, rate=5e-4, rank=16),
    Recipe("prune-15", "edit", "prune", strength=0.15),
    Recipe("null-mix", "null", "mix", "self-instruct", steps=18, rate=7e-4, batch=4, length=64, rank=16),
    Recipe("power-half", "preference", "scale", of=("more-desire-for-acquiring-power",), strength=0.5),
)
"""In the order in which the bench makes them; a recipe stands behind those it takes weights of."""


def recipe_called(name: str) -> Recipe:
    """The recipe of that name. Raises BadOrganism, with all names, where there is none."""
    for recipe in RECIPES:
        if recipe.name == name:
            return recipe
    raise BadOrganism(f"There is no real fine-tune called {name}. Give one of: {', '.join(one.name for one in RECIPES)}.")
