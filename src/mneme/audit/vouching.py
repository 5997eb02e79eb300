"""What an audit writes so that another team can check it: its evidence, and a manifest of all that it was made of."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from mneme.audit.evidence import AuditEvidence
from mneme.audit.job import Job
from mneme.audit.stored import evidence_bytes
from mneme.runs.manifest import MANIFEST, Manifest, model_digests, whole_digest
from mneme.version import __version__

EVIDENCE = "evidence.npz"


def checkable(job: Job, results: Mapping[str, bytes], evidence: AuditEvidence | None) -> dict[str, bytes]:
    """evidence.npz (none where the models do not differ) and manifest.json of a run that is about to write `results`."""
    kept = {} if evidence is None else {EVIDENCE: evidence_bytes(evidence)}
    asked = (job.run.folder / "run.json").read_bytes()
    signed = {"report.json": results["report.json"], "run.json": asked, **kept}
    manifest = Manifest(
        mneme=__version__,
        key=job.run.key,
        files={name: hashlib.sha256(content).hexdigest() for name, content in signed.items()},
        models={"base": model_digests(job.pair.base_folder), "tuned": model_digests(job.pair.tuned_folder)},
        text=_text_digests(job),
    )
    return {**kept, MANIFEST: manifest.content()}


def _text_digests(job: Job) -> dict[str, str]:
    found = {"texts": job.documents.sha256}
    source = job.options.corpus
    if source is not None and Path(source).is_file():
        found["file"] = whole_digest(Path(source))
    return found
