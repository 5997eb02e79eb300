"""`mneme bench --real`: the fine-tunes of SmolLM2-135M built, measured, read and audited one after another, all of it kept.

Whatever is finished is kept as small JSON, fine-tunes in the cache; the same call after a kill goes on. A pass goes through
all fine-tunes before the next, so that each has some truth early and every hour makes all of it more precise.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.console import Console
from transformers import AutoTokenizer

from mneme.audit.run import audit
from mneme.bench.real.arms import go_on, openings, read_arms
from mneme.bench.real.asked import SLICES
from mneme.bench.real.kept import AREAS, real_cells
from mneme.bench.real.measured import ALL_GROUPS, Kept, items_of, measure_group, read_kept, write_kept
from mneme.bench.real.scores import all_predictors, real_record, real_scores
from mneme.bench.real.signals import passages, read_signals
from mneme.errors import BadOption
from mneme.models.pair import LoadedModel, load_model, load_pair
from mneme.models.threads import computing_threads
from mneme.options import Machine, Progress
from mneme.predict.areas import default_areas
from mneme.predict.paired import probes_of
from mneme.results import Report
from mneme.results.bench import RealBench
from mneme.runs import write_atomic
from mneme.worlds.real.build import build_real, real_folder
from mneme.worlds.real.data import SUBJECTS, data_folder, paragraphs, spread
from mneme.worlds.real.model import real_base
from mneme.worlds.real.recipes import RECIPES

PASSES = (
    (("knowledge", 0), ("relations", 0), ("refusals", 0), ("behaviours", 0)),
    (("books", 0),),
    *(tuple((group, part) for group in ALL_GROUPS) for part in range(1, SLICES)),
)
"""What is measured of one fine-tune before the next; a pass goes through all fine-tunes before the next pass."""
READ_PARAGRAPHS = 24
"""Of each book, that an audit reads: about 38,000 tokens, from as many sections as there are."""

Say = Callable[[str], None]


class RealPlace(NamedTuple):
    """Where the real bench reads and keeps."""

    data: Path
    """Text and questions."""
    kept: Path
    """Results: bench/real/kept.py says what lies where."""


def measure_real(place: RealPlace, names: Sequence[str], groups: Sequence[str], passes: int, say: Say) -> None:
    """Build and measure what is missing of the fine-tunes called `names`, the base first: `groups` of questions ("signals" are
    the cheap signals), in the first `passes` of `PASSES`. One thread."""
    with computing_threads(1):
        items = _items(place)
        for chosen in PASSES[:passes]:
            wanted = tuple((group, part) for group, part in chosen if group in groups)
            _measure(place, "base", real_base(), wanted, items, say)
            for name in names:
                started = time.perf_counter()
                folder = build_real(name, data=place.data)
                if time.perf_counter() - started > 1:
                    say(f"{name}: built in {time.perf_counter() - started:.0f} s")
                _measure(place, f"{name}-seed0", folder, wanted, items, say)
                if "signals" in groups and chosen == PASSES[0]:
                    _signals(place, name, say)


def arms_real(place: RealPlace, names: Sequence[str], say: Say) -> None:
    """Answers and directions (arms.py) of the fine-tunes called `names` that lie built and are not kept. One thread."""
    wanted = [name for name in names if real_folder(name).is_dir() and not _arms_file(place, name).is_file()]
    if not wanted:
        return
    with computing_threads(1):
        base = load_model(real_base())
        assert base.tokenizer is not None
        texts = passages(place.data, base.tokenizer)
        said = go_on(base, openings(texts))
        for name in wanted:
            found = read_arms(base, load_model(real_folder(name)), texts, said)
            write_kept(_arms_file(place, name), found)
            say(f"{name}: answers and directions read in {found['seconds']:.0f} s")


def _arms_file(place: RealPlace, name: str) -> Path:
    return place.kept / "arms" / f"{name}-seed0.json"


def audit_real(place: RealPlace, names: Sequence[str], called: str, say: Say, *, quick: bool = False, seed: int = 0) -> None:
    """Audit those of the fine-tunes called `names`, of that seed, that lie built and are not kept under `called`, without a
    dictionary, on one thread. The text is that of sections which no fine-tune trains on and no loss is measured on; of the
    questions the audit knows nothing."""
    with tempfile.TemporaryDirectory() as scratch:
        corpus, areas = write_corpus(place.data, Path(scratch)), write_areas(Path(scratch))
        for name in names:
            file = place.kept / "audits" / called / f"{name}-seed{seed}.json"
            if file.is_file() or not real_folder(name, seed).is_dir():
                continue
            out = Path(scratch) / "audit"
            started, used = time.perf_counter(), time.process_time()
            report = audit(
                real_base(),
                real_folder(name, seed),
                corpus=corpus,
                areas=areas,
                out=out,
                dictionary="none",
                quick=quick,
                machine=Machine(threads=1),
                progress=Progress(Console(quiet=True)),
            )
            seconds, cpu = time.perf_counter() - started, time.process_time() - used
            told = numbers_of(report) | {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1)}
            write_kept(file, told | {"stages": json.loads((out / "timings.json").read_text("utf-8"))})
            shutil.rmtree(out)
            say(f"{name}-seed{seed}: {called} in {seconds:.0f} s")


def bench_real(data: Path | None, out: Path, *, seed: int = 0, say: Say) -> RealBench:
    """All of it: every fine-tune built, measured, read and audited, and every predictor judged; `out`/real.json, and in
    `out`/real what is kept. Ten hours of two cores from nothing; the same call after a kill goes on."""
    place, names = real_place(data, out / "real"), real_names()
    groups = [*ALL_GROUPS, "signals"]
    measure_real(place, names, groups, 1, say)
    audit_real(place, names, "audit", say)
    arms_real(place, names, say)
    measure_real(place, names, groups, len(PASSES), say)
    cells = real_cells(place.kept)
    found = real_record(real_scores(cells, all_predictors(place.kept, cells), seed=seed))
    write_atomic(out / "real.json", found.to_json().encode())
    return found


def real_names(wanted: Sequence[str] = ()) -> list[str]:
    """Names of the fine-tunes, all or `wanted`, in the order of the recipes. Raises BadOption for a name that is none."""
    known = [recipe.name for recipe in RECIPES]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise BadOption(f"There is no real fine-tune called {unknown[0]}. Give some of: {', '.join(known)}.")
    return [name for name in known if not wanted or name in wanted]


def real_place(data: Path | None, kept: Path) -> RealPlace:
    """The place, checked. Raises BadOrganism where the data are missing."""
    return RealPlace(data_folder(data), kept)


def write_corpus(data: Path, folder: Path) -> Path:
    """Paragraphs that may be read, one of each book in turn, so that fewer tokens are fewer of every book."""
    books = [spread(paragraphs(data, subject, "read"), READ_PARAGRAPHS, seed=202) for subject in SUBJECTS]
    rows = [json.dumps({"text": one.text}) for turn in zip(*books, strict=False) for one in turn]
    file = folder / "corpus.jsonl"
    write_atomic(file, ("\n".join(rows) + "\n").encode())
    return file


def write_areas(folder: Path) -> Path:
    """The subjects, and of the list that ships the behaviours and what is asked of everybody's knowledge."""
    subjects = yaml.safe_load(AREAS.read_text("utf-8"))
    shipped = [area.model_dump(mode="json") for area in default_areas() if probes_of(area)]
    file = folder / "areas.yaml"
    write_atomic(file, yaml.safe_dump([*subjects, *shipped], allow_unicode=True).encode())
    return file


def numbers_of(report: Report) -> dict[str, Any]:
    """{"areas": {area: what is said of it}, "absent", "broad", "overall", "verdict", "tokens"}: numbers without the text."""
    words = {"description", "evidence", "parts", "rank", "largest_word"}
    return {
        "areas": {one.area: one.model_dump(mode="json", exclude=words) for one in report.effects},
        "absent": {one.area: one.passages for one in report.absent},
        "broad": report.broad.model_dump(mode="json") if report.broad else None,
        "overall": {name: one.model_dump(mode="json") for name, one in report.overall.items()},
        "verdict": report.verdict,
        "tokens": report.cost.tokens,
    }


@cache
def _items(place: RealPlace) -> Kept:
    """What is asked, written where it is kept; some seconds of tokenizing, so once a process."""
    tokenizer = AutoTokenizer.from_pretrained(real_base())
    asked = [one for chosen in PASSES for one in chosen]
    items = {f"{group}/{part}": items_of(group, part, tokenizer, place.data) for group, part in asked}
    write_kept(place.kept / "items.json", items)
    return items


def _measure(place: RealPlace, name: str, folder: Path, wanted: tuple[tuple[str, int], ...], items: Kept, say: Say) -> None:
    file = place.kept / "measured" / f"{name}.json"
    loaded: LoadedModel | None = None
    for group, part in wanted:
        kept, slice_of = read_kept(file, items), f"{group}/{part}"
        if slice_of in kept:
            continue
        loaded = loaded or load_model(folder)
        assert loaded.tokenizer is not None
        kept[slice_of] = measure_group(group, part, loaded.parts, loaded.tokenizer, place.data, items[slice_of])
        write_kept(file, kept)
        say(f"{name}: {slice_of} measured in {kept[slice_of]['seconds']:.0f} s")


def _signals(place: RealPlace, name: str, say: Say) -> None:
    """The cheap signals that predictors are compared with."""
    file = place.kept / "signals" / f"{name}-seed0.json"
    if not file.is_file():
        pair = load_pair(real_base(), real_folder(name))
        found = read_signals(pair, passages(place.data, pair.tokenizer))
        write_kept(file, found)
        say(f"{name}: signals read in {found['seconds']:.0f} s")
