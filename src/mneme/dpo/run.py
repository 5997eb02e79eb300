"""`dpo`: preference training with a filter, a displacement monitor and fixes: a thin shell on TRL's DPOTrainer that resumes.

Everything that decides the result is in the key of the run folder; the same call after a kill goes on from the last whole
checkpoint and gives the same losses.
"""

import math
import os
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from mneme.dpo.guarding import guard_dpo
from mneme.dpo.monitor import DisplacementMonitor
from mneme.errors import BadOption, BadRows, BadRun
from mneme.models.adapters import attach_lora
from mneme.models.checkpoints import model_fingerprint
from mneme.models.pair import LoadedModel, load_model
from mneme.models.tokenizers import require_tokenizer
from mneme.models.trainers import CHECKPOINTS, SealCheckpoints, import_trl, last_checkpoint, save_trained
from mneme.results.dpo import PreferenceRun
from mneme.runs import Arrays, RunFolder, require_apart
from mneme.screen.run import rank
from mneme.screen.scoring import PAIR_SCORES, score_pairs
from mneme.terminal import Terminal
from mneme.text.pairs import check_pairs, encode_pairs, explicit, read_pairs
from mneme.text.rows import Row, rows_hash
from mneme.version import __version__

CALIBRATION_PAIRS = 8
DISPLACEMENT = "displacement.jsonl"
OUTPUT_NAMES = ("model", "preferences.json", DISPLACEMENT)
OPTIMIZERS = {"adamw": "adamw_torch", "rmsprop": "rmsprop"}
"""Name -> what transformers calls it."""


def dpo(
    model: str | Path,
    data: str | Path | Sequence[Row],
    *,
    out: str | Path,
    filter_by: str | None = "ln-ches",
    keep: float = 0.15,
    sft: float = 0.0,
    dpop: float = 0.0,
    calibrate: bool = False,
    beta: float = 0.1,
    optimizer: str = "adamw",
    learning_rate: float | None = None,
    steps: int | None = None,
    batch_pairs: int = 16,
    accumulate: int = 1,
    lora_rank: int | None = 16,
    watch: int = 32,
    watch_every: int = 10,
    seed: int = 0,
    device: str = "cpu",
    trust_remote_code: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> PreferenceRun:
    """Train `model` on preference pairs with TRL's DPOTrainer; `out` gets `model/`, `preferences.json`, `displacement.jsonl`.

    `filter_by`: the score of `mneme screen --pairs` by which the `keep` least suspect pairs are trained on; None takes all.
    `sft`, `dpop`, `calibrate`: the fixes of `guard_dpo`. `watch` pairs, drawn from all of the data, are looked at every
    `watch_every` steps. `optimizer`: adamw, or rmsprop as in the papers on DPO. `learning_rate`: default 5e-5 with LoRA, 1e-6
    without. `steps`: default one epoch of what is kept.

    Raises a MnemeError before any training for everything that can be known before. Needs the extra `train`.
    """
    console = console or Terminal(stderr=True)
    require_apart(out, {"MODEL": model, "DATA": data})
    trl = import_trl("preference training")
    _check(filter_by, keep, watch, optimizer)
    source, pairs = _checked_pairs(data)
    loaded = _with_tokenizer(load_model(model, device=device, trust_remote_code=trust_remote_code), model)
    window = getattr(loaded.parts.model.config.get_text_config(), "max_position_embeddings", None)
    encoded = encode_pairs(pairs, loaded.tokenizer, window, source)
    rate = learning_rate if learning_rate is not None else 5e-5 if lora_rank else 1e-6
    command: dict[str, Any] = {
        "command": "dpo",
        "version": __version__,
        "model": model_fingerprint(loaded.folder),
        "data": rows_hash(pairs),
        "filter": [filter_by, keep],
        "fixes": [sft, dpop, calibrate],
        "beta": beta,
        "optimizer": optimizer,
        "learning_rate": rate,
        "steps": steps,
        "batch": [batch_pairs, accumulate],
        "lora_rank": lora_rank,
        "watch": [watch, watch_every],
        "seed": seed,
    }
    with RunFolder(Path(out), command, outputs=OUTPUT_NAMES, overwrite=overwrite) as run:
        scores = run.stage("scores", lambda: _scores(loaded, pairs, filter_by, window)) if filter_by else {}
        kept = sorted(rank(scores, filter_by, keep).kept) if filter_by else list(range(len(pairs)))
        planned = steps or max(1, math.ceil(len(kept) / (batch_pairs * accumulate)))
        settings = _settings(run, planned, OPTIMIZERS[optimizer], rate, beta, batch_pairs, accumulate, window, seed, device)
        looks, fixes = run.workspace("displacement") / DISPLACEMENT, (sft, dpop, calibrate)
        trainer, monitor = _trainer(trl, loaded, pairs, kept, settings, fixes, lora_rank, watch, watch_every, looks, console)
        seconds = _train(trainer, console, planned, encoded, run)
        record = PreferenceRun(
            model=str(model),
            model_sha256=command["model"],
            data=source,
            data_sha256=command["data"],
            pairs=len(pairs),
            trained_pairs=len(kept),
            filter="none" if filter_by is None else f"{filter_by}, {keep:g} kept",
            sft_weight=sft,
            dpop_weight=dpop,
            reward_calibration=calibrate,
            beta=beta,
            optimizer=optimizer,
            learning_rate=rate,
            steps=trainer.state.global_step,
            lora_rank=lora_rank,
            seed=seed,
            losses=_losses(trainer),
            displacement=monitor.looks,
            band=monitor.bands,
            outside_band=float(np.mean([not band.inside for band in monitor.bands])),
            versions=_versions(trl),
        )
        with _no_bars():
            files = {"preferences.json": record.to_json().encode(), DISPLACEMENT: looks.read_bytes()}
            save_trained(trainer, loaded.tokenizer, run, files, seconds)
    return record


def _scores(loaded: LoadedModel, pairs: Sequence[Row], name: str, window: int | None) -> Arrays:
    """The score `name` of every pair."""
    tokenizer = require_tokenizer(loaded.tokenizer, loaded.folder)
    return score_pairs(loaded.parts, encode_pairs(pairs, tokenizer, window, bare=True), [name])


def _checked_pairs(data: str | Path | Sequence[Row]) -> tuple[str, list[Row]]:
    """Where the pairs come from, and the pairs. Raises BadRows for none, or for one that cannot be trained on."""
    source = str(data) if isinstance(data, str | Path) else "the pairs"
    pairs = read_pairs(data) if isinstance(data, str | Path) else list(data)
    if not pairs:
        raise BadRows("no pair was given. Give at least one.")
    check_pairs(pairs, source)
    return source, pairs


def _with_tokenizer(loaded: LoadedModel, name: str | Path) -> LoadedModel:
    require_tokenizer(loaded.tokenizer, name)
    return loaded


def _versions(trl: Any) -> dict[str, str]:
    """Of what decides the numbers."""
    return {
        "mneme": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": str(trl.__version__),
    }


def _check(filter_by: str | None, keep: float, watch: int, optimizer: str) -> None:
    if optimizer not in OPTIMIZERS:
        raise BadOption(f"--optimizer {optimizer} is not known. Expected one of: {', '.join(OPTIMIZERS)}.")
    if filter_by is not None and filter_by not in PAIR_SCORES:
        raise BadOption(f"--filter {filter_by} is no score of pairs. Expected none, or one of: {', '.join(PAIR_SCORES)}.")
    if not 0 < keep <= 1:
        raise BadOption(f"--keep {keep:g} is no share of the data. Give a number above 0 and at most 1.")
    if watch < 2:
        raise BadOption("--watch needs at least 2 pairs: the monitor's intervals are over pairs.")


def _settings(
    run: RunFolder,
    steps: int,
    optim: str,
    rate: float,
    beta: float,
    batch_pairs: int,
    accumulate: int,
    window: int | None,
    seed: int,
    device: str,
) -> dict[str, Any]:
    """What TRL's DPOConfig is made of."""
    return {
        "output_dir": str(run.workspace(CHECKPOINTS)),
        "max_steps": steps,
        "optim": optim,
        "learning_rate": rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": max(1, steps // 20),
        "beta": beta,
        "per_device_train_batch_size": batch_pairs,
        "gradient_accumulation_steps": accumulate,
        "precompute_ref_log_probs": True,
        "precompute_ref_batch_size": batch_pairs,
        "max_length": window,
        "seed": seed,
        "use_cpu": device == "cpu",
        "bf16": False,
        "gradient_checkpointing": device != "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": max(1, -(-steps // 5)),
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _trainer(
    trl: Any,
    loaded: LoadedModel,
    pairs: Sequence[Row],
    kept: Sequence[int],
    settings: dict[str, Any],
    fixes: tuple[float, float, bool],
    lora_rank: int | None,
    watch: int,
    watch_every: int,
    looks: Path,
    console: Console,
) -> tuple[Trainer, DisplacementMonitor]:
    """TRL's trainer with fixes and data, and the monitor of the model as it is before training."""
    from datasets import Dataset, disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

    sft, dpop, calibrate = fixes
    seed, model = settings["seed"], loaded.parts.model
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    watched = [pairs[i] for i in order[:watch]]
    bars, hidden = is_progress_bar_enabled(), os.environ.get("TQDM_DISABLE")
    disable_progress_bars()
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that transformers, peft and TRL renamed for one another
            if lora_rank is not None:
                model = attach_lora(model, lora_rank, seed=seed)
            monitor = DisplacementMonitor(
                model,
                loaded.tokenizer,
                watched,
                every=watch_every,
                beta=settings["beta"],
                sft=sft,
                dpop=dpop,
                path=looks,
                console=console,
                seed=seed,
            )
            guarded = guard_dpo(trl.DPOTrainer, sft=sft, dpop=dpop, calibrate=watched[:CALIBRATION_PAIRS] if calibrate else ())
            trainer = guarded(
                model=model,
                args=trl.DPOConfig(**settings),
                train_dataset=Dataset.from_list([explicit(pairs[i]) for i in kept]),
                processing_class=loaded.tokenizer,
                callbacks=[monitor],
            )
    finally:
        if bars:
            enable_progress_bars()
        os.environ.pop("TQDM_DISABLE") if hidden is None else os.environ.update(TQDM_DISABLE=hidden)
    trainer.remove_callback(PrinterCallback)
    return trainer, monitor


def _train(trainer: Trainer, console: Console, steps: int, encoded: Sequence[Any], run: RunFolder) -> dict[str, float]:
    """Trains, from the run's last sealed checkpoint if there is one; seconds it took here."""
    last = last_checkpoint(run)
    trainer.add_callback(SealCheckpoints(run))
    size = sum(p.numel() for p in trainer.model.parameters())
    tokens = sum(2 * len(p.prompt) + len(p.chosen) + len(p.rejected) for p in encoded) / len(encoded)
    batch = trainer.args.per_device_train_batch_size * trainer.args.gradient_accumulation_steps
    console.print(
        f"Plan: {steps} steps of {batch} pairs, about {6 * size * tokens * batch * steps / 1e9:,.0f} GFLOP.", markup=False
    )
    started = time.perf_counter()
    with warnings.catch_warnings(), _no_bars():
        warnings.simplefilter("ignore")
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    return {"training": time.perf_counter() - started}


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without the bars of transformers for every file that is written."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _losses(trainer: Trainer) -> list[float]:
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if not all(math.isfinite(loss) for loss in losses):
        raise BadRun("the loss is not a number: training diverged. Give a smaller --lr.")
    return losses
