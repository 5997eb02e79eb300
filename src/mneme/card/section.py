"""The section of a model card: what was audited and what came out, in Markdown in which names are text, and the metadata that
the hub reads (`model-index`, `base_model`, tags)."""

from typing import Any

from mneme.plain import plain
from mneme.report import wording
from mneme.report.markdown import in_markdown
from mneme.report.places import place, without_home
from mneme.results import Effect, Report

BEGIN, END = "<!-- mneme:begin -->", "<!-- mneme:end -->"
"""Around the section, so that the next one takes its place."""
TAG = "mneme-audited"
_MOST = 40
"""Areas in the table: a card is read by people."""
_HUB_NAME = 2
"""Parts of a name on the hub: owner and model."""


def card_section(report: Report) -> str:
    """The section with its marks."""
    judged = wording.by_probability(report)
    shown = [one for one in judged if wording.affected(one) or one.intended] or judged[:5]
    corpus = report.corpus
    lines = [
        BEGIN,
        "## Side effects of the fine-tune",
        "",
        f"**{_told(wording.headline(report))}**",
        "",
        f"{_told(report.reason)} {_told(wording.purpose_note(report))}",
        "",
        "| area | | effect | 95 % interval | P |",
        "|---|---|---|---|---|",
        *(_row(effect) for effect in shown[:_MOST]),
        "",
        f"{len(judged) - len(shown[:_MOST])} more areas were judged and are not shown; {len(report.absent)} had no text. "
        f"Base: {_told(place(report.pair.base))}. Text: {_told(place(corpus.source))}, {corpus.tokens:,} tokens, SHA-256 "
        f"`{corpus.sha256[:16] if corpus.sha256.isalnum() else ''}`. Made by mneme {_told(report.environment.mneme)}.",
        END,
    ]
    return "\n".join(lines) + "\n"


def _row(effect: Effect) -> str:
    said = "purpose" if effect.intended else wording.said_of(effect) or "more likely than not"
    cells = (
        effect.area,
        said,
        wording.magnitude(effect.magnitude),
        wording.interval(effect.magnitude),
        wording.shown_chance(effect),
    )
    return f"| {' | '.join(_told(cell) for cell in cells)} |"


def _told(text: str) -> str:
    return in_markdown(plain(without_home(text)))


def card_metadata(report: Report) -> dict[str, Any]:
    """What goes into the head of the card, as huggingface_hub writes it: a tag, the base where it is a name of the hub, and a
    result for every area that is affected or was the purpose."""
    from huggingface_hub import EvalResult, ModelCardData

    base, tuned = report.pair.base, report.pair.tuned
    found = [effect for effect in wording.by_probability(report) if wording.affected(effect) or effect.intended]
    results = [
        EvalResult(
            task_type="text-generation",
            dataset_type="mneme-audit",
            dataset_name=f"mneme audit: {plain(effect.area)[:80]}",
            dataset_config=plain(effect.area)[:80],  # results of one task and data set would be taken for one
            metric_type="change_in_points",
            metric_name=f"change of {plain(effect.area)[:80]}, 95 % {wording.interval(effect.magnitude)}",
            metric_value=round(wording.factor(effect.magnitude.unit) * effect.magnitude.value, 1),
        )
        for effect in found
    ]
    named = base if base.count("/") == _HUB_NAME - 1 and not base.startswith((".", "/", "~")) else None
    data = ModelCardData(
        tags=[TAG],
        base_model=named,
        model_name=plain(place(tuned)) if results else None,
        eval_results=results or None,
    )
    head: dict[str, Any] = data.to_dict()  # type: ignore[no-untyped-call]
    return head


def with_section(text: str, section: str) -> str:
    """The body of a card with the section in the place of the one before, else at its end."""
    before, mark, rest = text.partition(BEGIN)
    if mark and END in rest:
        after = rest.partition(END)[2].lstrip("\n")
        return f"{before.rstrip()}\n\n{section}{chr(10) + after if after else ''}"
    return f"{text.rstrip()}\n\n{section}" if text.strip() else section


def with_metadata(head: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """The head of a card with ours: tags are added, the results of earlier audits are replaced, everything else stays."""
    merged = dict(head)
    tags = head.get("tags") or []
    theirs = tags if isinstance(tags, list) else [tags]
    merged["tags"] = [*theirs, *(tag for tag in ours.get("tags", []) if tag not in theirs)]
    if "base_model" in ours:
        merged.setdefault("base_model", ours["base_model"])
    index = [entry for entry in _entries(head.get("model-index")) if isinstance(entry, dict)]
    kept = []
    for entry in index:
        results = [one for one in _entries(entry.get("results")) if _is_ours(one) is False]
        if results:
            kept.append({**entry, "results": results})
    mine = ours.get("model-index", [])
    if kept and mine:
        kept[0] = {**kept[0], "results": [*kept[0]["results"], *mine[0]["results"]]}
    merged["model-index"] = kept or mine
    if not merged["model-index"]:
        del merged["model-index"]
    return merged


def _entries(found: Any) -> list[Any]:
    """A list in a head that somebody else wrote; what is none has no entries."""
    return found if isinstance(found, list) else []


def _is_ours(result: Any) -> bool:
    dataset = result.get("dataset") if isinstance(result, dict) else None
    return isinstance(dataset, dict) and dataset.get("type") == "mneme-audit"
