"""The cheap signals of a pair on one set of text, subject by subject: what every other predictor has to be ahead of.

Each is one figure a passage, so that means, intervals and other poolings can be made again from what is kept: KL in both
directions, the change of loss, the relative change of the activations, all at the same tokens; and one figure a pair, the
relative change of the weights.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from mneme.models.hooks import read
from mneme.models.logits import token_kl_base_to_tuned, token_kl_tuned_to_base, token_log_probs
from mneme.models.pair import ModelPair
from mneme.models.weights import weight_changes
from mneme.worlds.real.data import SUBJECTS, chats, paragraphs, spread

PASSAGES = 6
"""Of each subject, and of chats."""
PASSAGE_TOKENS = 80
CHATS = "chats"
SIGNALS = ("kl_tuned_to_base", "kl_base_to_tuned", "loss_change", "activation_change")
_BATCH = 6


def passages(data: Path, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[list[int]]]:
    """Area -> ids of passages: paragraphs of sections that may be read, and ordinary chats for all that is no subject."""
    texts = {
        subject: [one.text for one in spread(paragraphs(data, subject, "read"), PASSAGES, seed=101)] for subject in SUBJECTS
    }
    ids = {area: [list(tokenizer(text)["input_ids"]) for text in found] for area, found in texts.items()}
    rows = [row["messages"] for row in chats(data, "self-instruct") if len(str(row["messages"])) < 400][:PASSAGES]
    ids[CHATS] = [list(tokenizer.apply_chat_template(row, tokenize=True, return_dict=True)["input_ids"]) for row in rows]
    return {area: [one[:PASSAGE_TOKENS] for one in found] for area, found in ids.items()}


def read_signals(pair: ModelPair, texts: dict[str, list[list[int]]]) -> dict[str, Any]:
    """{"areas": {area: {signal: one mean a passage}}, "weights": relative change, "seconds", "tokens"}."""
    started, used = time.perf_counter(), time.process_time()
    areas: dict[str, dict[str, list[float]]] = {}
    for area, rows in texts.items():
        batches = [_batch_signals(pair, rows[first : first + _BATCH]) for first in range(0, len(rows), _BATCH)]
        areas[area] = {
            name: [float(f"{value:.4g}") for batch in batches for value in batch[name].tolist()] for name in SIGNALS
        }
    changed = weight_changes(pair, rank_limit=0).relative_change
    tokens = 2 * sum(len(row) for rows in texts.values() for row in rows)
    return {
        "areas": areas,
        "weights": float(f"{changed:.4g}"),
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - used, 1),
        "tokens": tokens,
    }


@torch.no_grad()
def _batch_signals(pair: ModelPair, rows: list[list[int]]) -> dict[str, Float[np.ndarray, " passage"]]:
    """Signal -> mean over the tokens of each passage."""
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=pair.device)
    predicts = torch.tensor([[i + 1 < len(row) for i in range(width)] for row in rows], device=pair.device)
    logits, streams = zip(*(_forward(pair, side, ids) for side in ("base", "tuned")), strict=True)
    targets = ids.roll(-1, 1)
    told = [token_log_probs(one, targets) for one in logits]
    found = {
        "kl_tuned_to_base": token_kl_tuned_to_base(tuned_logits=logits[1], base_logits=logits[0]),
        "kl_base_to_tuned": token_kl_base_to_tuned(tuned_logits=logits[1], base_logits=logits[0]),
        "loss_change": told[0] - told[1],
        "activation_change": _relative(streams[0], streams[1]),
    }
    count = predicts.sum(1)
    return {name: (torch.where(predicts, value, 0.0).sum(1) / count).double().cpu().numpy() for name, value in found.items()}


def _forward(pair: ModelPair, side: Any, ids: Int[Tensor, "batch seq"]) -> tuple[Tensor, list[Tensor]]:
    with pair.using(side) as parts, read(parts, range(len(parts.blocks))) as found:
        logits = parts.model(input_ids=ids, use_cache=False).logits
        return logits, [found[layer] for layer in range(len(parts.blocks))]


def _relative(base: list[Tensor], tuned: list[Tensor]) -> Float[Tensor, "batch seq"]:
    """|h_tuned - h_base| / |h_base|, the mean over blocks."""
    return torch.stack([(b - a).norm(dim=-1) / a.norm(dim=-1) for a, b in zip(base, tuned, strict=True)]).mean(0)
