"""Supervised fine-tuning with safeguards: a thin shell on TRL's SFTTrainer that checks first, resumes, and keeps records.

Everything that decides the result is in the key of the run folder; the same call after a kill goes on from the last whole
checkpoint and gives the same losses.
"""

import json
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback

from mneme.errors import BadOption
from mneme.models.adapter_files import whole_fingerprint
from mneme.models.adapters import lora_config
from mneme.models.checkpoints import model_fingerprint
from mneme.models.likelihood import mean_nll
from mneme.models.pair import LoadedModel, load_model, load_pair
from mneme.models.threads import computing_threads
from mneme.models.tokenizers import require_tokenizer
from mneme.models.trainers import (
    CHECKPOINTS,
    SAVING,
    KeepCheckpoints,
    import_trl,
    last_checkpoint,
    recompute_activations,
    save_trained,
)
from mneme.options import deciding, loading, stored, taking
from mneme.results.train import TrainingRecord
from mneme.runs import RunFolder, require_apart
from mneme.text.files import Row
from mneme.text.reading import SKIPPED_ROWS, TakenRows, skipped_rows
from mneme.text.rows import encode_row, encode_rows, fitting_rows, read_rows, rows_hash
from mneme.text.templates import template_key
from mneme.train.baselines import StopEarly
from mneme.train.guarding import guard
from mneme.train.learned import lean
from mneme.train.mixing import inoculate, interleave, interleave_gap, relative_gap, with_contexts
from mneme.train.options import TrainOptions
from mneme.train.penalties import Penalty, Probes, kl_base_to_tuned, kl_tuned_to_base, ldifs
from mneme.train.personas import PersonaVectors, load_personas
from mneme.train.plan import TrainingWork, plan_training
from mneme.train.progress import ShowProgress, quiet, record_of
from mneme.train.safeguards import check_needs
from mneme.train.steering import check_fit, steer
from mneme.version import __version__

_OUTPUTS = ("model", "training.json", SKIPPED_ROWS)
PENALTIES = {"kl": kl_tuned_to_base, "kl-base-to-tuned": kl_base_to_tuned, "ldifs": ldifs}
HELD_OUT_SHARE = 0.1
EVALUATIONS = 20
"""How often held-out rows are looked at in a run that may stop early."""


@dataclass(frozen=True)
class Prepared:
    """What a training starts from: the rows as they are trained on, those kept out, and what the safeguards read."""

    rows: list[Row]
    held_out: list[Row]
    safe: list[Row]
    interleaved: int
    personas: PersonaVectors | None
    max_length: int


def run_train(options: TrainOptions) -> TrainingRecord:
    """Fine-tune `base` on `data` with TRL's SFTTrainer and the `safeguards` named (name -> strength, see `SAFEGUARDS`).

    `data`, `safe`: a file of rows (`mneme.text.files`), or rows (`mneme.text.shapes`); the last answer of a row is
    learned. With `safe`, the penalties are measured on `probe_rows` of its rows a step (default: a quarter of the batch)
    instead of the training batch. `training.lora_rank` None trains all weights. `out` gets `model/` (an adapter, or a
    model), `training.json` and `timings.json`.

    Raises a MnemeError before any training for everything that can be known before. Needs the extra `train`.
    """
    named = {"BASE": options.base, "DATA": options.data, "--safe": options.safe, "--vectors": options.vectors}
    require_apart(options.out, {**named, "--misaligned": list(options.misaligned)})
    chosen = options.chosen
    given = {"safe": options.safe is not None, "vectors": options.vectors is not None}
    check_needs(chosen, {**given, "misaligned": bool(options.misaligned), "inoculation": bool(options.inoculation)})
    trl = import_trl("training")
    read = read_rows(options.data, "the training rows")
    safe = None if options.safe is None else read_rows(options.safe, "the safe rows")
    with computing_threads(options.machine.threads):
        model = load_model(options.base, **loading(options))
        read, safe, prepared, notes = _checked(model, read, safe, options)
        options.progress.say_all(notes)
        command = {
            "command": "train",
            "version": __version__,
            "base": whole_fingerprint(model.folder, options.adapter_base),
            "data": rows_hash(read.rows),
            "safe": rows_hash(prepared.safe),
            "safeguards": dict(sorted(chosen.items())),
            "vectors": _vector_numbers(options.vectors),
            "misaligned": [model_fingerprint(folder) for folder in options.misaligned],
            "learning_rate": options.learning_rate,
            **deciding(options),
            **template_key(options.chat_template),
        }
        folder, kept = Path(options.out), stored(options)
        with RunFolder(folder, command, options=kept, outputs=_OUTPUTS, overwrite=options.overwrite) as run:
            prepared = _mixed(prepared, options, model, run)
            last = last_checkpoint(run)
            trainer = _trainer(trl, model, prepared, options, _settings(prepared, options, run), afresh=last is None)
            trainer.add_callback(KeepCheckpoints(run))
            seconds = _train(trainer, model, prepared, chosen, last)
            fingerprints = {"base": command["base"], "data": command["data"]}
            record = record_of(trainer, options, fingerprints, prepared.rows, prepared.interleaved)
            record = record.model_copy(update={"notes": [*model.notes, *notes]})
            files = {"training.json": record.to_json().encode(), **skipped_rows(read, safe)}
            save_trained(trainer, model.tokenizer, run, files, seconds)
    return record


train = taking(TrainOptions, run_train)


def _vector_numbers(vectors: str | Path | PersonaVectors | None) -> list[float]:
    if vectors is None:
        return []
    found = vectors if isinstance(vectors, PersonaVectors) else load_personas(Path(vectors))
    return [*found.vectors.double().flatten().tolist(), -1.0 if found.layer is None else float(found.layer)]


def _checked(
    model: LoadedModel, read: TakenRows, safe: TakenRows | None, options: TrainOptions
) -> tuple[TakenRows, TakenRows | None, Prepared, list[str]]:
    """Everything that can be wrong with the inputs, before anything is written: the rows without those that do not fit, and
    how they were read, in sentences."""
    tokenizer = require_tokenizer(model.tokenizer, model.folder)
    window = getattr(model.parts.model.config.get_text_config(), "max_position_embeddings", None)
    length = min(options.max_length or window or 1024, window or options.max_length or 1024)
    read, _, facts = fitting_rows(read, tokenizer, length)
    lines = [model.template, read.told(), *facts]
    if safe is not None:
        safe, _, facts = fitting_rows(safe, tokenizer, length)
        lines += [safe.told(), *facts]
    personas, vectors = None, options.vectors
    if vectors is not None:
        personas = vectors if isinstance(vectors, PersonaVectors) else load_personas(Path(vectors))
        check_fit(model.parts, personas.vectors)
    rows = safe.rows if safe is not None else []
    prepared = Prepared(rows=read.rows, held_out=[], safe=rows, interleaved=0, personas=personas, max_length=length)
    return read, safe, prepared, list(dict.fromkeys(lines))


def _given_to_trl(row: Row, model: LoadedModel, prepared: Prepared) -> dict[str, list[int]]:
    """A row as ids: what was checked is what is trained on, and a template is rendered in the confined process alone."""
    assert model.tokenizer is not None
    text = encode_row(row, model.tokenizer).first(prepared.max_length)
    return {"input_ids": list(text.ids), "completion_mask": [int(counts) for counts in text.counted]}


def _mixed(prepared: Prepared, options: TrainOptions, model: LoadedModel, run: RunFolder) -> Prepared:
    """The data safeguards, in their order: rows held out, prompts before the rest, contexts before safe rows, rows
    interleaved."""
    rows, held_out, safe = prepared.rows, prepared.held_out, prepared.safe
    chosen, seed, inoculation = options.chosen, options.seed, options.inoculation
    if "early-stop" in chosen:
        count = min(200, max(1, round(len(rows) * HELD_OUT_SHARE)))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).tolist()
        held_out = [rows[i] for i in sorted(order[:count])]
        rows = [rows[i] for i in sorted(order[count:])]
    if not rows:
        raise BadOption("early stopping keeps a tenth of the rows out, and none is left. Give more rows.")
    asked = rows
    if "inoculate" in chosen and inoculation:
        rows, held_out = inoculate(rows, inoculation), inoculate(held_out, inoculation)
    if "contexts" in chosen:
        safe = with_contexts(safe, asked, share=chosen["contexts"], seed=seed)
    before = len(rows)
    if "interleave" in chosen:
        rows = interleave(rows, safe, chosen["interleave"], seed=seed)
    if "interleave-gap" in chosen:

        def gaps() -> dict[str, Any]:
            aligned = mean_nll(model.parts, encode_rows(safe, model.tokenizer, prepared.max_length))
            found = []
            for folder in options.misaligned:
                pair = load_pair(options.base, folder, **loading(options))
                with pair.using("tuned") as parts:
                    found.append(mean_nll(parts, encode_rows(safe, pair.tokenizer, prepared.max_length)))
            return {"gaps": relative_gap(np.stack(found), aligned)}

        rows = interleave_gap(rows, safe, run.stage("gaps", gaps)["gaps"], chosen["interleave-gap"], seed=seed)
    return Prepared(
        rows=rows,
        held_out=held_out,
        safe=safe,
        interleaved=len(rows) - before,
        personas=prepared.personas,
        max_length=prepared.max_length,
    )


def _settings(prepared: Prepared, options: TrainOptions, run: RunFolder) -> dict[str, Any]:
    """The arguments of SFTConfig."""
    training, chosen, device = options.training.settled(), options.chosen, options.machine.device
    steps = max(1, round(training.epochs * -(-len(prepared.rows) // (training.batch * training.accumulate))))
    early = "early-stop" in chosen
    return {
        "output_dir": str(run.workspace(CHECKPOINTS)),
        "max_steps": steps,
        "learning_rate": options.learning_rate * chosen.get("lower-lr", 1.0),
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, round(0.05 * steps)),
        "per_device_train_batch_size": training.batch,
        "per_device_eval_batch_size": training.batch,
        "gradient_accumulation_steps": training.accumulate,
        "max_length": prepared.max_length,
        "completion_only_loss": True,
        "seed": options.seed,
        "use_cpu": device == "cpu",
        "bf16": False,
        "gradient_checkpointing": device != "cpu",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        **SAVING,
        "report_to": "none",
        "disable_tqdm": True,
        "eval_strategy": "steps" if early else "no",
        "eval_steps": max(1, steps // EVALUATIONS) if early else None,
        "prediction_loss_only": True,
    }


def _trainer(
    trl: Any, model: LoadedModel, prepared: Prepared, options: TrainOptions, settings: dict[str, Any], *, afresh: bool
) -> Trainer:
    """TRL's trainer, guarded, with its data."""
    from datasets import Dataset, disable_progress_bars, enable_progress_bars, is_progress_bar_enabled

    chosen, rank = options.chosen, options.training.lora_rank or None
    penalties = _penalties(prepared, options)
    protect = prepared.personas.vectors if prepared.personas is not None and "project" in chosen else None
    lora = lora_config(rank) if rank is not None else None
    early = bool(prepared.held_out)
    callbacks: list[TrainerCallback] = [ShowProgress(options.progress)]
    if early:
        callbacks.append(StopEarly(chosen["early-stop"]))
    model.parts.model.config.name_or_path = str(options.base)
    bars = is_progress_bar_enabled()
    disable_progress_bars()
    rows, held_out = ([_given_to_trl(row, model, prepared) for row in part] for part in (prepared.rows, prepared.held_out))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # names that transformers, peft and TRL renamed for one another
            torch.manual_seed(options.seed)  # TRL before 1.16 draws the adapter's weights before it sets the seed
            trainer = guard(lean(trl.SFTTrainer), penalties, protect=protect)(
                model=model.parts.model,
                args=trl.SFTConfig(**settings, eval_on_start=early and afresh),
                train_dataset=Dataset.from_list(rows),
                eval_dataset=Dataset.from_list(held_out) if early else None,
                processing_class=model.tokenizer,
                peft_config=lora,
                callbacks=callbacks,
            )
    finally:
        if bars:
            enable_progress_bars()
    quiet(trainer)
    _say_plan(trainer, model, prepared, options, penalties)
    return trainer


def _say_plan(
    trainer: Any, model: LoadedModel, prepared: Prepared, options: TrainOptions, penalties: Sequence[Penalty]
) -> None:
    """Says what the run will cost, and has activations made twice where they would not fit into memory."""
    batch, steps = options.training.settled().batch, trainer.args.max_steps
    probed = sum(penalty.probes.batch_rows for penalty in penalties if penalty.probes is not None)
    held_out = sum(len(ids) for ids in trainer.eval_dataset["input_ids"]) if prepared.held_out else 0
    batches = steps * trainer.args.gradient_accumulation_steps
    plan = plan_training(
        model.parts,
        list(trainer.train_dataset),
        require_tokenizer(model.tokenizer, model.folder).pad_token_id or 0,
        TrainingWork(
            batches=batches,
            batch_rows=batch,
            base_passes=float(any(penalty.probes is None for penalty in penalties)),
            own_rows=probed / batch,
            held_out_tokens=held_out * (1 + EVALUATIONS),
        ),
        lean=trainer.cuts_batches,
        seed=options.seed,
    )
    if plan.recomputes:
        recompute_activations(trainer)
    options.progress.say(plan.told(steps, len(prepared.rows), prepared.interleaved))


def _penalties(prepared: Prepared, options: TrainOptions) -> list[Penalty]:
    count = options.probe_rows or max(1, options.training.settled().batch // 4)
    probes = Probes(prepared.safe, count, options.seed, prepared.max_length) if prepared.safe else None
    return [make(options.chosen[name], probes) for name, make in PENALTIES.items() if name in options.chosen]


def _train(
    trainer: Trainer, model: LoadedModel, prepared: Prepared, chosen: Mapping[str, float], last: Path | None
) -> dict[str, float]:
    """Trains, from the checkpoint `last` if there is one; seconds it took here."""
    done = json.loads((last / "trainer_state.json").read_text())["global_step"] if last else 0
    started = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        if "steer" in chosen and prepared.personas is not None:
            vectors, layer = prepared.personas.vectors, prepared.personas.layer
            stack.enter_context(steer(model.parts, vectors, strength=chosen["steer"], layer=layer))
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    took = time.perf_counter() - started
    return {"training": took, "seconds_per_step": took / max(1, trainer.state.global_step - done)}
