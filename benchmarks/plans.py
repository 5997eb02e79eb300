"""What commands say that they will take, beside what they took, on a real model.

    python benchmarks/plans.py --model FOLDER --tuned FOLDER --rows ROWS.jsonl --pairs PAIRS.jsonl
        --texts FORGET RETAIN --suite SUITE.jsonl

The model is SmolLM2-135M-Instruct, `--tuned` a fine-tune or an adapter of it. Every command runs in a process of its own,
short; as its own words on stderr come: seconds are counted from the line that holds the plan to the end, memory is the most
that the process had. On a machine with other work only the memory means something.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tables import markdown_table, write_section

PLAN = re.compile(r"about ([\d,.]+) s\b.*?peak memory about ([\d.]+) GB")
AUDITED = 4096
"""Tokens of the audits."""
FEW = 48
"""Rows, pairs and texts that are used."""


def head(source: Path, lines: int, folder: Path) -> Path:
    """The first lines of a file."""
    short = folder / source.name
    short.write_text("".join(source.read_text("utf-8").splitlines(keepends=True)[:lines]), "utf-8")
    return short


def ran(words: list[str]) -> tuple[float, float, float, float]:
    """(planned seconds, seconds, planned GB, GB) of one command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mneme", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said, began = "", 0.0
    for line in process.stderr:
        said += " " + line.strip()
        if not began and PLAN.search(said):
            began = time.monotonic()
    _, status, usage = os.wait4(process.pid, 0)
    found = PLAN.search(said)
    if status or found is None:
        raise SystemExit(f"{words[0]} ended with {status}: {said[-2000:]}")
    seconds = time.monotonic() - began
    return float(found[1].replace(",", "")), seconds, float(found[2]), usage.ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tuned", type=Path, required=True)
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs=2, required=True)
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, model = Path(made), str(options.model)
        rows, pairs, suite = (str(head(one, FEW, folder)) for one in (options.rows, options.pairs, options.suite))
        forget, retain = (str(head(one, FEW, folder)) for one in options.texts)
        tuned, corpus = str(options.tuned), str(options.texts[1])
        audited = ["audit", model, tuned, "--corpus", corpus, "--tokens", str(AUDITED)]
        commands = {
            "audit": audited,
            "audit, no dictionary": [*audited, "--dictionary", "none"],
            "repair": ["repair", model, tuned, "--target", forget, "--retain", retain, "--method", "scale"],
            "train, LoRA": ["train", model, rows, "--batch", "8", "--epochs", "0.5"],
            "train, all weights": ["train", model, rows, "--batch", "8", "--epochs", "0.5", "--lora", "0"],
            "dpo": ["dpo", model, pairs, "--steps", "4", "--batch", "2", "--filter", "none", "--watch", "2"],
            "unlearn": ["unlearn", model, "--forget", forget, "--retain", retain, "--steps", "4", "--batch", "4"],
            "measure": ["measure", model, "--suite", suite],
            "screen": ["screen", model, pairs, "--pairs", "--trial-steps", "0"],
        }
        lines = []
        for name, words in commands.items():
            if options.only and name not in options.only:
                continue
            planned, took, planned_gb, gb = ran([*words, "--out", str(folder / name.replace(", ", "-").replace(" ", "-"))])
            lines.append(
                [
                    name,
                    f"{planned:.0f}",
                    f"{took:.0f}",
                    f"{took / planned:.2f}",
                    f"{planned_gb:.1f}",
                    f"{gb:.1f}",
                    f"{gb / planned_gb:.2f}",
                ]
            )
            print(lines[-1], flush=True)
    header = ["command", "planned s", "took s", "took / planned", "planned GB", "had GB", "had / planned"]
    if not options.only:
        write_section("plans", "Plans beside what came", "python benchmarks/plans.py …", markdown_table(header, lines))


if __name__ == "__main__":
    main()
