"""`manifest.json`: what a run was made of and what it wrote, each with its SHA-256, so that another team can check it.

A manifest is its own canonical JSON (sorted keys, two blanks) with the digest of everything else in it: no byte of it can be
another one. Files are read whole, however large: what stands for a model here is every byte that loading it reads.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mneme.errors import BadRun

SCHEMA = "mneme.manifest/1"
MANIFEST = "manifest.json"
_READ = ("*.safetensors", "*.safetensors.index.json", "*.json", "*.model", "*.txt", "*.jinja", "*.gguf", "*.tiktoken", "*.py")
"""What loading a checkpoint or an adapter can read; optimizer states, logs and cards it cannot."""
_BLOCK = 2**20
_LARGEST = 64 * 2**20
"""Bytes of a manifest: one line a file, and no model has a hundred thousand."""


def whole_digest(path: Path) -> str:
    """SHA-256 (hex) of every byte of a file, as `sha256sum` has it."""
    digest = hashlib.sha256()
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def model_digests(folder: Path) -> dict[str, str]:
    """File name -> SHA-256 of everything that loading the model in `folder` (or the GGUF file) can read."""
    if folder.is_file():
        return {folder.name: whole_digest(folder)}
    files = sorted({file for pattern in _READ for file in folder.glob(pattern) if file.is_file()})
    return {file.name: whole_digest(file) for file in files}


@dataclass(frozen=True)
class Manifest:
    """What is listed."""

    mneme: str
    key: str
    """Of the run: the hash of everything that decided its result (`run.json`)."""
    files: Mapping[str, str]
    """In the run folder: name -> SHA-256."""
    models: Mapping[str, Mapping[str, str]]
    """base, tuned -> file name -> SHA-256."""
    text: Mapping[str, str]
    """`texts`: SHA-256 of the documents as they were read; `file`: of the file, where it was one."""

    def content(self) -> bytes:
        """The bytes of the file."""
        body = {
            "schema": SCHEMA,
            "mneme": self.mneme,
            "key": self.key,
            "files": dict(self.files),
            "models": {name: dict(files) for name, files in self.models.items()},
            "text": dict(self.text),
        }
        told = {**body, "digest": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()}
        return (json.dumps(told, indent=2, sort_keys=True) + "\n").encode()


def read_manifest(path: Path) -> Manifest:
    """The manifest in a file. Raises BadRun where there is none, or a byte of it is another than was written."""
    try:
        if path.is_symlink() or path.stat().st_size > _LARGEST:
            raise BadRun(f"{path} is no manifest of mneme.")
        content = path.read_bytes()
        found = json.loads(content)
        manifest = Manifest(
            mneme=_text(found["mneme"]),
            key=_text(found["key"]),
            files=_texts(found["files"]),
            models={_text(name): _texts(files) for name, files in found["models"].items()},
            text=_texts(found["text"]),
        )
    except FileNotFoundError:
        raise BadRun(
            f"No {MANIFEST} in {path.parent}: nothing says what this run was made of. Audit again with this version of mneme, "
            "or ask for the whole run folder."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadRun(f"{path} is not the manifest that mneme wrote: it was changed or cut short.") from error
    if manifest.content() != content:
        raise BadRun(f"{path} is not the manifest that mneme wrote: it was changed or cut short.")
    return manifest


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {_text(name): _text(one) for name, one in value.items()}
