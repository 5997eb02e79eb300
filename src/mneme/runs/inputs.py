"""A run never writes where its inputs lie."""

from collections.abc import Mapping
from pathlib import Path

from mneme.errors import BadOption
from mneme.runs.ledger import read_small


def require_apart(out: str | Path, inputs: Mapping[str, object]) -> None:
    """Raise BadOption where one of `inputs` (how the command line calls it -> what was given) lies in `out`, is `out`, or is a
    folder that holds `out`. What is no path of a file or folder here (a hub name, an address, rows, None) is passed over;
    of an adapter, the base that it names counts too. Links are followed, so that no name hides where a file lies.
    """
    here = Path(out).expanduser().resolve()
    for name, given in inputs.items():
        for one in given if isinstance(given, list | tuple) else [given]:
            for path in _paths(one):
                _require_apart(here, out, name, path)


def _paths(given: object) -> list[Path]:
    """The file or folder that was given, and the base that it names where it is an adapter."""
    if not isinstance(given, str | Path) or not str(given):
        return []
    path = Path(given).expanduser()
    try:
        if not path.exists():
            return []
    except OSError:  # longer than a path may be: text, not a path
        return []
    config = read_small(path / "adapter_config.json") if path.is_dir() else None
    named = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    base = Path(named).expanduser() if isinstance(named, str) and named else None
    try:
        return [path, base] if base is not None and base.exists() else [path]
    except OSError:
        return [path]


def _require_apart(here: Path, out: str | Path, name: str, path: Path) -> None:
    there = path.resolve()
    if there == here:
        how = f"is the folder that --out names ({out})"
    elif there.is_relative_to(here):
        how = f"lies inside --out {out}"
    elif path.is_dir() and here.is_relative_to(there):
        how = f"is a folder that holds --out {out}"
    else:
        return
    raise BadOption(f"{name} {path} {how}. A run never writes where its input lies: give another folder with --out.")
