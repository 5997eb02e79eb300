"""The closed loop: audit, repair, audit again. Composes the ladder of `mneme.repair` with the audit."""

import os
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers
from rich.console import Console

from mneme.audit.run import audit
from mneme.errors import BadOption
from mneme.models.checkpoints import model_fingerprint
from mneme.models.likelihood import token_log_likelihoods
from mneme.models.pair import ModelPair, load_model, load_pair
from mneme.repair.evidence import Evidence, read_audit, read_evidence
from mneme.repair.methods import METHODS, Correction, Task, fallen_texts, lacking, prepare_method
from mneme.repair.patching import Factors, Training
from mneme.repair.plan import plan_repair
from mneme.repair.saving import save_repaired
from mneme.repair.search import Development, best, check_methods, climb, develop, other_change
from mneme.repair.workbench import Workbench, lay_out
from mneme.report.reading import read_report
from mneme.results import Report
from mneme.results.repair import AbsentMethod, ProbeText, Reaudit, RepairMethod, RepairReport, SavedRepair
from mneme.runs import FinishedRun, RunFolder, require_apart
from mneme.terminal import Terminal
from mneme.text.probes import Probe, check_apart, read_probe
from mneme.version import __version__

GRAM_BYTES = 1 << 30
_OUTPUTS = ("model", "repair.json", "repair.html", "areas.yaml")


class _Asked(NamedTuple):
    """What was asked, checked."""

    methods: tuple[str, ...]
    goal: float
    seed: int
    training: Training
    retain_weight: float
    unaligned: str | Path | None
    options: dict[str, Any]


def repair(
    base: str | Path | None = None,
    tuned: str | Path | None = None,
    *,
    target: str | Path | None = None,
    retain: str | Path | None = None,
    other: str | Path | None = None,
    from_run: str | Path | None = None,
    method: str = "ladder",
    close: float = 0.8,
    out: str | Path = "runs/repair",
    unaligned: str | Path | None = None,
    steps: int = 60,
    learning_rate: float = 2e-3,
    retain_weight: float = 1.0,
    reaudit: bool = True,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    trust_remote_code: bool = False,
    overwrite: bool = False,
    console: Console | None = None,
) -> RepairReport:
    """Undo a side effect of the change from `base` to `tuned`, keep its purpose, and measure both.

    Either `target` (text on which the model shall be as the base again: what went wrong, or what was lost), `retain` (text
    of the purpose, on which it shall stay as tuned) and optionally `other` (ordinary text, for drift), each .txt, .jsonl
    (`text`, or `messages` of which the answers count) or .parquet; or `from_run`, the folder of a finished audit that was
    told what was intended: then text comes from its latents, and models, if not named, from its report. `method`: one of the
    ladder (the controls `scale` and `random` always run), or "ladder" for all. `close`: share of the target's change in
    likelihood to undo, on the development half of the text; the weakest strength that reaches it is taken. `unaligned`: the
    model before alignment, for `project` and `arithmetic`. `steps`, `learning_rate`, `retain_weight`: training of `patch`
    and `retrain`.

    `out` gets `model/` (the repaired model or adapter) and repair.json; no model where no method reaches `close`. The same
    call after a kill goes on. With `from_run` and `reaudit`, the audit is run again on the repaired model, into
    `out`/reaudit. Errors: a `MnemeError` before anything is written: NothingToRepair, BadCorpus, BadOption, BadRun,
    SingularHessian, ModelMismatch.
    """
    console = console or Terminal(stderr=True)
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    if not 0.0 < close <= 1.0:
        raise BadOption(f"--close {close:g}: expected a share above 0 and at most 1, such as 0.8.")
    if method != "ladder" and method not in METHODS:
        raise BadOption(f"No repair method {method!r}. The methods are: {', '.join(METHODS)}, and ladder for all of them.")
    finished = read_audit(Path(from_run)) if from_run is not None else None
    base, tuned = _models(base, tuned, finished)
    given = {"BASE": base, "TUNED": tuned, "--target": target, "--retain": retain, "--other": other}
    require_apart(out, {**given, "--from": from_run, "--unaligned": unaligned})
    options: dict[str, Any] = {"device": device, "trust_remote_code": trust_remote_code}
    pair = load_pair(base, tuned, **options)
    probes, evidence = _probes(pair, target, retain, other, finished)
    check_apart(probes["target"], probes["retain"])
    bench = lay_out(pair)
    training = Training(steps=steps, learning_rate=learning_rate, seed=seed)
    asked = _Asked(check_methods([method]), close, seed, training, retain_weight, unaligned, options)
    task, development = _task(bench, probes, evidence, asked)
    absent = [AbsentMethod(method=name, reason=reason) for name in asked.methods if (reason := lacking(name, task))]
    if any(item.method == method for item in absent):
        raise BadOption(f"{method} cannot be used here: {absent[0].reason}.")
    with RunFolder(Path(out), _command(pair, probes, asked), outputs=_OUTPUTS, overwrite=overwrite) as run:
        task = _with_kept_corrections(task, run)
        console.print(plan_repair(bench, probes, len(asked.methods) - len(absent)))
        found = [
            climb(name, task, development, close, run, seed=seed, say=console.print)
            for name in asked.methods
            if lacking(name, task) is None
        ]
        chosen = best(found) if method == "ladder" else (method if _reaches(found, method) else None)
        saved = _save(chosen, found, task, run)
        again = _reaudit(evidence, saved, pair, run, seed, console) if evidence is not None and reaudit else []
        report = _report(pair, bench, probes, task, development, found, absent, chosen, saved, again, asked)
        run.finish({"repair.json": report.to_json().encode()})
    return report


def _models(base: str | Path | None, tuned: str | Path | None, audited: FinishedRun | None) -> tuple[str | Path, str | Path]:
    if base is not None and tuned is not None:
        return base, tuned
    if base is not None or tuned is not None or audited is None:
        raise BadOption("Give both BASE and TUNED, or the folder of an audit with --from.")
    report = read_report(audited.folder)
    return report.pair.base, report.pair.tuned


def _probes(
    pair: ModelPair,
    target: str | Path | None,
    retain: str | Path | None,
    other: str | Path | None,
    audited: FinishedRun | None,
) -> tuple[dict[str, Probe], Evidence | None]:
    """Files win over what an audit gives; without an audit both `target` and `retain` are needed."""
    evidence = read_evidence(audited, pair.tokenizer) if audited is not None else None
    files = {"target": target, "retain": retain, "other": other}
    probes = {"target": evidence.target, "retain": evidence.retain, "other": evidence.other} if evidence is not None else {}
    for name, file in files.items():
        if file is not None:
            probes[name] = read_probe(file, pair.tokenizer, name=name, max_positions=pair.max_positions)
    missing = [name for name in ("target", "retain") if name not in probes]
    if missing:
        raise BadOption(
            f"No {' and no '.join(missing)} text. Give --target (text on which the model shall be as the base again) and "
            f"--retain "
            "(text of the purpose), or an audit with --from."
        )
    return probes, evidence


def _task(bench: Workbench, probes: dict[str, Probe], evidence: Evidence | None, asked: _Asked) -> tuple[Task, Development]:
    """The calibration halves for the methods, the development halves measured under base and tuned model."""
    (target, target_half), (retain, retain_half) = probes["target"].halves(), probes["retain"].halves()
    halves = {"target": target_half, "retain": retain_half}
    halves |= {"other": probes["other"]} if "other" in probes else {}
    with bench.pair.using("base") as parts:
        before = token_log_likelihoods(parts, target.texts)
    fallen = fallen_texts(target, before, token_log_likelihoods(bench.work, target.texts))
    unaligned = load_model(asked.unaligned, **asked.options).parts if asked.unaligned is not None else None
    directions = evidence.directions if evidence is not None else None
    task = Task(
        bench=bench,
        target=target,
        retain=retain,
        fallen=fallen,
        unaligned=unaligned,
        directions=directions,
        training=asked.training,
        retain_weight=asked.retain_weight,
        memory_bytes=GRAM_BYTES,
        kept_correction=lambda _name, train: train(),
    )
    return task, develop(task, halves, seed=asked.seed)


def _with_kept_corrections(task: Task, run: RunFolder) -> Task:
    """Trained corrections as stages of the run."""

    def kept(name: Correction, train: Callable[[], Factors]) -> Factors:
        def compute() -> dict[str, np.ndarray]:
            factors = train()
            pairs = {f"{layer}|up": up.cpu().numpy() for layer, (up, _) in factors.items()}
            return pairs | {f"{layer}|down": down.cpu().numpy() for layer, (_, down) in factors.items()}

        stored = run.stage(f"correction-{name}", compute)
        layers = [key.removesuffix("|up") for key in stored if key.endswith("|up")]
        return {
            layer: (torch.from_numpy(stored[f"{layer}|up"]), torch.from_numpy(stored[f"{layer}|down"])) for layer in layers
        }

    return replace(task, kept_correction=kept)


def _command(pair: ModelPair, probes: dict[str, Probe], asked: _Asked) -> dict[str, Any]:
    """Everything that decides the result, without the list of methods: another method reuses what was tried."""
    return {
        "command": "repair",
        "version": __version__,
        "base": model_fingerprint(pair.base_folder),
        "tuned": model_fingerprint(pair.tuned_folder),
        "probes": {name: _digest(probe) for name, probe in probes.items()},
        "unaligned": model_fingerprint(asked.unaligned) if asked.unaligned is not None else None,
        "training": vars(asked.training),
        "retain_weight": asked.retain_weight,
        "seed": asked.seed,
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


def _reaudit(
    evidence: Evidence, saved: SavedRepair | None, pair: ModelPair, run: RunFolder, seed: int, console: Console
) -> list[Reaudit]:
    """The same audit of base and repaired model; every area that either of the two reports."""
    if saved is None:
        return []
    import yaml

    run.write("areas.yaml", yaml.safe_dump(evidence.command["areas"], sort_keys=False).encode())
    after = audit(
        pair.base_folder,
        run.folder / saved.folder,
        corpus=evidence.report.corpus.source,
        areas=run.folder / "areas.yaml",
        out=run.folder / "reaudit",
        overwrite=True,
        dictionary=evidence.command["dictionary"],
        tokens=evidence.report.corpus.tokens,
        intended=evidence.command["intended"],
        seed=seed,
        threads=torch.get_num_threads(),
        console=console,
    )
    return compare(evidence.report, after)


def compare(before: Report, after: Report) -> list[Reaudit]:
    """Areas that both audits judged, those of highest probability first (the larger of the two)."""
    later = {effect.area: effect for effect in after.effects}
    both = [
        Reaudit(
            area=effect.area,
            kind=effect.kind,
            intended=effect.intended,
            probability_before=effect.probability,
            probability_after=later[effect.area].probability,
            before=effect.magnitude,
            after=later[effect.area].magnitude,
        )
        for effect in before.effects
        if effect.area in later
    ]
    return sorted(both, key=lambda r: -max(r.probability_before, r.probability_after))


def _report(
    pair: ModelPair,
    bench: Workbench,
    probes: dict[str, Probe],
    task: Task,
    development: Development,
    found: list[RepairMethod],
    absent: list[AbsentMethod],
    chosen: str | None,
    saved: SavedRepair | None,
    again: list[Reaudit],
    asked: _Asked,
) -> RepairReport:
    task.bench.restore()
    return RepairReport(
        base=pair.base_name,
        tuned=pair.tuned_name,
        adapter=pair.adapter,
        changed_layers=len(bench.names),
        goal=asked.goal,
        target=_told(development, "target", probes["target"]),
        retain=_told(development, "retain", probes["retain"]),
        other=_told(development, "other", probes["other"]) if "other" in probes else None,
        methods=found,
        absent=absent,
        chosen=chosen,
        tuned_coherent=development.coherence.judge(task.bench.work),
        tuned_other_change=other_change(development, development.tuned, seed=asked.seed),
        saved=saved,
        reaudit=again,
        seed=asked.seed,
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
