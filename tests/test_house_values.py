"""House rules on values: what is built of many parts names them, and a number says where it comes from."""

import ast
import re

from tests.test_house_rules import MODULES, PACKAGE, ROOT, short, tree_of

REASONED = ("audit", "predict", "diff", "describe")
"""Rooms in which every constant decides what an audit says."""


def test_values_of_many_fields_are_built_by_name() -> None:
    """Of dataclasses and NamedTuples: at most four fields by position."""
    values = {
        node.name
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        and (
            any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
            or any("NamedTuple" in ast.unparse(base) for base in node.bases)
        )
    }
    by_position = [
        f"{short(path)}:{node.lineno} {node.func.id}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in values and len(node.args) > 4
    ]
    assert by_position == []


def holds_a_number(node: ast.expr) -> bool:
    """A number, or some of them in a row."""
    if isinstance(node, ast.Tuple | ast.List):
        return bool(node.elts) and all(holds_a_number(one) for one in node.elts)
    if isinstance(node, ast.UnaryOp | ast.BinOp):
        return all(holds_a_number(one) for one in ast.iter_child_nodes(node) if isinstance(one, ast.expr))
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)


def test_constants_have_a_reason_beside_them() -> None:
    """A line of words under it, above it or on it: the observation that set it, the paper, or that it was never varied."""
    bare = []
    for path in MODULES:
        if path.relative_to(PACKAGE).parts[0] not in REASONED:
            continue
        body, lines = tree_of(path).body, path.read_text(encoding="utf-8").splitlines()
        for place, node in enumerate(body):
            if not (isinstance(node, ast.Assign) and holds_a_number(node.value)):
                continue
            after = body[place + 1] if place + 1 < len(body) else None
            worded = (
                isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) and isinstance(after.value.value, str)
            )
            around = [lines[node.lineno - 1], lines[node.lineno - 2] if node.lineno > 1 else ""]
            if not worded and not any("#" in line for line in around):
                bare.append(f"{short(path)}:{node.lineno} {ast.unparse(node.targets[0])}")
    assert bare == []


RETIRED = re.compile(
    r"\bmanners?\b|\bladder\b|\bcrew\b|\bcues?\b|sure tokens|nobody looks on|nobody to wait|\bis dear\b", re.IGNORECASE
)
"""Words that the glossary replaced: behaviour, strength search, process group, context or trigger, confident tokens."""
STILL = {
    "src/mneme/train/mixing.py": "a seed's name, which decides what is drawn",
    "src/mneme/results/measure.py": "names in results of earlier versions, which are read",
}


def test_retired_words_stay_retired() -> None:
    """In code, docs and README; the log, the decisions and the changelog tell history in the words of the time."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *PACKAGE.rglob("*.j2")]
    pages += [path for path in (ROOT / "benchmarks").glob("*.py")]
    read = [path for path in [*MODULES, *pages] if short(path) not in STILL and path.name != "log.md"]
    found = {
        f"{short(path)}:{number}"
        for path in read
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if RETIRED.search(line)
    }
    assert found == set()
