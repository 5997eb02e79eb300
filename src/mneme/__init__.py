"""mneme: what a fine-tune did to a language model beyond its purpose.

The public face: everything a caller needs is a name of this module, loaded on first use (PEP 562), so that `import mneme`
stays quick and without torch. Everything below is private. Every command is a function
of its name. `mneme.audit` is the command, whatever was imported before; the modules of the folder with that name are imported
as `from mneme.audit import run`.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from mneme.version import __version__ as __version__

if TYPE_CHECKING:
    from mneme.audit.run import audit
    from mneme.bench.run import bench
    from mneme.card.run import Card, card
    from mneme.compare.run import compare
    from mneme.compare_logs.run import compare_logs
    from mneme.dpo.guarding import guard_dpo
    from mneme.dpo.monitor import DisplacementMonitor
    from mneme.dpo.run import dpo
    from mneme.errors import MnemeError
    from mneme.gate.run import gate
    from mneme.measure.run import measure
    from mneme.models.pair import ModelPair, load_pair
    from mneme.options import Machine, Progress, Training
    from mneme.repair.run import repair
    from mneme.report.audit import render_html, write_html
    from mneme.report.audit_text import print_report
    from mneme.report.finished import read_run as report
    from mneme.report.measure import write_measurement
    from mneme.report.reading import read_report
    from mneme.results import Effect, Estimate, Latent, Report
    from mneme.results.compare import Lineage
    from mneme.results.compare_logs import LogComparison
    from mneme.results.gate import GateResult
    from mneme.results.measure import Measurement
    from mneme.results.repair import RepairReport
    from mneme.results.train import TrainingRecord
    from mneme.results.unlearn import Unlearning
    from mneme.results.verify import Verification
    from mneme.screen.run import screen
    from mneme.train.guarding import guard
    from mneme.train.mixing import inoculate, interleave, interleave_gap, with_contexts
    from mneme.train.penalties import Probes, kl_base_to_tuned, kl_tuned_to_base, ldifs
    from mneme.train.personas import PersonaVectors, persona_vectors
    from mneme.train.personas import persona_vectors as persona
    from mneme.train.run import train
    from mneme.train.steering import steer
    from mneme.unlearn.run import unlearn
    from mneme.verify.run import verify
    from mneme.watch.callback import SideEffects
    from mneme.worlds.catalogue import Organism, build_organism, measure_truth
    from mneme.worlds.catalogue import build_organism as organism


__all__ = [
    "Card",
    "DisplacementMonitor",
    "Effect",
    "Estimate",
    "GateResult",
    "Latent",
    "Lineage",
    "LogComparison",
    "Machine",
    "Measurement",
    "MnemeError",
    "ModelPair",
    "Organism",
    "PersonaVectors",
    "Probes",
    "Progress",
    "RepairReport",
    "Report",
    "SideEffects",
    "Training",
    "TrainingRecord",
    "Unlearning",
    "Verification",
    "audit",
    "bench",
    "build_organism",
    "card",
    "compare",
    "compare_logs",
    "dpo",
    "gate",
    "guard",
    "guard_dpo",
    "inoculate",
    "interleave",
    "interleave_gap",
    "kl_base_to_tuned",
    "kl_tuned_to_base",
    "ldifs",
    "load_pair",
    "measure",
    "measure_truth",
    "organism",
    "persona",
    "persona_vectors",
    "print_report",
    "read_report",
    "render_html",
    "repair",
    "report",
    "screen",
    "steer",
    "train",
    "unlearn",
    "verify",
    "with_contexts",
    "write_html",
    "write_measurement",
]

_HOMES = {
    "Card": "card.run",
    "DisplacementMonitor": "dpo.monitor",
    "Effect": "results",
    "Estimate": "results",
    "GateResult": "results.gate",
    "Latent": "results",
    "Lineage": "results.compare",
    "LogComparison": "results.compare_logs",
    "Machine": "options",
    "Progress": "options",
    "Training": "options",
    "Measurement": "results.measure",
    "MnemeError": "errors",
    "ModelPair": "models.pair",
    "Organism": "worlds.catalogue",
    "PersonaVectors": "train.personas",
    "Probes": "train.penalties",
    "RepairReport": "results.repair",
    "Report": "results",
    "SideEffects": "watch.callback",
    "TrainingRecord": "results.train",
    "Unlearning": "results.unlearn",
    "Verification": "results.verify",
    "audit": "audit.run",
    "bench": "bench.run",
    "build_organism": "worlds.catalogue",
    "card": "card.run",
    "compare": "compare.run",
    "compare_logs": "compare_logs.run",
    "dpo": "dpo.run",
    "gate": "gate.run",
    "guard": "train.guarding",
    "guard_dpo": "dpo.guarding",
    "inoculate": "train.mixing",
    "interleave": "train.mixing",
    "interleave_gap": "train.mixing",
    "kl_base_to_tuned": "train.penalties",
    "kl_tuned_to_base": "train.penalties",
    "ldifs": "train.penalties",
    "load_pair": "models.pair",
    "measure": "measure.run",
    "measure_truth": "worlds.catalogue",
    "organism": "worlds.catalogue:build_organism",
    "persona": "train.personas:persona_vectors",
    "persona_vectors": "train.personas",
    "print_report": "report.audit_text",
    "read_report": "report.reading",
    "render_html": "report.audit",
    "repair": "repair.run",
    "report": "report.finished:read_run",
    "screen": "screen.run",
    "steer": "train.steering",
    "train": "train.run",
    "unlearn": "unlearn.run",
    "verify": "verify.run",
    "with_contexts": "train.mixing",
    "write_html": "report.audit",
    "write_measurement": "report.measure",
}
"""Name -> module, or module:name where a command is called otherwise there."""


def __getattr__(name: str) -> object:
    """Loads a public name on first use and keeps it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mneme' has no attribute {name!r}; it has {', '.join(__all__)}")
    home, _, other = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(f"mneme.{home}"), other or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])


class _Face(ModuleType):
    """Keeps the import system from binding a command's folder over the command: `mneme.repair` imports `mneme/audit/`."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Face
