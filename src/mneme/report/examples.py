"""Token examples as compact JSON for the page: a table of tokens, and small integers in place of floats.

500 latents x 10 examples x 40 tokens come to about 2.5 MB this way (a span per token in HTML: 12 MB).
"""

import json
from dataclasses import dataclass

from mneme.options import counted
from mneme.plain import plain
from mneme.results import Latent, TokenExample

LONGEST_TOKEN = 60
STEPS = 99
BLANKS = str.maketrans({"\u0120": " ", "\u2581": " ", "\u010a": "\n"})
"""Marks that byte-level and sentencepiece tokenizers put for a blank or a line end."""


@dataclass(frozen=True)
class Trim:
    """How much of the examples goes on the page: at most `examples` a latent, `window` tokens around the strongest one."""

    examples: int
    window: int
    latents: int

    def told(self) -> str:
        """What was left out, in words; the whole of it is in report.json."""
        kept = [counted(self.latents, "latent"), counted(self.examples, "example")]
        return (
            f"To keep this page under 5 MB it shows at most {kept[0]}, {kept[1]} each, "
            f"{counted(self.window, 'token')} around the strongest one. report.json has them all."
        )


def shown_token(token: str) -> str:
    """A token for display: tokenizer marks become blanks, hostile characters are shown as escapes, overlong ones are cut."""
    text = plain(token.translate(BLANKS), lines=True)
    return text if len(text) <= LONGEST_TOKEN else text[: LONGEST_TOKEN - 1] + "…"


def _span(example: TokenExample, window: int) -> slice:
    strongest = max(range(len(example.tokens)), key=lambda i: example.activations[i], default=0)
    start = max(0, min(strongest - window * 2 // 3, len(example.tokens) - window))
    return slice(start, start + window)


def _packed(example: TokenExample, vocab: dict[str, int], window: int) -> dict[str, object]:
    span = _span(example, window)
    tokens = [shown_token(token) for token in example.tokens[span]]
    values = example.activations[span]
    peak = max(values, default=0.0)
    return {
        "t": [vocab.setdefault(token, len(vocab)) for token in tokens],
        "a": [round(STEPS * max(value, 0.0) / peak) if peak > 0 else 0 for value in values],
        "m": round(peak, 3),
        "l": [round(100 * value) for value in example.likelihood_change[span]],
        "b": shown_token(example.base_prediction),
        "u": shown_token(example.tuned_prediction),
        "w": 0 if any(token[:1].isspace() or token[-1:].isspace() for token in tokens) else 1,
    }


def examples_json(latents: list[Latent], trim: Trim) -> str:
    """JSON with `vocab` and `latents`: for each of `latents`, in their order, a list of examples.

    An example is {t: token numbers, a: activations as 0-99 of the peak `m`, l: change of log-likelihood in 0.01 nats,
    b / u: predictions of base and tuned, w: 1 = words without blanks}. `<`, `>` and `&` are written as \\u escapes, so that
    no token can close the script element that holds it.
    """
    vocab: dict[str, int] = {}
    packed = [[_packed(e, vocab, trim.window) for e in x.examples[: trim.examples]] for x in latents[: trim.latents]]
    text = json.dumps({"vocab": list(vocab), "latents": packed}, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
