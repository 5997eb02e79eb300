"""What commands say that they will take, beside what they took, on a real model.

    python benchmarks/plans.py --model FOLDER --tuned FOLDER --rows ROWS.jsonl OTHER.jsonl --pairs PAIRS.jsonl
        --texts FORGET RETAIN --suite SUITE.jsonl [--only NAME ...] [--keep ROWS.json]

The model is SmolLM2-135M-Instruct, `--tuned` a fine-tune or an adapter of it. Every command runs in a process of its own,
short; as its own words on stderr come: seconds, of the clock and of the processor, are counted from the line that holds the
plan to the end, memory is the most that the process had. Where the two kinds of seconds differ on one thread the machine had
other work, and only the memory means something. `--keep` holds the rows of commands that were run before, so that a few can
be run at a time; the section is written from all of them.
"""

import argparse
import json
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
    short = folder / f"{source.parent.name}-{source.name}"  # two sources may be called alike
    short.write_text("".join(source.read_text("utf-8").splitlines(keepends=True)[:lines]), "utf-8")
    return short


def cpu_seconds(process: int) -> float:
    """What a process that runs has had of the processor."""
    user, system = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def ran(words: list[str]) -> list[float]:
    """[planned seconds, seconds, CPU seconds, planned GB, GB] of one command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mneme", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said, began, used = "", 0.0, 0.0
    for line in process.stderr:
        said += " " + line.strip()
        if not began and PLAN.search(said):
            began, used = time.monotonic(), cpu_seconds(process.pid)
    _, status, usage = os.wait4(process.pid, 0)
    found = PLAN.search(said)
    if status or found is None:
        raise SystemExit(f"{words[0]} ended with {status}: {said[-2000:]}")
    seconds = time.monotonic() - began
    cpu = usage.ru_utime + usage.ru_stime - used
    return [float(found[1].replace(",", "")), seconds, cpu, float(found[2]), usage.ru_maxrss / 1e6]


def line(name: str, planned: float, took: float, cpu: float, planned_gb: float, gb: float) -> list[str]:
    """A row of the table."""
    ratios = took / planned, gb / planned_gb
    seconds = [f"{one:.0f}" for one in (planned, took, cpu)]
    return [name, *seconds, f"{ratios[0]:.2f}", f"{planned_gb:.2f}", f"{gb:.2f}", f"{ratios[1]:.2f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--tuned", type=Path, required=True)
    parser.add_argument("--rows", type=Path, nargs=2, required=True)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--texts", type=Path, nargs=2, required=True)
    parser.add_argument("--suite", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder, model = Path(made), str(options.model)
        rows, others, pairs, suite = (str(head(one, FEW, folder)) for one in (*options.rows, options.pairs, options.suite))
        forget, retain = (str(head(one, FEW, folder)) for one in options.texts)
        tuned, corpus = str(options.tuned), str(options.texts[1])
        audited = ["audit", model, tuned, "--corpus", corpus, "--tokens", str(AUDITED)]
        commands = {
            "audit": audited,
            "audit, quick": [*audited, "--quick"],
            "audit, no dictionary": [*audited, "--dictionary", "none"],
            "repair": ["repair", model, tuned, "--target", forget, "--retain", retain, "--method", "scale"],
            "train, LoRA": ["train", model, rows, "--batch", "8", "--epochs", "0.5"],
            "train, all weights": ["train", model, rows, "--batch", "8", "--epochs", "0.5", "--lora", "0"],
            "dpo": ["dpo", model, pairs, "--steps", "4", "--batch", "2", "--filter", "none", "--watch", "2"],
            "unlearn": ["unlearn", model, "--forget", forget, "--retain", retain, "--steps", "4", "--batch", "4"],
            "measure": ["measure", model, "--suite", suite],
            "screen": ["screen", model, pairs, "--pairs", "--trial-steps", "0"],
            "persona": ["persona", model, "--with", rows, "--without", others],
        }
        kept = json.loads(options.keep.read_text()) if options.keep and options.keep.exists() else {}
        for name, words in commands.items():
            if options.only and name not in options.only:
                continue
            kept[name] = ran([*words, "--out", str(folder / name.replace(", ", "-").replace(" ", "-"))])
            print(line(name, *kept[name]), flush=True)
            if options.keep:
                options.keep.write_text(json.dumps(kept, indent=1))
    header = ["command", "planned s", "took s", "CPU s", "took / planned", "planned GB", "had GB", "had / planned"]
    lines = [line(name, *kept[name]) for name in commands if name in kept]
    if options.keep or not options.only:
        write_section("plans", "Plans beside what came", "python benchmarks/plans.py …", markdown_table(header, lines))


if __name__ == "__main__":
    main()
