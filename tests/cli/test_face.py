"""The public face: what `import mneme` offers, and that every command is a function of it."""

from pathlib import Path

import mneme
from mneme.cli.main import app

ROOT = Path(__file__).parents[2]


def test_every_command_is_a_function_of_the_public_face() -> None:
    commands = [command.name for command in app.registered_commands]
    assert "compare-logs" in commands
    assert [name for name in commands if name.replace("-", "_") not in mneme.__all__] == []
    assert (ROOT / "src" / "mneme" / "py.typed").is_file()


def test_public_names() -> None:
    assert mneme.__all__ == [
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
    assert set(mneme._HOMES) == set(mneme.__all__)
