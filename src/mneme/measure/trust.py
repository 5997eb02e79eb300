"""What in a suite of somebody else is code: found by reading, before anything of it is loaded.

lm-eval runs the Python that a task file names, lists every task file below its folder, follows `include`, and loads metrics
and data sets by path; Inspect runs the Python files that a task's name leads to.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the parser that lm-eval reads the same files with
_TASK_KEYS = {"task", "group", "class", "include", "tag"}
_DATA_FORMATS = {"json", "csv", "text", "parquet", "arrow"}
"""Builders of `datasets` that only read the files they are given."""
_OTHER_BUILDERS = {"sql", "iceberg", "generator", "spark", "pandas", "cache", "eval", "lance", "vortex", "harbor"}
"""Builders of `datasets` that can connect to a database, load a class by name, unpickle, or read what nobody named."""


class Code(Exception):
    """A file of a suite holds code. The text says where and what."""


def require_no_task_code(task: Path) -> None:
    """Raises Code where lm-eval would run code for the task in this YAML file, or for another of its folder."""
    seen: set[Path] = set()
    _check_file(task, seen)
    for other in sorted(task.parent.glob("**/*.yaml")):
        if _may_be_task(other):
            _check_file(other, seen)


def require_no_inspect_code(task: str) -> None:
    """Raises Code where Inspect would load this task from a file: `FILE.py`, `FILE.py@TASK`, a folder, a pattern of names."""
    file, at, _ = task.rpartition("@")
    place = Path(file if at else task)
    found = [place] if place.exists() else []
    if not found and not place.is_absolute():
        try:
            found = [path for path in [next(Path.cwd().glob(str(place)), None)] if path]
        except (ValueError, NotImplementedError, IndexError):
            found = []
    if found:
        what = "is Python code" if found[0].is_file() else "is a folder whose Python files Inspect runs"
        raise Code(f"{found[0]} {what}")


def _may_be_task(path: Path) -> bool:
    """False for YAML that lm-eval does not take for a task; what cannot be read may be one."""
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError):
        return True
    return isinstance(node, yaml.MappingNode) and any(
        isinstance(key, yaml.ScalarNode) and (key.value in _TASK_KEYS or key.value == "<<") for key, _ in node.value
    )


def _check_file(path: Path, seen: set[Path]) -> None:
    path = path.expanduser().resolve()
    if path in seen:
        return
    seen.add(path)
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=_LOADER)
        if node is not None:
            _check_tags(node, path)
        loader = _LOADER(text)
        content = loader.get_single_data()
        loader.dispose()
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, OSError, ValueError) as error:
        raise Code(
            f"{path} cannot be read as plain YAML ({' '.join(str(error).split())[:120]}), so it may hold code"
        ) from error
    for entry in _mappings(content):
        _check_entry(entry, path)
        included = entry.get("include") or []
        for name in included if isinstance(included, list) else [included]:
            _check_file(path.parent / str(name), seen)


def _check_tags(node: yaml.Node, path: Path) -> None:
    """Raises Code for a tag that is not of plain YAML: `!function` names a Python function."""
    waiting, seen = [node], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.startswith("tag:yaml.org,2002:python"):
            written = node.value if isinstance(node, yaml.ScalarNode) else "…"
            raise Code(f"{path} names code (line {node.start_mark.line + 1}: {node.tag} {written[:60]})")
        if isinstance(node, yaml.MappingNode):
            waiting += [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value


def _mappings(content: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a file, but for what stands under `metadata`."""
    waiting, seen = [content], set()
    while waiting:
        part = waiting.pop()
        if id(part) in seen:  # anchors can make a value hold itself
            continue
        seen.add(id(part))
        if isinstance(part, dict):
            yield part
            waiting += [value for key, value in part.items() if key != "metadata"]
        elif isinstance(part, list):
            waiting += part


def _check_entry(entry: dict[str, Any], path: Path) -> None:
    for key in ("class", "use_prompt", "unsafe_code", "custom_dataset", "trust_remote_code", "hf_evaluate"):
        if entry.get(key):
            raise Code(f"{path} asks for code ({key}: {str(entry[key])[:60]})")
    metric = entry.get("metric")
    if metric is not None and str(metric) not in _metrics():
        raise Code(f"{path} asks for a metric that is none of lm-eval's, which would be loaded as code ({str(metric)[:60]})")
    source = entry.get("dataset_path")
    if source is None:
        return
    local = Path(str(source)).expanduser()
    is_script = local.suffix == ".py" or (local.is_dir() and next(local.glob("*.py"), None) is not None)
    if str(source) not in _DATA_FORMATS and (str(source) in _OTHER_BUILDERS or is_script):
        raise Code(f"{path} reads its data through code (dataset_path: {str(source)[:60]})")


def _metrics() -> set[str]:
    import lm_eval.api.metrics
    from lm_eval.api.registry import metric_registry

    assert lm_eval.api.metrics  # importing it fills the registry
    return set(metric_registry)
