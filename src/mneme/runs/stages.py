"""Stages on disk: arrays in `<name>.npz` and beside them `<name>.json`, which holds their digest, seconds and seal."""

import hmac
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mneme.runs.ledger import read_small, seal
from mneme.runs.writing import TEMPORARY, content_digest, file_digest, write_atomic


def write_marker(stages: Path, name: str, content: bytes, seconds: float, key: str, secret: bytes) -> None:
    """Write what says that `<name>.npz` with this content is a stage of the run `key`."""
    digest = content_digest(content)
    told = {"sha256": digest, "seconds": round(seconds, 3), "seal": seal(secret, "stage", key, name, digest)}
    write_atomic(stages / f"{name}.json", json.dumps(told).encode())


def _is_marked(stages: Path, name: str, key: str, secret: bytes) -> str | None:
    """The digest that the arrays of the stage have to have; None where no marker of the run `key` says so."""
    match read_small(stages / f"{name}.json"):
        case {"sha256": str(digest), "seal": str(told)}:
            expected = seal(secret, "stage", key, name, digest)
            return digest if hmac.compare_digest(told.encode(), expected.encode()) else None
        case _:
            return None


def sealed_stage(stages: Path, name: str, key: str, secret: bytes) -> bool:
    """True where the stage is on disk just as this user's mneme wrote it for the run `key`."""
    path = stages / f"{name}.npz"
    digest = _is_marked(stages, name, key, secret)
    try:
        return digest is not None and not path.is_symlink() and path.is_file() and file_digest(path) == digest
    except OSError:
        return False


def read_arrays(stages: Path, name: str) -> dict[str, np.ndarray]:
    """The arrays of a stage that was checked. Object arrays are refused: only pickle could hold them."""
    with np.load(stages / f"{name}.npz", allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def bundled(several: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Several stages as one."""
    return {f"{number}.{key}": array for number, arrays in enumerate(several) for key, array in arrays.items()}


def unbundled(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The stages of `bundled`, none of which is empty."""
    found: list[dict[str, np.ndarray]] = []
    for name, array in arrays.items():
        number, _, key = name.partition(".")
        if int(number) == len(found):
            found.append({})
        found[int(number)][key] = array
    return found


def read_seconds(stages: Path, name: str) -> float:
    """What the stage took; 0 where that is not told."""
    match read_small(stages / f"{name}.json"):
        case {"seconds": float() | int() as seconds}:
            return float(seconds)
        case _:
            return 0.0


def drop_stages(stages: Path, key: str, secret: bytes) -> None:
    """Remove the stages and workspaces of the run `key`, then the folder where nothing else is in it. Links stay."""
    if stages.is_symlink() or not stages.is_dir():
        return
    for marker in list(stages.glob("*.json")):
        name = marker.name.removesuffix(".json")
        if _is_marked(stages, name, key, secret) is None:
            continue
        workspace = stages / name.removesuffix(".folder")
        if name.endswith(".folder") and workspace.is_dir() and not workspace.is_symlink():
            shutil.rmtree(workspace)
        arrays = stages / f"{name}.npz"
        if arrays.is_file() or arrays.is_symlink():
            arrays.unlink()
        marker.unlink()
    remove_leftovers(stages)
    if not any(stages.iterdir()):
        stages.rmdir()


def remove_leftovers(stages: Path) -> None:
    """Remove what a kill left of files being written in the stages of an own run."""
    for leftover in stages.glob(f"{TEMPORARY}*"):
        if leftover.is_file() and not leftover.is_symlink():
            leftover.unlink()
