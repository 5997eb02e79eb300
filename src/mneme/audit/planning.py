"""`mneme audit --plan`: what a run will take, before any weight is loaded."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from mneme.audit.forecast import Forecast, Machine, forecast, shape_of
from mneme.audit.inputs import check_layers, chosen_kind, first_device, precision_for, rows_of
from mneme.errors import ModelMismatch
from mneme.models.checkpoints import resolve_folder
from mneme.models.pair import load_tokenizer
from mneme.text.documents import read_corpus


def plan(
    base: str | Path,
    tuned: str | Path,
    *,
    corpus: str | Path,
    dictionary: str = "change",
    layers: Sequence[int] | None = None,
    tokens: int | None = None,
    processes: int = 1,
    threads: int | None = None,
    device: str = "cpu",
    precision: str = "auto",
    trust_remote_code: bool = False,
) -> Forecast:
    """What `audit` with the same arguments will take on this machine: both configurations, the tokenizer and the text are
    read, and the parts are tried out with random numbers.

    Errors: those of `audit` about its inputs.
    """
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    shape = shape_of(base, tuned, trust_remote_code=trust_remote_code)
    check_layers(layers, shape.layers)
    tokenizer = load_tokenizer(resolve_folder(base, trust_remote_code=trust_remote_code), trust_remote_code)
    if tokenizer is None:
        raise ModelMismatch(f"{base} has no tokenizer, so the text cannot be counted. Save the tokenizer beside the model.")
    longest = getattr(shape.config.get_text_config(), "max_position_embeddings", None)
    rows = rows_of(read_corpus(corpus, tokenizer=tokenizer), tokenizer, longest, tokens)
    chosen = list(layers or []) or None
    return forecast(
        shape,
        rows.ids.numel(),
        rows.ids.shape[1],
        chosen_kind(dictionary),
        machine=Machine(first_device(device), precision_for(device, precision)),
        layers=chosen,
        processes=processes,
    )
