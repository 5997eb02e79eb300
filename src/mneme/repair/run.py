"""The closed loop: audit, repair, audit again. Composes the strength search of `mneme.repair` with the audit."""

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml

from mneme.audit.artifacts import audited_options, read_audit
from mneme.audit.run import run_audit
from mneme.errors import BadOption
from mneme.models.checkpoints import model_fingerprint
from mneme.models.likelihood import token_log_likelihoods
from mneme.models.pair import ModelPair, load_model, load_pair
from mneme.models.threads import computing_threads
from mneme.options import deciding, loading, stored, taking
from mneme.repair.evidence import Evidence, read_evidence
from mneme.repair.methods import Correction, Task, fallen_texts, lacking, prepare_method
from mneme.repair.options import RepairOptions
from mneme.repair.patching import CorrectionTraining, Factors
from mneme.repair.plan import plan_repair
from mneme.repair.saving import save_repaired
from mneme.repair.search import Development, best, check_methods, climb, develop, other_change
from mneme.repair.workbench import Workbench, lay_out
from mneme.results import Report
from mneme.results.repair import AbsentMethod, ProbeText, Reaudit, RepairMethod, RepairReport, SavedRepair
from mneme.runs import FinishedRun, RunFolder, require_apart
from mneme.text.probes import Probe, check_apart, read_probe
from mneme.text.reading import SKIPPED_ROWS, skipped_rows
from mneme.text.templates import template_key
from mneme.version import __version__

GRAM_BYTES = 1 << 30
_OUTPUTS = ("model", "repair.json", "repair.html", "areas.yaml", SKIPPED_ROWS)


def run_repair(options: RepairOptions) -> RepairReport:
    """Undo a side effect of the change from `base` to `tuned`, keep its purpose, and measure both.

    Either `target` (text on which the model shall be as the base again: what went wrong, or what was lost), `retain` (text
    of the purpose, on which it shall stay as tuned) and optionally `other` (ordinary text, for drift), each .txt, .jsonl
    (`text`, or `messages` of which the answers count) or .parquet; or `from_run`, the folder of a finished audit that was
    told what was intended: then text comes from its latents, and models, if not named, from its report. `method`: one of
    the methods (the controls `scale` and `random` always run), or "all" for all. `close`: share of the target's change in
    likelihood to undo, on the development half of the text; the weakest strength that reaches it is taken. `unaligned`: the
    model before alignment, for `project` and `arithmetic`. `training`, `retain_weight`: of `patch` and `retrain`.

    `out` gets `model/` (the repaired model or adapter) and repair.json; no model where no method reaches `close`. The same
    call after a kill goes on. With `from_run` and `reaudit`, the audit is run again on the repaired model with all options
    that it had, into `out`/reaudit. Errors: a `MnemeError` before anything is written: NothingToRepair, BadCorpus,
    BadOption, BadRun, SingularHessian, ModelMismatch.
    """
    finished = read_audit(Path(options.from_run)) if options.from_run is not None else None
    options = replace(options, **_models(options, finished))
    given = {"BASE": options.base, "TUNED": options.tuned, "--target": options.target, "--retain": options.retain}
    others = {"--other": options.other, "--from": options.from_run, "--unaligned": options.unaligned}
    require_apart(options.out, {**given, **others})
    with computing_threads(options.machine.threads):
        return _repaired(options, finished)


repair = taking(RepairOptions, run_repair)


def _repaired(options: RepairOptions, finished: FinishedRun | None) -> RepairReport:
    assert options.base is not None
    assert options.tuned is not None
    pair = load_pair(options.base, options.tuned, **loading(options))
    probes, evidence = _probes(pair, options, finished)
    check_apart(probes["target"], probes["retain"])
    bench = lay_out(pair)
    methods = check_methods([options.method])
    task, development = _task(bench, probes, evidence, options)
    absent = [AbsentMethod(method=name, reason=reason) for name in methods if (reason := lacking(name, task))]
    if any(item.method == options.method for item in absent):
        raise BadOption(f"{options.method} cannot be used here: {absent[0].reason}.")
    folder, kept = Path(options.out), stored(options)
    opened = RunFolder(folder, _command(pair, probes, options), options=kept, outputs=_OUTPUTS, overwrite=options.overwrite)
    with opened as run:
        task = _with_kept_corrections(task, run)
        options.progress.say(plan_repair(bench, probes, [name for name in methods if lacking(name, task) is None], GRAM_BYTES))
        found = [
            climb(name, task, development, options.close, run, seed=options.seed, say=options.progress.say)
            for name in methods
            if lacking(name, task) is None
        ]
        chosen = best(found) if options.method == "all" else (options.method if _reaches(found, options.method) else None)
        saved = _save(chosen, found, task, run)
        again = _reaudit(evidence, saved, run, options) if evidence is not None and options.reaudit else []
        outcome = RepairOutcome(found=found, absent=absent, chosen=chosen, saved=saved, reaudit=again)
        report = _report(task, probes, development, outcome, options)
        told = (*pair.notes, pair.template, *(note for probe in probes.values() for note in probe.notes))
        report = report.model_copy(update={"notes": list(dict.fromkeys(told))})
        run.finish({"repair.json": report.to_json().encode(), **skipped_rows(*probes.values())})
    return report


@dataclass(frozen=True, kw_only=True)
class RepairOutcome:
    """What was tried, what could not be, and what came of it."""

    found: list[RepairMethod]
    absent: list[AbsentMethod]
    chosen: str | None
    saved: SavedRepair | None
    reaudit: list[Reaudit]


def _models(options: RepairOptions, audited: FinishedRun | None) -> dict[str, Any]:
    if options.base is not None and options.tuned is not None:
        return {}
    if options.base is not None or options.tuned is not None or audited is None:
        raise BadOption("Give both BASE and TUNED, or the folder of an audit with --from.")
    asked = audited_options(audited)
    return {"base": asked.base, "tuned": asked.tuned, "adapter_base": options.adapter_base or asked.adapter_base}


def _probes(pair: ModelPair, options: RepairOptions, audited: FinishedRun | None) -> tuple[dict[str, Probe], Evidence | None]:
    """Files win over what an audit gives; without an audit both `target` and `retain` are needed."""
    evidence = read_evidence(audited, pair.tokenizer) if audited is not None else None
    files = {"target": options.target, "retain": options.retain, "other": options.other}
    probes = {"target": evidence.target, "retain": evidence.retain, "other": evidence.other} if evidence is not None else {}
    for name, file in files.items():
        if file is not None:
            probes[name] = read_probe(file, pair.tokenizer, name=name, max_positions=pair.max_positions)
            options.progress.say_all(probes[name].notes)
    missing = [name for name in ("target", "retain") if name not in probes]
    if missing:
        raise BadOption(
            f"No {' and no '.join(missing)} text. Give --target (text on which the model shall be as the base again) and "
            f"--retain "
            "(text of the purpose), or an audit with --from."
        )
    return probes, evidence


def _task(
    bench: Workbench, probes: dict[str, Probe], evidence: Evidence | None, options: RepairOptions
) -> tuple[Task, Development]:
    """The calibration halves for the methods, the development halves measured under base and tuned model."""
    (target, target_half), (retain, retain_half) = probes["target"].halves(), probes["retain"].halves()
    halves = {"target": target_half, "retain": retain_half}
    halves |= {"other": probes["other"]} if "other" in probes else {}
    with bench.pair.using("base") as parts:
        before = token_log_likelihoods(parts, target.texts)
    fallen = fallen_texts(target, before, token_log_likelihoods(bench.work, target.texts))
    unaligned = load_model(options.unaligned, **loading(options)).parts if options.unaligned is not None else None
    directions = evidence.directions if evidence is not None else None
    task = Task(
        bench=bench,
        target=target,
        retain=retain,
        fallen=fallen,
        unaligned=unaligned,
        directions=directions,
        training=_correction(options),
        retain_weight=options.retain_weight,
        memory_bytes=GRAM_BYTES,
        kept_correction=lambda _name, train: train(None),
    )
    return task, develop(task, halves, seed=options.seed)


def _with_kept_corrections(task: Task, run: RunFolder) -> Task:
    """Trained corrections as stages of the run, whose training goes on after a kill."""

    def kept(name: Correction, train: Callable[[Path | None], Factors]) -> Factors:
        def compute() -> dict[str, np.ndarray]:
            factors = train(run.workspace("training") / f"{name}.safetensors")
            pairs = {f"{layer}|up": up.cpu().numpy() for layer, (up, _) in factors.items()}
            return pairs | {f"{layer}|down": down.cpu().numpy() for layer, (_, down) in factors.items()}

        stored = run.stage(f"correction-{name}", compute)
        layers = [key.removesuffix("|up") for key in stored if key.endswith("|up")]
        return {
            layer: (torch.from_numpy(stored[f"{layer}|up"]), torch.from_numpy(stored[f"{layer}|down"])) for layer in layers
        }

    return replace(task, kept_correction=kept)


def _correction(options: RepairOptions) -> CorrectionTraining:
    training = options.training
    if training.steps is None or training.learning_rate is None:
        raise BadOption("patch and retrain need a number of steps and a learning rate. Give both in training.")
    return CorrectionTraining(steps=training.steps, learning_rate=training.learning_rate, seed=options.seed)


def _command(pair: ModelPair, probes: dict[str, Probe], options: RepairOptions) -> dict[str, Any]:
    """Everything that decides the result, without the method: another one reuses what was tried."""
    return {
        "command": "repair",
        "version": __version__,
        "base": model_fingerprint(pair.base_folder),
        "tuned": model_fingerprint(pair.tuned_folder),
        "probes": {name: _digest(probe) for name, probe in probes.items()},
        "unaligned": model_fingerprint(options.unaligned) if options.unaligned is not None else None,
        **deciding(options),
        **template_key(options.chat_template),
    }


def _digest(probe: Probe) -> str:
    import hashlib

    return hashlib.sha256(repr(tuple(zip(*probe.texts, strict=True))).encode()).hexdigest()


def _reaches(found: list[RepairMethod], name: str) -> bool:
    return any(method.method == name and method.chosen is not None for method in found)


def _save(chosen: str | None, found: list[RepairMethod], task: Task, run: RunFolder) -> SavedRepair | None:
    point = next((method.chosen for method in found if method.method == chosen), None)
    if chosen is None or point is None:
        return None
    prepare_method(chosen, task)(point.strength)
    return save_repaired(task.bench, run)


def _reaudit(evidence: Evidence, saved: SavedRepair | None, run: RunFolder, options: RepairOptions) -> list[Reaudit]:
    """The same audit of base and repaired model; every area that either of the two reports."""
    if saved is None:
        return []
    areas = None
    if evidence.options.areas is not None:  # as they were read then, whatever the file says now
        areas = run.folder / "areas.yaml"
        run.write(areas.name, yaml.safe_dump(evidence.areas, sort_keys=False).encode())
    after = run_audit(
        replace(
            evidence.options,
            areas=areas,
            tuned=run.folder / saved.folder,
            out=run.folder / "reaudit",
            overwrite=True,
            progress=options.progress,
        )
    )
    return compare(evidence.report, after)


def compare(before: Report, after: Report) -> list[Reaudit]:
    """Areas that both audits judged, those of highest probability first (the larger of the two)."""
    later = {effect.area: effect for effect in after.effects}
    both = sorted((one for one in before.effects if one.area in later), key=lambda e: -max(e.standing, later[e.area].standing))
    return [
        Reaudit(
            area=effect.area,
            kind=effect.kind,
            intended=effect.intended,
            probability_before=effect.probability,
            probability_after=later[effect.area].probability,
            before=effect.magnitude,
            after=later[effect.area].magnitude,
        )
        for effect in both
    ]


def _report(
    task: Task, probes: dict[str, Probe], development: Development, outcome: RepairOutcome, options: RepairOptions
) -> RepairReport:
    pair = task.bench.pair
    task.bench.restore()
    return RepairReport(
        base=pair.base_name,
        tuned=pair.tuned_name,
        adapter=pair.adapter,
        changed_layers=len(task.bench.names),
        goal=options.close,
        target=_told(development, "target", probes["target"]),
        retain=_told(development, "retain", probes["retain"]),
        other=_told(development, "other", probes["other"]) if "other" in probes else None,
        methods=outcome.found,
        absent=outcome.absent,
        chosen=outcome.chosen,
        tuned_coherent=development.coherence.judge(task.bench.work),
        tuned_other_change=other_change(development, development.tuned, seed=options.seed),
        saved=outcome.saved,
        reaudit=outcome.reaudit,
        seed=options.seed,
        versions={
            "mneme": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )


def _told(development: Development, name: str, probe: Probe) -> ProbeText:
    change = float(np.abs(development.tuned[name] - development.base[name]).mean())
    return ProbeText(
        source=probe.name,
        texts=len(probe.texts),
        tokens=sum(sum(text.counted) for text in probe.texts),
        change=change,
        examples=[text[:300] for text in probe.words[:4]],
    )
