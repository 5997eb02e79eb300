"""Questions with choices under the names that people give their columns: the right one by text, by letter or by index.

Names and letters are those of MMLU, ARC, CommonsenseQA, HellaSwag and MedQA, and of files with a column a choice. Ours.
"""

from collections.abc import Mapping
from typing import Any

from mneme.errors import BadRows
from mneme.text.files import Row
from mneme.text.shapes import Shaped
from mneme.text.turns import parsed


def choice_row(row: Row) -> Shaped:
    """A question with choices: {"prompt" or "question", "choices", "answer" (index), id?, area?, cluster?}. Raises BadRows."""
    given = {name: value for name, value in row.items() if value is not None}
    stem = given.get("question")
    if isinstance(stem, Mapping):  # the first files of ARC
        given = {**given, "question": stem.get("stem"), "choices": stem.get("choices")}
    asked = next((name for name in ("prompt", "question", "ctx", "query") if isinstance(given.get(name), str)), None)
    if asked is None or not given[asked].strip():
        raise BadRows("has no prompt and no question. Expected one of them, as text")
    choices, labels, columns = _choices(given)
    names = ("answer", "answerKey", "answer_key", "answer_idx", "answer_index", "label", "correct_answer", "target")
    name = next((name for name in names if name in given), None)
    if name is None:
        raise BadRows(f"has no answer; it has the columns {sorted(map(str, row))}")
    answer = _chosen(given[name], choices, labels)
    kept: Row = {key: given[key] for key in ("id", "area", "cluster") if key in given}
    prompt = {"question" if asked == "question" else "prompt": given[asked]}
    shape = "choices by letter" if isinstance(given[name], str) and given[name] in labels else "choices"
    return Shaped(shape, (asked, *columns, name), {**prompt, "choices": choices, "answer": answer, **kept})


def _choices(row: Row) -> tuple[list[str], list[str], tuple[str, ...]]:
    """(choices, what they are called, columns)."""
    name = next((name for name in ("choices", "options", "endings") if name in row), None)
    letters = [letter for letter in "ABCDEFGHIJ" if letter in row]
    found = parsed(row[name]) if name is not None else {letter: row[letter] for letter in letters}
    if isinstance(found, Mapping) and isinstance(found.get("text"), list):
        choices, labels = list(found["text"]), [str(label) for label in found.get("label") or ()]
    elif isinstance(found, Mapping):
        choices, labels = list(found.values()), [str(label) for label in found]
    elif isinstance(found, list) and found and all(isinstance(one, Mapping) for one in found):
        choices, labels = [one.get("text") for one in found], [str(one.get("label", "")) for one in found]
    else:
        choices, labels = list(found) if isinstance(found, list) else [], []
    if len(choices) < 2 or not all(isinstance(one, str) and one.strip() for one in choices):
        raise BadRows(f"needs at least two choices, each a text; it has {choices!r:.120}")
    if len(set(choices)) < len(choices):
        raise BadRows("offers one choice twice. Every choice has to be different")
    labels = labels if len(set(labels)) == len(choices) else [chr(ord("A") + i) for i in range(len(choices))]
    return choices, labels, (name,) if name is not None else tuple(letters)


def _chosen(answer: Any, choices: list[str], labels: list[str]) -> int:
    """Index of the right choice, given as its text, its label or its index."""
    wrong = BadRows(
        f"the answer {answer!r:.80} is not among the {len(choices)} choices. Expected its text, its letter or its index "
        "(from 0)"
    )
    if isinstance(answer, bool) or not isinstance(answer, int | str):
        raise wrong
    if isinstance(answer, str):
        named = {found.index(answer.strip()) for found in (choices, labels) if answer.strip() in found}
        if len(named) > 1:
            raise BadRows(f"the answer {answer!r:.80} is the text of one choice and the letter of another")
        if named:
            return named.pop()
        if not answer.strip().isdecimal():
            raise wrong
    index = int(answer)
    if not 0 <= index < len(choices):
        raise wrong
    return index
