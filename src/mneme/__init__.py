"""mneme: what a fine-tune did to a language model beyond its purpose.

The public face: everything a caller needs is a name of this module, loaded on first use (PEP 562), so that `import mneme`
stays quick and without torch. Everything below is private. `import mneme.audit.…` binds the folder to the name `mneme.audit`;
code that calls `mneme.audit(...)` has no reason to import it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mneme.audit.run import audit
    from mneme.bench.run import bench
    from mneme.errors import MnemeError
    from mneme.loop.repair import repair
    from mneme.measure.run import measure
    from mneme.models.pair import ModelPair, load_pair
    from mneme.organisms.catalogue import Organism, build_organism, measure_truth
    from mneme.preferences.dpo import dpo
    from mneme.preferences.guarding import guard_dpo
    from mneme.preferences.monitor import DisplacementMonitor
    from mneme.preferences.screening import screen
    from mneme.prevent.guarding import guard
    from mneme.prevent.mixing import inoculate, interleave, interleave_gap, with_cues
    from mneme.prevent.penalties import Probes, kl_base_to_tuned, kl_tuned_to_base, ldifs
    from mneme.prevent.personas import PersonaVectors, persona_vectors
    from mneme.prevent.steering import steer
    from mneme.prevent.training import train
    from mneme.report.html import render_html, write_html
    from mneme.report.measurement import write_measurement
    from mneme.report.reading import read_report
    from mneme.report.text import print_report
    from mneme.results import Effect, Estimate, Latent, Report
    from mneme.results.measurement import Measurement
    from mneme.results.prevention import TrainingRecord
    from mneme.results.repair import RepairReport
    from mneme.results.unlearning import Unlearning
    from mneme.unlearn.run import unlearn

__version__ = "0.1.0"

__all__ = [
    "DisplacementMonitor",
    "Effect",
    "Estimate",
    "Latent",
    "Measurement",
    "MnemeError",
    "ModelPair",
    "Organism",
    "PersonaVectors",
    "Probes",
    "RepairReport",
    "Report",
    "TrainingRecord",
    "Unlearning",
    "audit",
    "bench",
    "build_organism",
    "dpo",
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
    "persona_vectors",
    "print_report",
    "read_report",
    "render_html",
    "repair",
    "screen",
    "steer",
    "train",
    "unlearn",
    "with_cues",
    "write_html",
    "write_measurement",
]

_HOMES = {
    "DisplacementMonitor": "preferences.monitor",
    "Effect": "results",
    "Estimate": "results",
    "Latent": "results",
    "Measurement": "results.measurement",
    "MnemeError": "errors",
    "ModelPair": "models.pair",
    "Organism": "organisms.catalogue",
    "PersonaVectors": "prevent.personas",
    "Probes": "prevent.penalties",
    "RepairReport": "results.repair",
    "Report": "results",
    "TrainingRecord": "results.prevention",
    "Unlearning": "results.unlearning",
    "audit": "audit.run",
    "bench": "bench.run",
    "build_organism": "organisms.catalogue",
    "dpo": "preferences.dpo",
    "guard": "prevent.guarding",
    "guard_dpo": "preferences.guarding",
    "inoculate": "prevent.mixing",
    "interleave": "prevent.mixing",
    "interleave_gap": "prevent.mixing",
    "kl_base_to_tuned": "prevent.penalties",
    "kl_tuned_to_base": "prevent.penalties",
    "ldifs": "prevent.penalties",
    "load_pair": "models.pair",
    "measure": "measure.run",
    "measure_truth": "organisms.catalogue",
    "persona_vectors": "prevent.personas",
    "print_report": "report.text",
    "read_report": "report.reading",
    "render_html": "report.html",
    "repair": "loop.repair",
    "screen": "preferences.screening",
    "steer": "prevent.steering",
    "train": "prevent.training",
    "unlearn": "unlearn.run",
    "with_cues": "prevent.mixing",
    "write_html": "report.html",
    "write_measurement": "report.measurement",
}


def __getattr__(name: str) -> object:
    """Loads a public name on first use and keeps it."""
    if name not in _HOMES:
        raise AttributeError(f"module 'mneme' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(importlib.import_module(f"mneme.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names."""
    return sorted([*__all__, "__version__"])
