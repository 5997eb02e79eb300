"""`evidence.npz`: the evidence of an audit as arrays, compressed, without pickle; read back as a stranger's."""

import io
import json
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy import ndarray

from mneme.audit.evidence import AuditEvidence, BehaviourSeen, OrdinaryText, SampledTokens
from mneme.errors import BadRun
from mneme.predict.cloze import Scores
from mneme.predict.knowledge import WordEvidence

SCHEMA = "mneme.evidence/1"
_LARGEST = 2 * 2**30
"""Bytes of all arrays unpacked: 100 bytes an item and a sampled token of ten million passages."""
_UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, EOFError, MemoryError,
    SyntaxError, zipfile.BadZipFile, zlib.error, struct.error, tokenize.TokenError,
)  # fmt: skip
"""What zip and NumPy end in where a file is damaged: a header can name a size that no machine has, or be no Python literal."""
_SCORES = ("p_true", "margin", "right")


def evidence_bytes(evidence: AuditEvidence) -> bytes:
    """The file. Masks are packed eight to a byte; everything else keeps its type, so that what is computed again is the same
    to the last digit."""
    arrays: dict[str, ndarray] = {}
    for name, words in _all_words(evidence):
        arrays |= _words_stored(name, words)
    arrays |= {f"sampled.{name}": _small(value) for name, value in evidence.sampled._asdict().items()}
    arrays |= {"member": np.packbits(evidence.member, axis=-1), "seeds": evidence.seeds}
    for index, seen in evidence.behaviours.items():
        arrays[f"behaviour.{index}.passage"] = _small(seen.passage)
        arrays[f"behaviour.{index}.mass"] = seen.mass
        arrays[f"behaviour.{index}.text"] = np.packbits(seen.text)
    arrays |= {f"answered.{index}": shown for index, shown in evidence.answered.items()}
    arrays |= {f"continued.{index}": shows for index, shows in evidence.continued.items()}
    if evidence.ordinary is not None:
        arrays |= {"ordinary.log_p": evidence.ordinary.log_p, "ordinary.counted": _small(evidence.ordinary.counted)}
    if evidence.written is not None:
        arrays["written"] = np.frombuffer(evidence_bytes(evidence.written), dtype=np.uint8)
    told = {
        "schema": SCHEMA,
        "passages": evidence.member.shape[1],
        "types": evidence.types,
        "chance": sorted(evidence.chance),
        "silent": {str(index): why for index, why in evidence.silent.items()},
        "behaviours": list(evidence.behaviours),
        "answered": list(evidence.answered),
        "unfollowed": sorted(evidence.unfollowed),
        "continued": list(evidence.continued),
        "null": len(evidence.null),
        "ordinary": evidence.ordinary is not None,
    }
    arrays["told"] = np.frombuffer(json.dumps(told, sort_keys=True).encode(), dtype=np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _all_words(evidence: AuditEvidence) -> list[tuple[str, WordEvidence]]:
    return [("words", evidence.words), *((f"null.{number}", one) for number, one in enumerate(evidence.null))]


def _words_stored(name: str, words: WordEvidence) -> dict[str, ndarray]:
    return {
        f"{name}.own": np.packbits(words.own, axis=-1),
        f"{name}.document": _small(words.document),
        f"{name}.type": _small(words.type),
        f"{name}.usable": words.usable,
        **{f"{name}.{one}": getattr(words.scores, one) for one in _SCORES},
    }


def _small(values: ndarray) -> ndarray:
    """Whole numbers in 32 bits: documents, passages and types are counted in millions."""
    return values.astype(np.int32) if values.dtype.kind == "i" else values


def evidence_from(content: bytes, where: str, *, nested: bool = False) -> AuditEvidence:
    """The evidence in a file's bytes; `nested`: of text that was written, whose evidence lies in another. Raises BadRun where
    they are none, or do not fit together."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            if sum(one.file_size for one in packed.infolist()) > _LARGEST:
                raise BadRun(f"{where} unpacks to more than {_LARGEST >> 30} GB, which no evidence does.")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        told = json.loads(arrays["told"].tobytes())
        if told["schema"] != SCHEMA:
            raise BadRun(f"{where} is of schema {str(told['schema'])[:40]}, expected {SCHEMA}. Read it with its mneme.")
        found = _evidence(arrays, told)
        if "written" not in arrays:
            return found
        # Whoever puts a file into a file into a file is stopped here: text that was written lacks nothing.
        if nested:
            raise ValueError("evidence within evidence within evidence")
        written = evidence_from(arrays["written"].tobytes(), where, nested=True)
        if len(written.member) != len(found.member):
            raise ValueError("evidence of other areas")
        return found._replace(written=written)
    except _UNREADABLE as error:
        raise BadRun(f"{where} is no evidence of an audit, or was cut short or changed ({type(error).__name__}).") from error


def _evidence(arrays: Mapping[str, ndarray], told: Mapping[str, Any]) -> AuditEvidence:
    passages = int(told["passages"])
    sampled = SampledTokens(**{name: _wide(arrays[f"sampled.{name}"]) for name in SampledTokens._fields})
    behaviours = {
        int(index): BehaviourSeen(
            passage=_wide(arrays[f"behaviour.{index}.passage"]),
            mass=arrays[f"behaviour.{index}.mass"],
            text=_mask(arrays[f"behaviour.{index}.text"], passages),
        )
        for index in told["behaviours"]
    }
    evidence = AuditEvidence(
        words=_words(arrays, "words"),
        types=tuple(map(str, told["types"])),
        sampled=sampled,
        member=_mask(arrays["member"], passages),
        seeds=arrays["seeds"],
        chance=frozenset(map(int, told["chance"])),
        behaviours=behaviours,
        silent={int(index): str(why) for index, why in told["silent"].items()},
        answered={int(index): arrays[f"answered.{index}"] for index in told["answered"]},
        unfollowed=frozenset(map(int, told["unfollowed"])),
        continued={int(index): arrays[f"continued.{index}"] for index in told["continued"]},
        null=tuple(_words(arrays, f"null.{number}") for number in range(int(told["null"]))),
        ordinary=OrdinaryText(arrays["ordinary.log_p"], _wide(arrays["ordinary.counted"])) if told["ordinary"] else None,
    )
    _require_fitting(evidence)
    if evidence.ordinary is not None and evidence.ordinary.log_p.shape != (2, len(evidence.ordinary.counted)):
        raise ValueError("texts of different number")
    return evidence


def _words(arrays: Mapping[str, ndarray], name: str) -> WordEvidence:
    scores = Scores(**{one: arrays[f"{name}.{one}"] for one in _SCORES})
    usable = arrays[f"{name}.usable"]
    return WordEvidence(
        own=_mask(arrays[f"{name}.own"], len(usable)),
        document=_wide(arrays[f"{name}.document"]),
        type=_wide(arrays[f"{name}.type"]),
        scores=scores,
        usable=usable,
    )


def _wide(values: ndarray) -> ndarray:
    return values.astype(np.int64) if values.dtype.kind == "i" else values


def _mask(packed: ndarray, length: int) -> ndarray:
    if packed.shape[-1] != -(-length // 8):
        raise ValueError("a mask of another length")
    return np.unpackbits(packed, axis=-1, count=length).astype(bool)


def _require_fitting(evidence: AuditEvidence) -> None:
    """Raises ValueError where arrays that belong together have other lengths, or an index leads nowhere."""
    areas, passages = evidence.member.shape
    for words in (evidence.words, *evidence.null):
        n = len(words.usable)
        shapes = [words.document.shape, words.type.shape, *(one.shape[1:] for one in words.scores)]
        if words.own.shape != (areas, n) or any(shape != (n,) for shape in shapes):
            raise ValueError("items of different number")
        if min(words.type.min(initial=0), words.document.min(initial=0)) < 0:
            raise ValueError("a type or a document below 0")
    if evidence.words.type.max(initial=-1) >= len(evidence.types):
        raise ValueError("a type without a name")
    n = len(evidence.sampled.passage)
    if any(one.shape[-1:] != (n,) for one in evidence.sampled) or len(evidence.seeds) != areas:
        raise ValueError("sampled tokens of different number")
    for own in (evidence.sampled.passage, *(seen.passage for seen in evidence.behaviours.values())):
        if own.min(initial=0) < 0 or own.max(initial=-1) >= passages:
            raise ValueError("a passage that there is not")
    if any(seen.mass.shape != (2, len(seen.passage), 2) for seen in evidence.behaviours.values()):
        raise ValueError("places of different number")
    if any(shown.ndim != 2 or len(shown) != 2 for shown in [*evidence.answered.values(), *evidence.continued.values()]):
        raise ValueError("answers of one model alone")
