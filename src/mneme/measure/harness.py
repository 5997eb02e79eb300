"""Tasks of other harnesses on the same loaded models: lm-eval by name or YAML, Inspect by name or file; one form of result.

Their data may lie on the hub and their tasks may be code, which is run only where that was asked for.
"""

import hashlib
import importlib.util
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from mneme.confined import Exceeded, Refused, confined
from mneme.errors import BadOption, BadSuite, one_line
from mneme.measure.readings import UNSCORED
from mneme.measure.stages import Sampling
from mneme.measure.subjects import Subject
from mneme.measure.summary import Tally
from mneme.measure.trust import Code, require_no_inspect_code, require_no_task_code
from mneme.results.measure import STANDARD

_PACKAGES = {"lm-eval": "lm_eval", "inspect": "inspect_ai"}
_BATCH = 32
Rows = list[dict[str, Any]]
"""{area, measure, primary, ids, values (null = not scored)} of each metric of each task."""


@dataclass(frozen=True)
class Harness:
    """A task of another harness."""

    kind: Literal["lm-eval", "inspect"]
    task: str
    """A task's name; for a file, the path of its YAML or of its Python file."""
    sha256: str
    trusted: bool = False
    """Its own code may run."""

    @property
    def name(self) -> str:
        """As the report shows it."""
        return f"{self.kind}:{Path(self.task).name if Path(self.task).is_file() else self.task}"


def harness_of(suite: str, trust_suite_code: bool = False) -> Harness | None:
    """The task that `lm-eval:TASK`, `inspect:TASK` or a YAML file of lm-eval names; None for a suite of our own.

    Raises BadOption where the harness is not installed, BadSuite where a file is not there, or where the suite is code (other
    than a task that is installed) and `trust_suite_code` was not given.
    """
    kind, _, task = suite.partition(":")
    if kind not in _PACKAGES:
        if not _is_lm_eval_file(Path(suite)):
            return None
        kind, task = "lm-eval", suite
    if importlib.util.find_spec(_PACKAGES[kind]) is None:
        raise BadOption(f"--suite {suite} needs {kind}, which is not installed. Run: pip install 'mneme-audit[evals]'")
    if task.startswith("~"):  # both harnesses would look there
        task = str(Path(task).expanduser())
    file = Path(task.partition("@")[0])
    if file.suffix in (".py", ".yaml", ".yml") and not file.is_file():
        raise BadSuite(f"{file} does not exist. Give a task's name, or the file that holds it.")
    if not trust_suite_code:
        _require_no_code(kind, task)
    content = file.read_bytes() if file.is_file() else b""
    digest = hashlib.sha256(suite.encode() + content).hexdigest()
    return Harness("lm-eval" if kind == "lm-eval" else "inspect", task, digest, trust_suite_code)


def _require_no_code(kind: str, task: str) -> None:
    try:
        if kind == "inspect":
            require_no_inspect_code(task)
        elif Path(task).is_file():
            require_no_task_code(Path(task))
    except Code as found:
        raise BadSuite(
            f"{found}; mneme runs no code of a suite unless asked. Read it, then give --trust-suite-code, or give a task "
            "without code in a folder of its own."
        ) from found


def run_harness(harness: Harness, subject: Subject, sampling: Sampling, logs: Path) -> Rows:
    """The scores of one model, sample by sample; Inspect keeps its logs in the folder `logs`.

    Raises BadSuite where the harness cannot run the task.
    """
    if harness.kind == "lm-eval":
        return _run_lm_eval(harness, subject, sampling)
    from mneme.measure.inspecting import run_inspect

    return run_inspect(harness.task, subject, sampling, logs)


def harness_tallies(rows: Rows) -> list[Tally]:
    """The rows as tallies: a sample is a cluster (its epochs are its answers), what has no score is counted as unscored."""
    tallies = []
    for row in rows:
        values = np.array([math.nan if value is None else float(value) for value in row["values"]])
        scored = ~np.isnan(values)
        clusters = tuple(dict.fromkeys(map(str, row["ids"])))
        place = {name: i for i, name in enumerate(clusters)}
        at = np.array([place[str(name)] for name in row["ids"]], dtype=np.int64)
        shares = bool(((values[scored] >= 0) & (values[scored] <= 1)).all())

        def summed(weights: np.ndarray, at: np.ndarray = at, n: int = len(clusters)) -> np.ndarray:
            return np.bincount(at, weights.astype(float), n)

        counts = summed(scored)
        sums = summed(np.nan_to_num(values))
        yes_no = shares and bool(np.isin(values[scored], (0.0, 1.0)).all())
        tallies.append(
            Tally(
                area=row["area"],
                context=STANDARD,
                measure=row["measure"],
                primary=row["primary"],
                is_score=not shares,
                is_choice=yes_no,
                clusters=clusters,
                sums=sums,
                counts=counts,
            )
        )
        if row["primary"] and not scored.all():
            everything = summed(np.ones(len(values)))
            tallies.append(
                Tally(
                    area=row["area"],
                    context=STANDARD,
                    measure=UNSCORED,
                    primary=False,
                    is_score=False,
                    is_choice=False,
                    clusters=clusters,
                    sums=summed(~scored),
                    counts=everything,
                )
            )
    return tallies


def _is_lm_eval_file(path: Path) -> bool:
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    try:
        return "task: " in path.read_text(encoding="utf-8") and isinstance(_task_file(path), dict)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError):
        return False


def _task_file(path: Path) -> Any:
    """The content of a task file; its `!function` tags, which name code, are left as text."""

    loader = _Plain(path.read_text(encoding="utf-8"))
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


class _Plain(yaml.SafeLoader):
    """YAML in which a tag such as `!function` is left as text."""


def _as_text(_: yaml.SafeLoader, tag: str, __: yaml.Node) -> str:
    return f"!{tag}"


_Plain.add_multi_constructor("!", _as_text)


def _run_lm_eval(harness: Harness, subject: Subject, sampling: Sampling) -> Rows:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    file = Path(harness.task)
    if file.is_file():
        manager, name = TaskManager(include_path=str(file.parent), include_defaults=False), _task_name(file)
    else:
        manager, name = TaskManager(), harness.task
    loaded = subject.loaded()
    model = HFLM(pretrained=loaded.parts.model, tokenizer=loaded.tokenizer, batch_size=_BATCH, device=str(loaded.parts.device))
    try:
        with _confined_templates() if file.is_file() and not harness.trusted else nullcontext():
            found = simple_evaluate(
                model,
                tasks=[name],
                task_manager=manager,
                log_samples=True,
                bootstrap_iters=0,
                random_seed=sampling.seed,
                numpy_random_seed=sampling.seed,
                torch_random_seed=sampling.seed,
                fewshot_random_seed=sampling.seed,
            )
    except (KeyError, ValueError, OSError) as error:
        raise BadSuite(
            f"lm-eval cannot run the task {name!r} ({one_line(error)}). Give the name of a task, or the path of its YAML; its "
            "data must be on disk or on the hub."
        ) from error
    rows: Rows = []
    for task, samples in found["samples"].items():
        rows += _metrics(task, samples)
    if not rows:
        raise BadSuite(f"lm-eval gave no score of single samples for {name!r}. Give a task with a metric per sample.")
    return rows


def _task_name(file: Path) -> str:
    """The name of the task in a file, which lm-eval knows it by. Raises BadSuite for a path, which it would load instead."""
    named = _task_file(file).get("task")
    if not isinstance(named, str) or Path(named).expanduser().exists():
        raise BadSuite(f"{file} names no task (task: {str(named)[:60]}). Expected the name of one task.")
    return named


@contextmanager
def _confined_templates() -> Iterator[None]:
    """lm-eval's Jinja environment lets a template run any Python; meanwhile templates are filled in the confined process."""
    from lm_eval import utils

    ordinary = utils.env
    utils.env = _ConfinedTemplates()
    try:
        yield
    finally:
        utils.env = ordinary


class _ConfinedTemplates:
    """As much of a Jinja environment as lm-eval uses."""

    def from_string(self, template: str) -> "_ConfinedTemplate":
        """The template, not yet filled in."""
        return _ConfinedTemplate(template)


@dataclass(frozen=True)
class _ConfinedTemplate:
    template: str

    def render(self, **values: Any) -> str:
        """The text. Raises BadSuite where the template fails or takes too long."""
        try:
            return str(confined("fill", template=self.template, values=values))
        except (Exceeded, Refused) as error:
            raise BadSuite(
                f"the template {self.template[:80]!r} of the task was stopped: {error}. Expected one that puts fields of a "
                "sample into text."
            ) from error


def _metrics(task: str, samples: Sequence[Mapping[str, Any]]) -> Rows:
    metrics = [m for m in samples[0].get("metrics", []) if all(isinstance(s.get(m), bool | int | float) for s in samples)]
    return [
        {
            "area": task,
            "measure": metric,
            "primary": metric == metrics[0],
            "ids": [str(sample["doc_id"]) for sample in samples],
            "values": [None if math.isnan(float(sample[metric])) else float(sample[metric]) for sample in samples],
        }
        for metric in metrics
    ]
