"""`dpo`: preference training with a filter, a displacement monitor and fixes: a thin shell on TRL's DPOTrainer that resumes.

Everything that decides the result is in the key of the run folder; the same call after a kill goes on from the last whole
checkpoint and gives the same losses.
"""

import math
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import Trainer
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging

from mneme.dpo.guarding import given_to_trl, guard_dpo
from mneme.dpo.monitor import DisplacementMonitor
from mneme.dpo.options import DpoOptions
from mneme.dpo.plan import preference_plan
from mneme.errors import BadRun
from mneme.models.adapter_files import whole_fingerprint
from mneme.models.adapters import attach_lora
from mneme.models.pair import LoadedModel, load_model
from mneme.models.threads import computing_threads
from mneme.models.tokenizers import require_tokenizer
from mneme.models.trainers import CHECKPOINTS, SAVING, KeepCheckpoints, import_trl, last_checkpoint, save_trained
from mneme.options import Progress, deciding, loading, stored, taking
from mneme.results.dpo import PreferenceRun
from mneme.runs import Arrays, RunFolder, require_apart
from mneme.screen.run import rank
from mneme.screen.scoring import pair_scores_in_run
from mneme.text.files import Row
from mneme.text.pairs import EncodedPair, encode_pairs, fitting_pairs, read_pairs
from mneme.text.reading import SKIPPED_ROWS, skipped_rows
from mneme.text.rows import rows_hash
from mneme.text.templates import template_key
from mneme.version import __version__

CALIBRATION_PAIRS = 8
DISPLACEMENT = "displacement.jsonl"
OUTPUT_NAMES = ("model", "preferences.json", "preferences.html", DISPLACEMENT, SKIPPED_ROWS)
OPTIMIZERS = {"adamw": "adamw_torch", "rmsprop": "rmsprop"}
"""Name -> what transformers calls it."""


def run_dpo(options: DpoOptions) -> PreferenceRun:
    """Train `model` on preference pairs with TRL's DPOTrainer; `out` gets `model/`, `preferences.json`, `displacement.jsonl`.

    `filter`: the score of `mneme screen --pairs` by which the `keep` least suspect pairs are trained on; "none" takes all.
    `sft`, `dpop`, `calibrate`: the fixes of `guard_dpo`. `watch` pairs, drawn from all of the data, are looked at every
    `watch_every` steps. `optimizer`: adamw, or rmsprop as in the papers on DPO.

    Raises a MnemeError before any training for everything that can be known before. Needs the extra `train`.
    """
    require_apart(options.out, {"MODEL": options.model, "DATA": options.data})
    trl = import_trl("preference training")
    read = read_pairs(options.data)
    machine, score = options.machine, None if options.filter == "none" else options.filter
    with computing_threads(machine.threads):
        loaded = load_model(options.model, **loading(options))
        tokenizer = require_tokenizer(loaded.tokenizer, options.model)
        window = getattr(loaded.parts.model.config.get_text_config(), "max_position_embeddings", None)
        read, encoded, facts = fitting_pairs(read, tokenizer, window)
        pairs = read.rows
        told = (loaded.template, read.told(), *facts)
        options.progress.say_all(told)
        command: dict[str, Any] = {
            "command": "dpo",
            "version": __version__,
            "model": whole_fingerprint(loaded.folder, options.adapter_base),
            "data": rows_hash(pairs),
            "learning_rate": options.learning_rate,
            **deciding(options),
            **template_key(options.chat_template),
        }
        folder, kept_options = Path(options.out), stored(options)
        opened = RunFolder(folder, command, options=kept_options, outputs=OUTPUT_NAMES, overwrite=options.overwrite)
        with opened as run:
            scores = _scores(run, loaded, pairs, score, options.progress, window) if score else {}
            kept = sorted(rank(scores, score, options.keep).kept) if score else list(range(len(pairs)))
            settings = _settings(run, options, len(kept), window)
            looks = run.workspace("displacement") / DISPLACEMENT
            trainer, monitor = _trainer(trl, loaded, (pairs, encoded, kept), options, settings, looks)
            options.progress.say(preference_plan(trainer.model, loaded.parts, [encoded[i] for i in kept], trainer.args))
            seconds = _train(trainer, run)
            data = {"source": read.source, "sha256": command["data"], "pairs": len(pairs), "trained": len(kept)}
            record = _record(options, trainer, monitor, data, command["model"], _versions(trl))
            record = record.model_copy(update={"notes": [*loaded.notes, *told]})
            with _no_bars():
                files = {"preferences.json": record.to_json().encode(), DISPLACEMENT: looks.read_bytes()}
                files |= skipped_rows(read)
                save_trained(trainer, loaded.tokenizer, run, files, seconds)
    return record


dpo = taking(DpoOptions, run_dpo)


def _scores(
    run: RunFolder, loaded: LoadedModel, pairs: Sequence[Row], name: str, progress: Progress, window: int | None
) -> Arrays:
    """The score `name` of every pair."""
    tokenizer = require_tokenizer(loaded.tokenizer, loaded.folder)
    bare = encode_pairs(pairs, tokenizer, window, bare=True)
    with progress.bars() as track:
        return pair_scores_in_run(run, loaded.parts, bare, [name], track)


def _record(
    options: DpoOptions,
    trainer: Trainer,
    monitor: DisplacementMonitor,
    data: Mapping[str, Any],
    fingerprint: str,
    versions: dict[str, str],
) -> PreferenceRun:
    return PreferenceRun(
        model=str(options.model),
        model_sha256=fingerprint,
        data=data["source"],
        data_sha256=data["sha256"],
        pairs=data["pairs"],
        trained_pairs=data["trained"],
        filter="none" if options.filter == "none" else f"{options.filter}, {options.keep:g} kept",
        sft_weight=options.sft,
        dpop_weight=options.dpop,
        reward_calibration=options.calibrate,
        beta=options.beta,
        optimizer=options.optimizer,
        learning_rate=options.learning_rate,
        steps=trainer.state.global_step,
        lora_rank=options.training.settled().lora_rank,
        seed=options.seed,
        losses=_losses(trainer),
        displacement=monitor.looks,
        band=monitor.bands,
        outside_band=float(np.mean([not band.inside for band in monitor.bands])),
        versions=versions,
    )


def _versions(trl: Any) -> dict[str, str]:
    """Of what decides the numbers."""
    return {
        "mneme": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": str(trl.__version__),
    }


def _settings(run: RunFolder, options: DpoOptions, pairs: int, window: int | None) -> dict[str, Any]:
    """What TRL's DPOConfig is made of, for that many pairs."""
    training, device = options.training.settled(), options.machine.device
    steps = training.steps or max(1, math.ceil(pairs / (training.batch * training.accumulate)))
    return {
        "output_dir": str(run.workspace(CHECKPOINTS)),
        "max_steps": steps,
        "optim": OPTIMIZERS[options.optimizer],
        "learning_rate": options.learning_rate,
        "lr_scheduler_type": "constant_with_warmup",
        "warmup_steps": max(1, steps // 20),
        "beta": options.beta,
        "per_device_train_batch_size": training.batch,
        "gradient_accumulation_steps": training.accumulate,
        "precompute_ref_log_probs": True,
        "precompute_ref_batch_size": training.batch,
        "max_length": window,
        "seed": options.seed,
        "use_cpu": device == "cpu",
        "bf16": False,
        "gradient_checkpointing": device != "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        **SAVING,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _trainer(
    trl: Any,
    loaded: LoadedModel,
    data: tuple[list[Row], list[EncodedPair], list[int]],
    options: DpoOptions,
    settings: dict[str, Any],
    looks: Path,
) -> tuple[Trainer, DisplacementMonitor]:
    """TRL's trainer with fixes and data, and the monitor of the model as it is before training. `data`: all pairs, their
    ids, and the numbers of those that are trained on."""
    from datasets import Dataset, disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

    pairs, encoded, kept = data
    seed, model, rank = options.seed, loaded.parts.model, options.training.settled().lora_rank
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(seed)).tolist()
    watched = [pairs[i] for i in order[: options.watch]]
    bars = is_progress_bar_enabled()
    disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that transformers, peft and TRL renamed for one another
            if rank is not None:
                model = attach_lora(model, rank, seed=seed)
            monitor = DisplacementMonitor(
                model,
                loaded.tokenizer,
                watched,
                every=options.watch_every,
                beta=options.beta,
                sft=options.sft,
                dpop=options.dpop,
                path=looks,
                console=options.progress.shown,
                seed=seed,
            )
            calibration = watched[:CALIBRATION_PAIRS] if options.calibrate else ()
            guarded = guard_dpo(trl.DPOTrainer, sft=options.sft, dpop=options.dpop, calibrate=calibration)
            trainer = guarded(
                model=model,
                args=trl.DPOConfig(**settings),
                train_dataset=Dataset.from_list([given_to_trl(encoded[i]) for i in kept]),
                processing_class=loaded.tokenizer,
                callbacks=[monitor],
            )
    finally:
        if bars:
            enable_progress_bars()
    trainer.remove_callback(PrinterCallback)
    return trainer, monitor


def _train(trainer: Trainer, run: RunFolder) -> dict[str, float]:
    """Trains, from the run's last sealed checkpoint if there is one; seconds it took here."""
    last = last_checkpoint(run)
    trainer.add_callback(KeepCheckpoints(run))
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
