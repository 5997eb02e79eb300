"""A suite of a stranger runs no code, and says which file holds it; the same task without code is measured."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mneme.errors import BadSuite
from mneme.measure.harness import harness_of
from mneme.measure.run import measure
from tests.conftest import TinyPair
from tests.measure.conftest import choice_rows, write_jsonl

pytest.importorskip("lm_eval", reason="lm-eval is not installed (extra: evals)")
pytest.importorskip("inspect_ai", reason="inspect-ai is not installed (extra: evals)")

SAYS = r"--trust-suite-code"


def marking(marker: Path) -> str:
    """Python that leaves a file behind when it is run."""
    return f"open({str(marker)!r}, 'w').close()\n\n\ndef shout(*_, **__):\n    return 'x'\n"


def plain_task(folder: Path, **changes: object) -> dict[str, object]:
    """A task of lm-eval that is data alone."""
    path = write_jsonl(folder / "facts.jsonl", choice_rows(6))
    task: dict[str, object] = {
        "task": "tiny",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(path)}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{prompt}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    return task | changes


def write_task(path: Path, task: object, extra: str = "") -> Path:
    """The task as YAML, with lines that yaml.safe_dump does not write."""
    path.write_text(yaml.safe_dump(task, sort_keys=False) + extra, "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with Python that leaves `ran` behind."""
    place = tmp_path / "suite"
    place.mkdir()
    (place / "evil.py").write_text(marking(tmp_path / "ran"))
    return place


FUNCTION = "process_docs: !function evil.shout\n"
CHANGES: dict[str, dict[str, object]] = {
    "metric by path": {"metric_list": [{"metric": "./evil.py", "aggregation": "mean"}]},
    "data by script": {"dataset_path": "evil.py"},
    "data by remote code": {"dataset_kwargs": {"trust_remote_code": True}},
    "data of a database": {"dataset_path": "sql"},
    "prompts by path": {"use_prompt": "evil.yaml:one"},
    "include": {"include": "parts/more.yml"},
    "function of a metric": {"metric_list": None},
}
LINES = {
    "function": FUNCTION,
    "function of a metric": "metric_list:\n  - metric: !function evil.shout\n    aggregation: mean\n",
    "class": "class: !function evil.shout\n",
    "python object": "description: !!python/name:os.system ''\n",
}


def task_of(kind: str, folder: Path) -> Path:
    """A task file of that kind of badness."""
    plain = plain_task(folder)
    (folder / "parts").mkdir()
    if kind == "include":
        (folder / "parts" / "more.yml").write_text(FUNCTION.replace("evil", "../evil"))
    if kind == "neighbour of the same name":
        write_task(folder / "parts" / "first.yaml", plain, FUNCTION)
    return write_task(folder / "tiny.yaml", plain | CHANGES.get(kind, {}), LINES.get(kind, ""))


KINDS = [
    *("function", "function of a metric", "class", "include", "neighbour of the same name", "metric by path"),
    *("data by script", "data by remote code", "data of a database", "prompts by path", "python object"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_code_of_an_lm_eval_task_is_not_run(kind: str, folder: Path, tiny_pair: TinyPair, tmp_path: Path) -> None:
    path = task_of(kind, folder)
    before = sorted(file for file in tmp_path.rglob("*") if file.is_file())
    with pytest.raises(BadSuite, match=SAYS) as caught:
        measure(tiny_pair.base, suite=f"lm-eval:{path}", out=tmp_path / "out")
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(file for file in tmp_path.rglob("*") if file.is_file()) == before
    assert harness_of(f"lm-eval:{path}", trust_suite_code=True) is not None


@pytest.mark.parametrize("kind", ["FILE", "FILE@TASK", "folder", "pattern", "notebook"])
def test_code_of_an_inspect_task_is_not_run(
    kind: str, folder: Path, tiny_pair: TinyPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (folder / "book.ipynb").write_text("{}")
    task = {
        "FILE": str(folder / "evil.py"),
        "FILE@TASK": f"{folder / 'evil.py'}@words",
        "folder": "suite",
        "pattern": "suite/ev*",
        "notebook": "suite/book.ipynb",
    }[kind]
    with pytest.raises(BadSuite, match=SAYS):
        measure(tiny_pair.base, suite=f"inspect:{task}", out=tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()
    assert harness_of(f"inspect:{task}", trust_suite_code=True) is not None


def test_an_installed_task_needs_no_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert harness_of("lm-eval:arc_easy") is not None
    assert harness_of("inspect:inspect_evals/arc_easy") is not None


def test_the_command_says_one_sentence_and_writes_nothing(folder: Path, tiny_pair: TinyPair, tmp_path: Path) -> None:
    path = task_of("function", folder)
    line = ["measure", str(tiny_pair.base), "--suite", str(path), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "mneme", *line], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("mneme: ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out").exists()


TEMPLATES = {
    "a global": "{{{{ cycler.__init__.__globals__.os.system('touch {marker}') }}}}",
    "a class": "{{{{ ''.__class__.__mro__[1].__subclasses__() }}}}{{{{ self.__init__.__globals__ }}}}",
    "a loop": "{{% for i in range(99999) %}}{{% for j in range(99999) %}}{{% endfor %}}{{% endfor %}}{marker}",
    "memory": "{{{{ 'a' * 10**11 }}}}{marker}",
    "a hidden attribute": "{{{{ joiner|attr('__init__') }}}}{marker}{{{{ (joiner|attr('__init__')).__globals__ }}}}",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TEMPLATES)
def test_templates_of_a_task_run_no_code(kind: str, folder: Path, tiny_pair: TinyPair, tmp_path: Path) -> None:
    template = TEMPLATES[kind].format(marker=tmp_path / "ran")
    path = write_task(folder / "tiny.yaml", plain_task(folder, doc_to_text=template))
    line = ["measure", str(tiny_pair.base), "--suite", str(path), "--out", str(tmp_path / "out")]
    environment = os.environ | {"HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "mneme", *line], capture_output=True, text=True, check=False, env=environment, timeout=120
    )
    assert done.returncode == 2, done.stderr
    assert "was stopped" in done.stderr
    assert not (tmp_path / "ran").exists()
