"""Harvested activations on disk, for when a harvest costs more than its disk space: shards, a manifest, resume by shard.

A shard is one safetensors file of a fixed number of rows; it gets its name only when it is whole, so a killed run leaves no
half shard under a valid name. The manifest holds what the activations are of (the caller's key), and each shard's SHA-256.
Cost: 8 bytes x layers x d_model a token in float32, and one pass of hashing.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mneme.activations.harvest import Harvested, harvest
from mneme.errors import BadRun
from mneme.models.pair import ModelPair
from mneme.runs import write_atomic

_MANIFEST = "manifest.json"
_FORMAT = "mneme.activations/1"


def store_harvest(
    pair: ModelPair,
    ids: Int[Tensor, "row seq"],
    layers: Sequence[int],
    folder: Path,
    *,
    key: str,
    shard_rows: int,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Write the harvest of `ids` into `folder`, `shard_rows` rows a shard, and return how many shards had to be made.

    Shards that a former run with the same key finished are kept. `key` says what the activations depend on: both models'
    fingerprints and the text; ids, layers, rows a shard and dtype are added here. q is computed in float32 and only then
    rounded to `dtype`. Raises BadRun where the folder holds another harvest, or the disk has no room.
    """
    described = {
        "format": _FORMAT,
        "key": key,
        "ids": hashlib.sha256(ids.cpu().contiguous().numpy().tobytes()).hexdigest(),
        "rows": ids.shape[0],
        "row_length": ids.shape[1],
        "layers": sorted(set(layers)),
        "shard_rows": shard_rows,
        "dtype": str(dtype).removeprefix("torch."),
    }
    for leftover in folder.glob(".mneme-*"):  # what a kill left of `write_atomic`
        leftover.unlink(missing_ok=True)
    hashes = _finished(folder, described)
    made = 0
    for start in range(0, ids.shape[0], shard_rows):
        name = _name(start)
        if name in hashes and (folder / name).is_file():
            continue
        [batch] = harvest(pair, ids[start : start + shard_rows], layers, batch_rows=shard_rows)
        raw = save(
            {f"{kind}.{layer}": x.to(dtype) for kind, xs in (("m", batch.m), ("q", batch.q)) for layer, x in xs.items()}
        )
        write_atomic(folder / name, raw)
        hashes[name] = hashlib.sha256(raw).hexdigest()
        write_atomic(folder / _MANIFEST, (json.dumps({**described, "sha256": hashes}, indent=2) + "\n").encode())
        made += 1
    return made


def read_harvest(folder: Path) -> Iterator[Harvested]:
    """The stored harvest in row order, one shard at a time, float32, every shard checked against its hash.

    Raises BadRun where the folder holds no whole harvest, or a shard is missing or was changed.
    """
    manifest = _manifest(folder)
    if manifest is None:
        raise BadRun(f"{folder} holds no harvest ({_MANIFEST} is missing). Store one first.")
    return _read(folder, manifest)


def _read(folder: Path, manifest: dict[str, Any]) -> Iterator[Harvested]:
    for start in range(0, manifest["rows"], manifest["shard_rows"]):
        name = _name(start)
        file = folder / name
        if name not in manifest["sha256"] or not file.is_file():
            raise BadRun(f"{folder} is not finished: {name} is missing. Run the same command again; it goes on there.")
        raw = file.read_bytes()
        if hashlib.sha256(raw).hexdigest() != manifest["sha256"][name]:
            raise BadRun(f"{file} is not what was written: its hash differs from the manifest. Delete it and run again.")
        try:
            tensors = load(raw)
        except SafetensorError as error:
            raise BadRun(f"{file} is no safetensors file ({error}). Delete it and run again.") from error
        rows = slice(start, min(start + manifest["shard_rows"], manifest["rows"]))
        m = {layer: tensors[f"m.{layer}"].float() for layer in manifest["layers"]}
        q = {layer: tensors[f"q.{layer}"].float() for layer in manifest["layers"]}
        yield Harvested(rows, m, q)


def _name(start: int) -> str:
    return f"rows-{start:09d}.safetensors"


def _manifest(folder: Path) -> dict[str, Any] | None:
    file = folder / _MANIFEST
    if not file.is_file():
        return None
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise BadRun(f"{file} is not JSON ({error}). Delete {folder} and run again.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise BadRun(f"{file} was not written by this version of mneme. Choose another folder, or delete {folder}.")
    return manifest


def _finished(folder: Path, described: dict[str, Any]) -> dict[str, str]:
    """Hashes of the shards that a former run of the same harvest wrote."""
    manifest = _manifest(folder)
    if manifest is None:
        return {}
    hashes = manifest.pop("sha256")
    if manifest != described:
        changed = sorted(name for name in described if manifest.get(name) != described[name])
        raise BadRun(f"{folder} holds another harvest (other {', '.join(changed)}). Choose another folder, or delete it.")
    return dict(hashes)
