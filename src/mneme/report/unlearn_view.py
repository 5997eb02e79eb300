"""The words of an unlearning run, shared by its page and the terminal."""

from mneme.options import counted
from mneme.report import wording
from mneme.results.unlearn import Relearning, TextChange, Unlearning


def unlearning_headline(run: Unlearning) -> str:
    """What is still recalled of either text."""
    gone = _recalled(run.forget, "the text to forget")
    stays = _recalled(run.retain, "the text to keep")
    return f"{gone[0].upper()}{gone[1:]}; {stays}."


def _recalled(change: TextChange, name: str) -> str:
    if change.kept is None:
        return f"nothing was recalled of {name} before"
    return f"{wording.share(change.kept)} of what was recalled of {name} is still there"


def comes_back(attack: Relearning) -> str:
    """What relearning does, with direction."""
    texts = counted(attack.documents, f"{attack.kind} text")
    if attack.kept_before is None or attack.kept_after is None:
        return f"Training on {texts}: nothing was recalled of the texts that it does not see."
    told = f"{wording.share(attack.kept_before)} → {wording.share(attack.kept_after)}"
    return f"Training on {texts} moves what is recalled of unseen texts {told}."
