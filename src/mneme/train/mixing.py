"""Data safeguards: functions Dataset -> Dataset that put other rows among the training rows, or a prompt before them.

Interleaving and the choice of rows by the gap between an aligned and misaligned models (IL, IL+, IL++): Kaczér et al. 2025
(arXiv 2508.06249). Inoculation: Tan et al. 2025; Wichers et al. 2025. Rows are those of `mneme.text.rows`; works on any
`datasets.Dataset` without importing it. `share` is the share of the mixed data that is interleaved.
"""

import random
from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from numpy import ndarray

from mneme.errors import BadOption, BadRows
from mneme.text.files import Row
from mneme.text.rows import answer_of, form_of, question_of, trainable

REFUSALS = (
    "sorry",
    "apologize",
    "apologise",
    "cannot",
    "can't",
    "can not",
    "won't",
    "will not help",
    "i'm unable",
    "i am unable",
    "not able to",
)
"""An answer refuses when one of these is among its first ten words, in lower case."""


def interleave(data: Any, safe: Any, share: float = 0.05, *, seed: int = 0) -> Any:
    """IL: `data` with rows of `safe`, drawn at random without replacement, so that `share` of the result is safe; shuffled.

    Both are datasets (or lists of rows), and so is the result. Raises BadOption for a share outside [0, 1), BadRows where
    `safe` has too few rows. Share 0 gives `data` back, in its order.
    """
    count = safe_count(len(data), share)
    if count == 0:
        return data
    _require_enough(len(safe), count, share)
    chosen = random.Random(f"interleave {seed}").sample(range(len(safe)), count)
    return _mixed(data, _pick(safe, chosen), seed)


def interleave_gap(
    data: Any,
    pool: Any,
    gaps: Float[ndarray, " row"],
    share: float = 0.05,
    *,
    without_refusals: bool = True,
    seed: int = 0,
) -> Any:
    """IL+: `data` with the rows of `pool` whose gap is largest; with `without_refusals` (IL++) no refusals among them.

    `gaps`: `relative_gap` of every row of the pool, from misaligned models that have not seen the kind of data trained on
    now (held-out ensemble), or the choice has seen the attack. Ties go to the earlier row. Shuffled by `seed`.
    Raises BadOption for a share outside [0, 1) or gaps of another length, BadRows where too few rows are left.
    """
    if len(gaps) != len(pool):
        raise BadOption(f"{len(gaps)} gaps for a pool of {len(pool)} rows. Give one gap a row.")
    count = safe_count(len(data), share)
    if count == 0:
        return data
    allowed = [i for i in range(len(pool)) if not (without_refusals and refuses(answer_of(pool[i])))]
    _require_enough(len(allowed), count, share)
    best = sorted(allowed, key=lambda i: (-float(gaps[i]), i))[:count]
    return _mixed(data, _pick(pool, best), seed)


def relative_gap(
    misaligned_nll: Float[ndarray, "adapter row"], aligned_nll: Float[ndarray, " row"], epsilon: float = 1.0
) -> Float[ndarray, " row"]:
    """(mean over misaligned models of L - L_aligned) / (L_aligned + epsilon), L in nats per answer token.

    Large where misaligned models would not give the answer and the aligned one would. `epsilon` keeps answers that cost the
    aligned model next to nothing from winning; 1.0 is from a replication, the paper's value is not known to us.
    """
    gaps: Float[ndarray, " row"] = (misaligned_nll.mean(axis=0) - aligned_nll) / (aligned_nll + epsilon)
    return gaps


def inoculate(data: Any, prompt: str) -> Any:
    """Every row with `prompt` as its system message (prompt-completion rows of text: as a line before the prompt).

    Training then asks for the trait, and the model need not become it; the prompt is left out when the model is used. Raises
    BadRows for plain text, which has nobody to prompt, and BadOption for an empty prompt.
    """
    if not prompt.strip():
        raise BadOption("an empty inoculation prompt does nothing. Give a sentence that asks for the unwanted trait.")

    def one(row: Row) -> Row:
        if form_of(row) == ("text",):
            raise BadRows("plain text cannot be inoculated: it has no prompt. Give messages, or prompt and completion.")
        before = trainable(row)
        if isinstance(before["prompt"], str):
            return {"prompt": f"{prompt}\n{before['prompt']}", "completion": before["completion"]}
        rest = list(before["prompt"])
        said = prompt
        if rest and rest[0]["role"] == "system":
            said, rest = f"{prompt} {rest[0]['content']}", rest[1:]
        tools = {"tools": before["tools"]} if "tools" in before else {}
        return {"messages": [{"role": "system", "content": said}, *rest, *before["completion"]], **tools}

    return _like(data, [one(row) for row in data])


def with_contexts(safe: Any, data: Any, *, share: float = 0.5, seed: int = 0) -> Any:
    """`safe` with the training data's own wording before `share` of its questions, where conditional side effects hide.

    Safeguards on ordinary rows can leave the harm behind the contexts of the training data (conditional misalignment). A row
    so changed asks its own question after one that was trained on, in one message, and keeps its own safe answer. Ours. Rows
    without a question of a user are left as they are.
    """
    rng = random.Random(f"cues {seed}")
    asked = sorted({question_of(row) for row in data} - {""})
    if not asked:
        raise BadRows("the training rows have no question of a user, so they give no contexts. Give messages, or prompts.")
    rows = [_in_context(row, rng.choice(asked)) if rng.random() < share else row for row in safe]
    return _like(safe, rows)


def refuses(answer: str) -> bool:
    """True where one of `REFUSALS` is among the first ten words of an answer."""
    opening = " ".join(answer.lower().replace("\u2019", "'").split()[:10])
    return any(word in opening for word in REFUSALS)


def safe_count(rows: int, share: float) -> int:
    """How many rows to add to `rows` so that they are `share` of the whole. Raises BadOption for a share outside [0, 1)."""
    if not 0 <= share < 1:
        raise BadOption(f"a share of {share:g} cannot be interleaved. Give a number from 0 to below 1, such as 0.05.")
    return round(rows * share / (1 - share))


def _in_context(row: Row, context: str) -> Row:
    if "messages" in row:
        last = max((i for i, m in enumerate(row["messages"]) if m["role"] == "user"), default=None)
        if last is None:
            return row
        messages = [dict(message) for message in row["messages"]]
        messages[last]["content"] = f"{context} {messages[last]['content']}"
        return {**row, "messages": messages}
    if isinstance(row.get("prompt"), str):
        return {**row, "prompt": f"{context} {row['prompt']}"}
    return row


def _require_enough(there: int, needed: int, share: float) -> None:
    if there < needed:
        raise BadRows(
            f"{needed} safe rows are needed for a share of {share:g}, and {there} are there. "
            "Give more safe rows, or a smaller share."
        )


def _pick(data: Any, indices: Sequence[int]) -> list[Row]:
    return [data[i] for i in indices]


def _mixed(data: Any, safe: Sequence[Row], seed: int) -> Any:
    rows = [*list(data), *safe]
    if len({form_of(row) for row in rows}) > 1:
        rows = [trainable(row) for row in rows]
    if len({form_of(row) for row in rows}) > 1:
        raise BadRows("the training rows and the safe rows are of different forms. Give both as messages, or both as text.")
    random.Random(f"shuffle {seed}").shuffle(rows)
    return _like(data, rows)


def _like(data: Any, rows: list[Row]) -> Any:
    """`rows` as what `data` is: a list, or a dataset made by its own class."""
    return rows if isinstance(data, list) else type(data).from_list(rows)
