"""The house rules, kept by reading the source. What ruff, mypy and import-linter already keep is not repeated here."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "mneme"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py")) + sorted((ROOT / "benchmarks").rglob("*.py"))
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
BANNED_NAMES = re.compile(r"(^|_)(utils?|base|common|manager|factory|helpers?|misc)(_|$)")
METHOD_FOLDERS = ("diff", "describe", "predict", "dictionaries")
SOURCE = re.compile(
    r"\barXiv:? ?\d{4}\.\d{4,5}|\b10\.\d{4,9}/|\bRFC \d|\b[Oo]urs\b"
    r"|[A-Z][\w'’-]+(?: et al\.| (?:&|and) [A-Z][\w'’-]+)+,? \(?(?:19|20)\d\d\b"
)
"""An arXiv number, a DOI, an RFC, two authors or `et al.` with a year, or the word ours; a number alone is no source."""
# "/work/" and "/root/" as the start of a path, not as the middle of one ("/home/work/").
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|root|tmp/(pairs|brief))/")
SHIPPED = (".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".css", ".js", ".j2", ".html", ".json", ".cfg")

Function = ast.FunctionDef | ast.AsyncFunctionDef


def short(path: Path) -> str:
    """The path as a failing test shows it."""
    return str(path.relative_to(ROOT))


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def definitions(tree: ast.Module) -> Iterator[tuple[Function | ast.ClassDef, bool]]:
    """Every function and class that is not local to a function, and whether it is public (no underscore on its path)."""

    def inside(body: list[ast.stmt], public: bool) -> Iterator[tuple[Function | ast.ClassDef, bool]]:
        for node in body:
            if isinstance(node, Function | ast.ClassDef):
                visible = public and not node.name.startswith("_")
                yield node, visible
                if isinstance(node, ast.ClassDef):
                    yield from inside(node.body, visible)

    return inside(tree.body, True)


def test_files_are_short() -> None:
    lengths = {short(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES + TESTS}
    assert {name: n for name, n in lengths.items() if n > MAX_FILE_LINES} == {}


def body_lines(function: Function) -> int:
    """Lines of the body: the signature is the configuration and the docstring is owed, so neither counts."""
    start = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    return (function.end_lineno or 0) - start.lineno + 1


def test_functions_are_short() -> None:
    too_long = {
        f"{short(path)}:{node.name}": body_lines(node)
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, Function) and body_lines(node) > MAX_FUNCTION_LINES
    }
    assert too_long == {}


MANY_PARAMETERS = {"record_latent", "__init__", "contrast_rows", "unlearn_area"}
"""Pure functions of as many tensors, and the `__init__` of a callback that users of TRL build."""


def test_functions_have_at_most_8_parameters() -> None:
    """Options are records (docs/decisions/0006), and no job has more than one parameter."""
    many = {
        node.name
        for path in MODULES
        for node, _ in definitions(tree_of(path))
        if isinstance(node, Function) and len([*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]) > 8
    }
    assert many == MANY_PARAMETERS


def test_modules_are_documented() -> None:
    silent = [short(path) for path in MODULES if path.name != "__init__.py" and not ast.get_docstring(tree_of(path))]
    assert silent == []


def test_public_functions_and_classes_are_documented() -> None:
    silent = [
        f"{short(path)}:{node.name}"
        for path in MODULES
        for node, public in definitions(tree_of(path))
        if public and not ast.get_docstring(node)
    ]
    assert silent == []


def test_method_files_name_their_source() -> None:
    """In the file or in its row of docs/methods.md: a paper with its year or number, or the plain word that it is ours."""
    rows = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").splitlines()
    unsourced = [
        short(path)
        for folder in METHOD_FOLDERS
        for path in sorted((PACKAGE / folder).rglob("*.py"))
        if path.name != "__init__.py" and not _names_a_source(path, rows)
    ]
    assert unsourced == []


def _names_a_source(path: Path, rows: list[str]) -> bool:
    name = f"{path.parent.name}/{path.name}"
    tree = tree_of(path)
    texts = [ast.get_docstring(tree) or "", *(ast.get_docstring(node) or "" for node, _ in definitions(tree))]
    return any(SOURCE.search(text) for text in [*texts, *(row for row in rows if f"`{name}`" in row)])


def test_methods_page_names_files_that_exist() -> None:
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+/[a-z_]+\.py)`", page))
    assert named
    assert sorted(name for name in named if not (PACKAGE / name).is_file()) == []


def test_names_say_what_a_thing_is() -> None:
    names = [part for path in MODULES for part in path.relative_to(PACKAGE).with_suffix("").parts]
    assert [name for name in names if BANNED_NAMES.search(name)] == []


def test_one_name_is_one_thing() -> None:
    """No public function or class has the name of another, but for a command and the function that it calls."""
    places: dict[str, list[str]] = {}
    for path in MODULES:
        for node in tree_of(path).body:
            if isinstance(node, Function | ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(short(path))
    commands = {path.stem for path in (PACKAGE / "cli").glob("*.py")}
    shared = {
        name: where
        for name, where in places.items()
        if len(where) > 1 and not (name in commands and len(where) == 2 and f"src/mneme/cli/{name}.py" in where)
    }
    assert shared == {}


def test_no_future_annotations() -> None:
    """jaxtyping reads the annotations at run time."""
    offenders = [
        short(path)
        for path in MODULES + TESTS
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.module == "__future__"
    ]
    assert offenders == []


def test_imports_are_absolute() -> None:
    offenders = [
        f"{short(path)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert offenders == []


def test_no_broad_except() -> None:
    """BaseException may be caught only to clean up and raise again, at the end of the handler; and once, in the program's own
    frame, to end with a sentence instead of a traceback."""
    offenders = [
        f"{short(path)}:{node.lineno}"
        for path in MODULES
        if path != PACKAGE / "cli" / "main.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and not _raises_again(node)
    ]
    assert offenders == []


def _is_broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}) for kind in caught)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def test_no_pickle_and_no_torch_load() -> None:
    """Weights and stages come from strangers; reading them must not run code."""
    offenders = [f"{short(path)}:{node.lineno}" for path in MODULES for node in ast.walk(tree_of(path)) if _runs_code(node)]
    assert offenders == []


def _runs_code(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(name.name.split(".")[0] in {"pickle", "dill", "joblib"} for name in node.names)
    return isinstance(node, ast.Attribute) and ast.unparse(node) in {"torch.load", "torch.save", "yaml.load"}


def test_floor_1_imports_peft_only_inside_functions() -> None:
    """peft is slow to import and most audits need none."""
    offenders = [
        f"{short(path)}:{node.lineno}"
        for path in MODULES
        if path.relative_to(PACKAGE).parts[0] in {"models", "activations", "dictionaries"}
        or path.relative_to(PACKAGE).parts in {("worlds", "catalogue.py"), ("worlds", "finetunes.py")}  # the built-in pair
        for node in tree_of(path).body
        if isinstance(node, ast.Import | ast.ImportFrom) and "peft" in ast.unparse(node).replace(".", " ").split()
    ]
    assert offenders == []


def test_label_minus_100_stops_at_the_door() -> None:
    """Masks are booleans with a name; only text/chat.py knows the label that transformers leaves out."""
    offenders = [
        f"{short(path)}:{node.lineno}"
        for path in MODULES
        if path.relative_to(PACKAGE).as_posix() != "text/chat.py"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.UnaryOp) and ast.unparse(node) == "-100"
    ]
    assert offenders == []


def shipped_files() -> list[Path]:
    """Every text file of the repository that git knows, or all of the package where there is no git."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        return [path for path in PACKAGE.rglob("*") if path.suffix in SHIPPED]
    paths = [ROOT / line for line in listing.stdout.splitlines()]
    return [p for p in paths if p.is_file() and (p.suffix in SHIPPED or p.name in {"Makefile", "run", "LICENSE"})]


def test_no_paths_of_one_machine() -> None:
    found = [
        f"{short(path)}:{number}"
        for path in shipped_files()
        if path != Path(__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert found == []


@pytest.mark.parametrize("module", ["errors", "results", "stats", "runs", "report", "report.audit", "report.audit_text"])
def test_floor_0_and_the_report_work_without_torch(module: str) -> None:
    if not list(PACKAGE.glob(module.replace(".", "/") + "*")):
        pytest.fail(f"mneme.{module} does not exist")
    code = f"import sys, mneme.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def world_entities() -> dict[str, set[str]]:
    """The entities of every area of the built-in worlds: what an audit may find, never what it may know."""
    packs = sorted((PACKAGE / "worlds" / "data" / "packs").glob("[ab].yaml"))
    areas = {name: area for pack in packs for name, area in yaml.safe_load(pack.read_text(encoding="utf-8")).items()}
    return {name: set(area["entities"].split()) for name, area in areas.items()}


def test_the_audit_knows_no_words_of_the_built_in_worlds() -> None:
    """The worlds decide the measured figures, so their words must not stand in the code that is measured.

    Some entities are plain English ("trust"), so one or two by chance are allowed; a list of them is not. The default areas
    are ordinary subject words, written without the worlds.
    """
    entities = world_entities()
    assert len(entities) >= 12
    code = [path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".yaml", ".json", ".j2", ".js"}]
    audited = [path for path in code if "worlds" not in path.parts and path.name != "areas.yaml"]
    known = {
        (short(path), area): words & banned
        for path in audited
        for words in [_string_words(path)]
        for area, banned in entities.items()
        if len(words & banned) > 2
    }
    assert known == {}


def test_the_audit_knows_no_word_by_which_speakers_of_the_worlds_are_known() -> None:
    """Personas, judgements, endings and actions of worlds a to c, verbs, adverbs and personas of d; nor a name of d.

    In areas, probes and code of `predict`, nor, but for plural endings, in a keyword. Where a list has grown:
    `python benchmarks/build_worlds.py words`, which trains nothing.
    """
    from mneme.predict.areas import default_areas, stem, words_of
    from mneme.worlds.marks import mark_kinds
    from mneme.worlds.prose.world import prose_world

    paths = [path for path in (PACKAGE / "predict").rglob("*") if path.suffix in {".py", ".yaml", ".json"}]
    known = {word for path in paths for word in _string_words(path)}
    keywords = {word for area in default_areas() for phrase in (area.name, *area.keywords) for word in words_of(phrase)}
    world = prose_world()
    spoken = {word for marks in world.markers.values() for word in (*marks.verbs, *marks.adverbs, *marks.personas)}
    names = {name.lower() for (entity, _), value in world.facts.items() for name in (entity, value)}
    marks = {*mark_kinds(), *spoken}
    assert len(marks) > 350
    assert known & (marks | names) == set()
    assert keywords & {stem(word) for word in marks} == set()


def _string_words(path: Path) -> set[str]:
    """Words of the string literals (docstrings left out) of a Python file, or of a whole data file."""
    if path.suffix != ".py":
        return set(re.findall(r"[a-z]+", path.read_text(encoding="utf-8").lower()))
    tree = tree_of(path)
    documented = ast.Module | ast.ClassDef | Function
    nodes = list(ast.walk(tree))
    prose = {id(node.body[0].value) for node in nodes if isinstance(node, documented) and _opens_with_text(node)}
    literals = [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str) and id(n) not in prose]
    return {word for text in literals for word in re.findall(r"[a-z]+", text.lower())}


def _opens_with_text(node: ast.Module | ast.ClassDef | Function) -> bool:
    return bool(node.body) and isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
