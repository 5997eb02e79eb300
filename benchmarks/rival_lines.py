"""How each tool of `rivals.py` is called for two local models, and what it is given that it cannot do without.

Every recipe writes what it needs into `out` (not timed) and returns the command lines (timed, one after another).
"""

import hashlib
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

import mneme


class Pair(NamedTuple):
    """Two models, the text that goes with them, and questions about what the fine-tune may have changed."""

    base: str
    tuned: str
    corpus: str
    areas: str
    questions: str
    long: bool
    """Whether a context of 256 tokens and a full audit are not what it has: a real model."""


Lines = list[list[str]]

FITTING = """
from finetunecheck import cli
from finetunecheck.config import QuickConfig
from finetunecheck.eval.runner import EvalRunner
cli._print_results(EvalRunner(QuickConfig(base_model={base!r}, finetuned_model={tuned!r}, device="cpu", max_tokens=64)).run())
"""
"""`ftcheck quick` with answers of 64 tokens: its 512 do not fit into a context of 256, and its command line has no option."""


TOLD = """
import mneme
report = mneme.read_report({run!r})
print(report.verdict, "-", report.reason)
said = {{}}
for one in report.effects:
    size = f" {{100 * one.magnitude.plain:+.0f}}" if one.finding == "affected" else ""
    said.setdefault(one.finding, []).append(one.area + size)
for finding, areas in said.items():
    print(f"{{finding}}: {{', '.join(areas)}};")
"""
"""Verdict, and what is said of each area: the first lines of the terminal say the same with intervals."""


def of_mneme(pair: Pair, _folder: Path, out: Path) -> Lines:
    """The audit; of a real model without dictionaries, which take half an hour on one thread."""
    line = ["mneme", "audit", pair.base, pair.tuned, "--corpus", pair.corpus, "--out", str(out / "run")]
    shutil.rmtree(out / "run", ignore_errors=True)
    told = ["python", "-c", TOLD.format(run=str(out / "run"))]
    return [[*line, "--areas", pair.areas, "--dictionary", "none"] if pair.long else line, told]


def of_modeldiffr(pair: Pair, folder: Path, out: Path) -> Lines:
    """Its audit with the suite that needs no download."""
    return [[str(folder / "bin" / "modeldiffr"), "audit", pair.base, pair.tuned, "--out", str(out)]]


def of_finetunecheck(pair: Pair, folder: Path, out: Path) -> Lines:
    """Its quick check; see FITTING."""
    if pair.long:
        return [[str(folder / "bin" / "ftcheck"), "quick", pair.base, pair.tuned, "--report", str(out / "report.html")]]
    return [[str(folder / "bin" / "python"), "-c", FITTING.format(base=pair.base, tuned=pair.tuned)]]


def of_sway(pair: Pair, folder: Path, out: Path) -> Lines:
    """Its check of an adapter that is made of the two checkpoints: it takes nothing else."""
    return [[str(folder / "bin" / "sway"), "check", str(as_adapter(pair, out / "adapter")), "--base", pair.base]]


def of_pyrecall(pair: Pair, folder: Path, out: Path) -> Lines:
    """A snapshot of each model under one name, and its check of the two: it takes no path, so the name is a link."""
    program, project = str(folder / "bin" / "pyrecall"), out / "project"
    shutil.rmtree(project, ignore_errors=True)
    (project / "local").mkdir(parents=True)
    inside = ["env", "-C", str(project)]

    def link(target: str) -> list[str]:
        return [*inside, "ln", "-sfn", target, "local/model"]

    return [
        link(pair.base),
        [*inside, program, "init", "--model", "local/model"],
        [*inside, program, "snapshot", "base"],
        link(pair.tuned),
        [*inside, program, "snapshot", "tuned"],
        [*inside, program, "check", "--before", "base", "--after", "tuned"],
    ]


def of_invarlock(pair: Pair, folder: Path, out: Path) -> Lines:
    """Its comparison of recorded answers: the questions and their answers are ours (`mneme measure`), as is the policy.

    A native run of its own takes a container image. Policy: no area's accuracy lower by more than 10 points, at an interval
    no wider than 40.
    """
    shutil.rmtree(out, ignore_errors=True)
    (out / "inputs").mkdir(parents=True)
    mneme.measure(pair.base, [pair.tuned], suite=pair.questions, out=out / "measured")
    rows: list[list[dict[str, Any]]] = []
    for number, side in enumerate(("baseline", "subject")):
        log = json.loads((out / "measured" / "inspect" / f"{number}.json").read_text("utf-8"))
        rows.append([_record(sample) for sample in log["samples"]])
        digest = hashlib.sha256(pair[number].encode()).hexdigest()
        run = {
            "format": "invarlock/evaluation-run-v1",
            "source": {"name": "mneme measure", "version": mneme.__version__},
            "run_id": side,
            "artifact_digest": f"sha256:{digest}",
            "source_digest": None,
            "score_provenance": {},
            "records": rows[-1],
        }
        (out / "inputs" / f"{side}.json").write_text(json.dumps(run), "utf-8")
    areas = sorted({row["metadata"]["area"] for row in rows[0]})
    metric = {
        "name": "accuracy",
        "kind": "normalized_match",
        "aggregation": "mean",
        "configuration": {"unicode_version": "15.0.0"},
        "direction": "higher",
        "unit": "score",
        "maximum_regression": 0.1,
        "maximum_interval_width": 0.4,
        "minimum_count": 10,
    }
    slices = [{"name": area, "where": {"area": area}} for area in areas]
    policy = {"format": "invarlock/comparison-policy-v1", "metrics": [metric], "slices": slices}
    (out / "policy.json").write_text(json.dumps(policy), "utf-8")
    sides = {side: {"adapter": "invarlock", "path": f"inputs/{side}.json"} for side in ("baseline", "subject")}
    request = {
        "format_version": "invarlock/evaluation-request-v2",
        "comparison": {**sides, "policy": "policy.json"},
        "execution": {"mode": "captured"},
        "output": {"evidence": "evidence"},
    }
    (out / "request.yaml").write_text(json.dumps(request), "utf-8")
    inside = ["env", "-C", str(out), str(folder / "bin" / "invarlock")]
    return [[*inside, "evaluate", "request.yaml", "--unsigned"], [*inside, "report", "evidence"]]


LINES: dict[str, Callable[[Pair, Path, Path], Lines]] = {
    "mneme": of_mneme,
    "invarlock": of_invarlock,
    "modeldiffr": of_modeldiffr,
    "finetunecheck": of_finetunecheck,
    "dlm-sway": of_sway,
    "pyrecall": of_pyrecall,
}


def _record(sample: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": sample["id"],
        "input": sample["input"],
        "expected": sample["target"],
        "output": sample["output"]["completion"],
        "metadata": {"area": sample["metadata"]["area"]},
        "context": {},
        "error": None,
        "scores": {},
    }


def as_adapter(pair: Pair, out: Path) -> Path:
    """The change of every linear layer of the blocks as a LoRA adapter of full rank, so that nothing of it is lost.

    Embeddings and norms stay those of the base; how much of the squared change that leaves out is written beside it.
    """
    base, tuned = (load_file(Path(folder) / "model.safetensors") for folder in (pair.base, pair.tuned))
    tensors, left_out, whole, ranks = {}, 0.0, 0.0, []
    names = [name for name in base if name.endswith("_proj.weight")]
    for name in base:
        change = tuned[name].float() - base[name].float()
        size = float(change.square().sum())
        whole += size
        if name not in names:
            left_out += size
            continue
        left, values, right = torch.linalg.svd(change, full_matrices=False)
        root, stem = values.sqrt(), f"base_model.model.{name.removesuffix('.weight')}"
        tensors[f"{stem}.lora_B.weight"], tensors[f"{stem}.lora_A.weight"] = left * root, root[:, None] * right
        ranks.append(len(values))
    rank = max(ranks)
    for name, one in tensors.items():
        gap = rank - (one.shape[1] if ".lora_B." in name else one.shape[0])
        padding = (0, gap, 0, 0) if ".lora_B." in name else (0, 0, 0, gap)
        tensors[name] = torch.nn.functional.pad(one, padding).contiguous()
    out.mkdir(parents=True, exist_ok=True)
    save_file(tensors, out / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": pair.base,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({name.split(".")[-2] for name in names}),
    }
    (out / "adapter_config.json").write_text(json.dumps(config), "utf-8")
    (out / "left-out.json").write_text(json.dumps(math.sqrt(left_out / max(whole, 1e-30))), "utf-8")
    return out
