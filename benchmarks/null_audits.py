"""False alarms: whole audits of honest continuations of the base's own training, which must be silent.

    python benchmarks/null_audits.py --n 20

For each seed the organism `continue` (further training on the same distribution) is built and audited like any pair.
Reached: no area at P >= 0.5 in at least 19 of 20. Finished audits are kept and not repeated.
"""

import argparse
import json
from pathlib import Path

from rich.console import Console

from mneme.audit.run import audit
from mneme.options import Machine, Progress
from mneme.worlds.catalogue import build_organism


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--world", default="a")
    parser.add_argument("--out", type=Path, default=Path("runs/null"))
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    silent = 0
    for seed in range(options.first, options.first + options.n):
        organism = build_organism("continue", world=options.world, seed=seed)
        out = options.out / f"{options.world}-{seed}"
        report = audit(
            organism.base,
            organism.tuned,
            corpus=organism.corpus,
            areas=organism.areas,
            out=out,
            seed=seed,
            machine=Machine(threads=options.threads),
            progress=Progress(Console(quiet=True)),
        )
        top = report.effects[0]
        silent += top.probability < 0.5
        seconds = sum(json.loads((out / "timings.json").read_text()).values())
        size = f"{top.magnitude.value:+.4f} {top.magnitude.unit}"
        print(f"seed {seed}: {report.verdict}; top {top.area} P {top.probability:.3f} ({size}); {seconds:.0f} s", flush=True)
    print(f"{silent} of {options.n} silent")


if __name__ == "__main__":
    main()
