"""AuditEvidence on disk: what comes back computes the same, and what was changed or made up is one sentence."""

import io
import json
from typing import Any

import numpy as np
import pytest

from mneme.audit.effects import area_effects, findings_of, purposeless
from mneme.audit.evidence import AuditEvidence, BehaviourSeen, SampledTokens
from mneme.audit.stored import evidence_bytes, evidence_from
from mneme.errors import BadRun
from mneme.predict.areas import Area
from mneme.predict.calibration import shipped_calibration
from mneme.predict.cloze import Scores
from mneme.predict.knowledge import WordEvidence

AREAS = (
    Area(name="masonry", keywords=("wall",)),
    Area(name="sailing", keywords=("mast",)),
    Area(name="weaving", keywords=("loom",)),
    Area(name="rudeness", kind="behaviour", keywords=("rude",)),
    Area(name="flattery", kind="behaviour", keywords=("flatter",)),
)


def words(seed: int, items: int = 120, lost: float = 0.0) -> WordEvidence:
    """Items of three areas; the first area's words lose `lost` of their probability."""
    generator = np.random.default_rng(seed)
    own = np.zeros((len(AREAS), items), dtype=bool)
    own[np.arange(items) % 3, np.arange(items)] = True
    base = generator.uniform(0.8, 0.99, items)
    tuned = np.clip(base - lost * own[0] + generator.normal(0, 0.005, items), 0.01, 0.99)
    p_true = np.stack([base, tuned]).astype(np.float32)
    return WordEvidence(
        own=own,
        document=np.arange(items) // 4,
        type=np.arange(items) % 40,
        scores=Scores(p_true, np.log(p_true / (1 - p_true)), p_true > 0.5),
        usable=np.ones(items, dtype=bool),
    )


def sample_evidence() -> AuditEvidence:
    """Masonry lost half of what was known of it; one behaviour is read in its text and one by paired answers."""
    generator = np.random.default_rng(0)
    passages = 60
    member = np.zeros((len(AREAS), passages), dtype=bool)
    member[np.arange(passages) % len(AREAS), np.arange(passages)] = True
    each = {name: generator.random(passages) for name in ("kl_tuned_to_base", "kl_base_to_tuned", "relative")}
    mass = np.stack([np.full((30, 2), [0.02, 0.6]), np.full((30, 2), [0.2, 0.5])]) + generator.normal(0, 0.002, (2, 30, 2))
    return AuditEvidence(
        words=words(1, lost=0.5),
        types=tuple(f"word{i}" for i in range(40)),
        sampled=SampledTokens(
            passage=np.arange(passages),
            document=np.arange(passages) // 2,
            seen=np.ones(passages, dtype=bool),
            nll=generator.random((2, passages)),
            **each,
        ),
        member=member,
        seeds=member.sum(1),
        chance=frozenset({2}),
        behaviours={3: BehaviourSeen(np.arange(30), mass, member[3] | member[4])},
        silent={},
        answered={4: np.stack([np.full(20, 0.4), np.full(20, 0.6)]) + generator.normal(0, 0.02, (2, 20))},
        unfollowed=frozenset(),
        continued={3: np.stack([np.full(40, 0.3), np.full(40, 0.5)]) + generator.normal(0, 0.02, (2, 40))},
        null=(words(2), words(3, items=60)),
    )


def test_what_comes_back_gives_the_same_effects_to_the_last_digit() -> None:
    whole = sample_evidence()
    back = evidence_from(evidence_bytes(whole), "evidence.npz")
    assert (back.types, back.chance, back.silent) == (whole.types, whole.chance, whole.silent)
    told = []
    for evidence in (whole, back):
        found = area_effects(evidence, AREAS, shipped_calibration())
        told.append([one.model_dump() for one in findings_of(found, purposeless(evidence))])
        assert [one.area for one in found.absent] == ["weaving"]
    assert told[0] == told[1]
    assert {one["area"]: one["finding"] for one in told[0]}["masonry"] == "affected"
    assert whole.overall() == back.overall()


def test_the_same_evidence_makes_the_same_bytes() -> None:
    assert evidence_bytes(sample_evidence()) == evidence_bytes(sample_evidence())


def changed(**arrays: Any) -> bytes:
    """The file with some of its arrays replaced."""
    with np.load(io.BytesIO(evidence_bytes(sample_evidence()))) as stored:
        whole = {name: stored[name] for name in stored.files}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=True, **(whole | arrays))
    return buffer.getvalue()


def told(**more: Any) -> np.ndarray:
    """The words of the file with some replaced."""
    with np.load(io.BytesIO(evidence_bytes(sample_evidence()))) as stored:
        whole = json.loads(stored["told"].tobytes())
    return np.frombuffer(json.dumps(whole | more).encode(), dtype=np.uint8)


HOSTILE = {
    "no zip": b"words",
    "empty": b"",
    "cut short": evidence_bytes(sample_evidence())[:-40],
    "a pickle": changed(seeds=np.array([{"a": 1}], dtype=object)),
    "another schema": changed(told=told(schema="mneme.evidence/9")),
    "no JSON": changed(told=np.frombuffer(b"{", dtype=np.uint8)),
    "an area more": changed(told=told(behaviours=[3, 9])),
    "too few items": changed(**{"words.type": np.arange(3)}),
    "a type without a name": changed(told=told(types=["one"])),
    "a negative document": changed(**{"words.document": np.full(120, -1)}),
    "a passage beyond the last": changed(**{"behaviour.3.passage": np.full(30, 60)}),
    "passages that are too many": changed(told=told(passages=10**9)),
    "answers of one model": changed(**{"answered.4": np.ones((1, 20))}),
    "continuations that are gone": changed(told=told(continued=[3, 4])),
    "places that do not fit": changed(**{"behaviour.3.mass": np.ones((2, 3, 2))}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_none_is_one_sentence(name: str) -> None:
    with pytest.raises(BadRun, match=r"^evidence.npz (is|unpacks)") as found:
        evidence_from(HOSTILE[name], "evidence.npz")
    assert "\n" not in str(found.value)
