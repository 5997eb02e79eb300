"""mneme beside five other tools: what each documents, and what each says of pairs whose truth is known. Writes docs/rivals.md.

    python benchmarks/rivals.py run [TOOL ...] [--pairs N,N]   # runs what is installed under --venvs, keeps rivals/runs.json
    python benchmarks/rivals.py                                # writes the page from what is kept

A tool is installed into a virtual environment of its own, `VENVS/NAME`, by its line on the package index; nothing of it is
kept here but the last lines that it printed. The pairs: the built-in pair (biology unlearned; measured: biology and chemistry
fell, ten other areas did not change), an honest continuation of its base (nothing changed), a real pair (SmolLM2-135M,
microbiology unlearned) and a real change of the same size without a purpose (the same change, shuffled). What a tool needs
beside two models it is given: `rival_lines.py` says what.
"""

import argparse
import datetime
import json
import math
import os
import re
import resource
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

from rival_lines import LINES, Pair

from mneme.bench.real.run import data_folder, write_areas, write_corpus
from mneme.worlds.catalogue import build_organism
from mneme.worlds.suites import write_suite

HERE = Path(__file__).parent
KEPT = HERE / "rivals" / "runs.json"
PAGE = HERE.parent / "docs" / "rivals.md"
BUILT = HERE.parent / "build" / "rivals"
LIMIT_SECONDS = 720
"""CPU seconds that a tool may take for a pair; not wall seconds, so that other work on the machine stops nobody."""
LAST = 6000
"""Characters of what a tool printed that are kept, half from its start and half from its end: its verdict stands at one."""
ASKED_OF_EACH = 100
"""Questions a subject of the real pairs."""
SUBJECTS = ("microbiology", "anatomy", "physics", "psychology", "us-history")


def pairs() -> dict[str, Pair]:
    """The pairs, as far as they are at hand."""
    found = {}
    texts = BUILT / "texts"
    texts.mkdir(parents=True, exist_ok=True)
    suite = str(write_suite("a", texts)[0])
    for title, name in (("built-in pair", "unlearn-biology"), ("continuation", "continue")):
        made = build_organism(name)
        found[title] = Pair(str(made.base), str(made.tuned), str(made.corpus), str(made.areas), suite, long=False)
    real = Path.home() / ".cache" / "mneme" / "real"
    titles = {
        "SmolLM2, microbiology unlearned": "forget-microbiology-graddiff-seed0",
        "SmolLM2, that change shuffled": "null-shuffled-microbiology-seed0",
    }
    if "MNEME_REAL_DATA" in os.environ:
        data = data_folder(None)
        corpus, areas, asked = write_corpus(data, texts), write_areas(texts), real_questions(data, texts)
        for title, name in titles.items():
            if (real / name).is_dir():
                given = str(corpus), str(areas), str(asked)
                found[title] = Pair(str(real / "base"), str(real / name), *given, long=True)
    return found


def real_questions(data: Path, folder: Path) -> Path:
    """The first questions of each subject as choices that `mneme measure` reads."""
    rows = []
    for subject in SUBJECTS:
        lines = (data / "questions" / f"{subject}.jsonl").read_text("utf-8").splitlines()[:ASKED_OF_EACH]
        for number, line in enumerate(lines):
            asked = json.loads(line)
            row = {"id": f"{subject} {number}", "area": subject, "cluster": asked["section"]}
            row |= {
                "prompt": f"Question: {asked['question']}\nAnswer:",
                **{name: asked[name] for name in ("choices", "answer")},
            }
            rows.append(json.dumps(row))
    path = folder / "real-questions.jsonl"
    path.write_text("\n".join(rows) + "\n", "utf-8")
    return path


def run(tool: str, folder: Path, title: str, pair: Pair) -> dict[str, Any]:
    """What the tool says of a pair: exit status and words of its last command, CPU seconds of all."""
    out = BUILT / tool / re.sub(r"\W+", "-", title)
    out.mkdir(parents=True, exist_ok=True)
    commands = LINES[tool](pair, folder, out)
    before, started = os.times(), time.monotonic()
    status = said = ""
    for command in commands:
        left = max(1, math.ceil(LIMIT_SECONDS - cpu_seconds_since(before)))
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=partial(resource.setrlimit, resource.RLIMIT_CPU, (left, left)),
        )
        status, said = str(done.returncode), plain(done.stdout)
        if done.returncode and cpu_seconds_since(before) >= LIMIT_SECONDS:
            status = f"stopped after {LIMIT_SECONDS} CPU s"
        elif done.returncode:
            said = f"{said[-LAST // 2 :]} … {plain(done.stderr)[-LAST // 2 :]}"
        if status != "0":
            break
    return {
        "tool": tool,
        "pair": title,
        "exit": status,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(cpu_seconds_since(before), 1),
        "said": without_folders(said if len(said) <= LAST else f"{said[: LAST // 2]} … {said[-LAST // 2 :]}"),
        "date": datetime.date.today().isoformat(),
    }


def cpu_seconds_since(before: os.times_result) -> float:
    """CPU seconds of the commands that have ended since."""
    now = os.times()
    return now.children_user + now.children_system - before.children_user - before.children_system


TOOLS = ("mneme", "invarlock", "modeldiffr", "finetunecheck", "dlm-sway", "pyrecall")
VERSIONS = {"invarlock": "0.17.1", "modeldiffr": "0.9.3", "finetunecheck": "2.0.2", "dlm-sway": "0.1.0", "pyrecall": "0.12.1"}
READ_ON = "2026-11-28"
FEATURES: dict[str, tuple[str, ...]] = {
    # In the order of TOOLS, from each one's page on the package index and its --help; "?" where neither says.
    "needs no test of yours": ("yes", "no", "yes: 13 benchmarks", "yes: 147 probes", "yes, for adapters", "yes: 180 prompts"),
    "names areas that nobody asked about": ("yes: unlisted change", "no", "no", "no", "no", "no"),
    "interval on every change": ("yes", "yes", "yes", "yes", "z-scores", "Cohen's d"),
    "says what it could not have seen (power)": (
        "yes",
        "widest interval",
        "minimum effect",
        "insufficient evidence",
        "no",
        "?",
    ),
    "null of the change's own size": ("shuffled change", "no", "no", "no", "random adapters", "no"),
    "looks inside (layers, directions)": (
        "dictionaries, ablation",
        "no",
        "crosscoder, CKA, causal",
        "CKA, spectra",
        "no",
        "no",
    ),
    "two checkpoints": ("yes", "yes", "yes", "yes", "no, adapters", "as snapshots"),
    "adapters": ("yes", "?", "?", "yes", "yes", "yes"),
    "GGUF, vLLM": ("GGUF read", "GGUF, others", "both", "both", "no", "no"),
    "gate with exit codes": ("yes", "yes", "yes", "yes", "yes", "yes"),
    "JUnit": ("yes", "yes", "?", "?", "yes", "?"),
    "signed, checked offline by others": ("yes", "yes", "yes", "no", "no", "no"),
    "imports other evaluators' results": ("lm-eval, Inspect, JSON lines", "yes", "data folders", "no", "no", "?"),
    "inside a trainer": ("callback", "no", "?", "no", "no", "own trainer"),
    "says which training rows do it": ("yes", "no", "no", "no", "no", "no"),
    "takes it out again": ("repair, unlearn", "no", "no", "no", "no", "rollback to a snapshot"),
    "Python": ("3.11", "3.12", "3.10?", "3.10", "3.11", "3.11"),
}
GIVEN = {
    "mneme": "`mneme audit BASE TUNED --corpus TEXT`; of the real pairs with our list of areas and `--dictionary none`",
    "invarlock": "answers that `mneme measure` recorded to our questions, and a policy of ours (no area more than 10 "
    "points lower): it brings no questions, and its native runs take a container image",
    "modeldiffr": "`modeldiffr audit BASE TUNED`, with the suite that needs no download",
    "finetunecheck": "`ftcheck quick BASE TUNED`; on the small pairs answers of 64 tokens, as its 512 do not fit their "
    "context of 256",
    "dlm-sway": "`sway check ADAPTER --base BASE`; it takes adapters alone, so the change of all linear layers was made one "
    "of full rank (embeddings and norms are left out)",
    "pyrecall": "a snapshot of each model under one name and `pyrecall check`; it takes no paths, so the name is a link",
}
KEPT_WORDS = {
    "invarlock": r"Recorded policy result.*?(?= Each result applies)|accuracy: \w+ Policy not met",
    "modeldiffr": r"weights:.*?(?= note:)",
    "finetunecheck": r"Verdict:.*?Forgetting pattern: \w+|\w+Error: .*",
    "dlm-sway": r"^.*?(?= sway report)|top findings:.*?(?= \d probe kind)",
    "pyrecall": r"Skill Before.*",
}
"""Of what a tool printed, the part that says what it found."""
HEAD = """# Beside other tools

What five tools of 2026 document, and what was seen when they were run on pairs whose truth is known. Written by
`python benchmarks/rivals.py`; documentation read on {date}, run on the same day on one thread. A cell is what the tool's page
on the package index or its `--help` says, "?" where neither says; corrections are welcome. The rows were chosen by us,
and so favour what mneme does.

"""
FOOT = """
## The truth

In the built-in pair biology fell from 1.00 to 0.00 and chemistry from 1.00 to 0.60, ten other areas stayed; of the
continuation nothing changed. A small model of a made-up world answers no question of a general benchmark, so a tool
that asks such questions can see little there: the pair is a hard case for it, and an easy one for mneme, which was made
on it. Given questions about every area and a policy, InvarLock passes ten of its thirteen results and fails three;
mneme was given text alone. With the list that ships, as here, mneme names biology and chemistry and no other, as it does
with the world's own list (`mneme audit` without models). Until it asked for two keywords in a passage it named three areas
more. Of harmful advice and the other behaviours it can say nothing there, and says so; since it was run for this table,
the continuation is *inconclusive* for that reason.

With `--pairs 2,3` the script runs two real pairs as well (SmolLM2-135M, microbiology unlearned, and that change
shuffled), where `$MNEME_REAL_DATA` names their text. A pair without rows above has not been run.
"""


def page(kept: list[dict[str, Any]]) -> str:
    """The whole page from the features and the runs that are kept."""
    names = ["mneme", *(f"{tool} {VERSIONS[tool]}" for tool in TOOLS[1:])]
    lines = [
        HEAD.format(date=READ_ON),
        "## What they document",
        "",
        f"| | {' | '.join(names)} |",
        "|---" * (len(names) + 1) + "|",
    ]
    lines += [f"| {feature} | {' | '.join(cells)} |" for feature, cells in FEATURES.items()]
    lines += ["", "## What they were given", "", "| tool | |", "|---|---|"]
    lines += [f"| {tool} | {given} |" for tool, given in GIVEN.items()]
    lines += ["", "## What they said", "", "| pair | tool | exit | CPU seconds | said |", "|---|---|---|---|---|"]
    titles = ["built-in pair", "continuation", *dict.fromkeys(one["pair"] for one in kept)]
    for one in sorted(kept, key=lambda one: (titles.index(one["pair"]), TOOLS.index(one["tool"]))):
        lines.append(f"| {one['pair']} | {one['tool']} | {one['exit']} | {one['cpu_seconds']} | {words_of(one)} |")
    return "\n".join(lines) + "\n" + FOOT


def words_of(one: dict[str, Any]) -> str:
    """What a tool said of a pair, for a cell."""
    said = plain(one["said"])
    found = re.findall(KEPT_WORDS[one["tool"]], said) if one["tool"] in KEPT_WORDS else [said]
    return " … ".join(found or [said])[:900].replace("|", "/").replace("<", "&lt;")


def plain(said: str) -> str:
    """What a tool printed without frames, colours and runs of spaces."""
    return " ".join(re.sub(r"[\u2500-\u259f]+|\x1b\[[\d;]*m", " ", said).split())


def without_folders(said: str) -> str:
    """What a tool printed, with paths by their last names: folders are of the machine that it ran on."""
    return re.sub(r"(?<![\w:])/(?:[\w.+-]+/)+", "", said)


def main() -> None:
    """Run tools, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="?", choices=["run", "write"], default="write")
    parser.add_argument("tools", nargs="*")
    parser.add_argument("--venvs", type=Path, default=Path("rivals"))
    parser.add_argument("--pairs", default="0,1,2,3", help="by number: built-in, continuation, real, real shuffled")
    given = parser.parse_args()
    if given.what == "run":
        titled = list(pairs().items())
        for number in map(int, given.pairs.split(",")):
            for tool in given.tools or list(LINES):
                one = run(tool, given.venvs / tool, *titled[number])
                print(json.dumps(one, indent=1), flush=True)
                keep(one)
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.is_file() else []
    PAGE.write_text(page(kept), "utf-8")


def keep(one: dict[str, Any]) -> None:
    """In place of what was kept of the same tool and pair."""
    kept = json.loads(KEPT.read_text("utf-8")) if KEPT.is_file() else []
    rest = [other for other in kept if (other["tool"], other["pair"]) != (one["tool"], one["pair"])]
    KEPT.parent.mkdir(exist_ok=True)
    KEPT.write_text(json.dumps([*rest, one], indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
