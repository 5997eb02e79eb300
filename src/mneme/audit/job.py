"""What an audit was asked to do, once everything is checked."""

from dataclasses import dataclass

from mneme.audit.options import AuditOptions
from mneme.dictionaries.crosscoder import Kind
from mneme.models.client import Endpoint
from mneme.models.pair import ModelPair
from mneme.models.ranks import Ranks
from mneme.predict.areas import Area
from mneme.runs import RunFolder
from mneme.text.documents import Documents
from mneme.text.packing import PackedRows


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything an audit was asked to do, checked."""

    options: AuditOptions
    """Models and text are named in it, and `quick` is worked in."""
    pair: ModelPair
    documents: Documents
    rows: PackedRows
    areas: tuple[Area, ...]
    kind: Kind | None
    """None: no dictionary is trained, and the effects are read without latents."""
    endpoint: Endpoint | None
    """Who writes the words of latents; None: offline."""
    run: RunFolder
    ranks: Ranks
