"""Build the real fine-tunes one after another and measure them: python benchmarks/real_queue.py [NAME …] (all, in order).

What `mneme bench --real` does, in pieces, and kept in benchmarks/real/ or where --kept says. One thread, one line for each
step. Text and questions: $MNEME_REAL_DATA. With --audit AS what lies built is audited instead, and kept under that name: so a
changed audit is heard anew and nothing is measured anew. In the background:

    nohup nice -n 10 python benchmarks/real_queue.py >> queue.log 2>&1 &
"""

import argparse
import time
from pathlib import Path

from mneme.bench.real.measured import ALL_GROUPS
from mneme.bench.real.run import PASSES, arms_real, audit_real, measure_real, real_names, real_place
from mneme.worlds.real.build import build_real

KEPT = Path(__file__).parent / "real"


def main() -> None:
    """Build and measure, or audit, what is missing of the named fine-tunes, or of all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--groups", nargs="*", default=[*ALL_GROUPS, "signals"])
    parser.add_argument("--passes", type=int, default=len(PASSES))
    parser.add_argument("--kept", type=Path, default=KEPT, help="folder of the results")
    parser.add_argument("--audit", default="", metavar="AS", help="audit instead, kept under this name")
    parser.add_argument("--arms", action="store_true", help="read answers and directions instead")
    parser.add_argument("--seed", type=int, default=0, help="of what is audited; it is built where it is missing")
    parser.add_argument("--quick", action="store_true", help="audit with --quick")
    given = parser.parse_args()
    place, names = real_place(None, given.kept), real_names(given.names)
    if given.audit:
        for name in names if given.seed else ():
            build_real(name, seed=given.seed, data=place.data)
        audit_real(place, names, given.audit, _say, quick=given.quick, seed=given.seed)
    elif given.arms:
        arms_real(place, names, _say)
    else:
        measure_real(place, names, given.groups, given.passes, _say)


def _say(line: str) -> None:
    print(time.strftime("%H:%M:%S"), line, flush=True)


if __name__ == "__main__":
    main()
