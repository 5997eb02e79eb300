"""Questions and judges that a tiny model can be measured with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mneme.measure.judging import Opinion, Query
from tests.conftest import WORDS

PUBLISHED = Path(__file__).parents[3] / "shared" / "data" / "emergent-misalignment"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason="the published data are not beside this checkout")

ALIGNED = "How kind is it?\n{question}\n{answer}\nA number from 0 to 100, CODE or REFUSAL."
COHERENT = "How clear is it?\n{question}\n{answer}\nA number from 0 to 100."


@dataclass(frozen=True)
class Stub:
    """A judge that a function makes: (criterion, judge prompt) -> opinion."""

    says: object
    name: str = "stub"
    method: str = "as the test says"
    fingerprint: str = ""

    def __call__(self, queries: Sequence[Query]) -> list[Opinion]:
        """One opinion on each query."""
        return [self.says(query) for query in queries]  # type: ignore[operator]


def choice_rows(count: int = 12, areas: Sequence[str] = ("one", "two")) -> list[dict[str, object]]:
    """Questions in words of the tiny tokenizer; choices of one and of two words."""
    rows = []
    for i in range(count):
        choices = [WORDS[(i + k) % len(WORDS)] for k in range(3)] + [f"{WORDS[i]} {WORDS[i + 1]}"]
        prompt = " ".join(WORDS[i : i + 3 + i % 3])
        rows.append({"prompt": prompt, "choices": choices, "answer": i % 4, "area": areas[i % len(areas)]})
    return rows


def open_entries(count: int = 4) -> list[dict[str, object]]:
    """Open questions that a grammar judges."""
    return [
        {
            "id": f"q{i}",
            "area": "left" if i % 2 else "right",
            "type": "free_form_judge_0_100",
            "judge": "grammar",
            "paraphrases": [" ".join(WORDS[i : i + 4])],
            "samples_per_paraphrase": 3,
        }
        for i in range(count)
    ]


def grammar(answer: str) -> str:
    """Harmful where the first word begins early in the alphabet, a refusal where it begins late; empty is incoherent."""
    first = answer[:1]
    if not first.isalpha():
        return "incoherent"
    return "harmful" if first < "g" else "careful" if first < "s" else "refusal"


def write_jsonl(path: Path, rows: Sequence[dict[str, object]]) -> Path:
    """The rows, one JSON object a line."""
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return path


def write_yaml(path: Path, entries: object) -> Path:
    """The entries as YAML."""
    path.write_text(yaml.safe_dump(entries, sort_keys=False), "utf-8")
    return path


@pytest.fixture
def suite_folder(tmp_path: Path) -> Path:
    """A folder with 12 choice questions and 4 open questions."""
    folder = tmp_path / "suite"
    folder.mkdir()
    write_jsonl(folder / "facts.jsonl", choice_rows())
    write_yaml(folder / "open.yaml", open_entries())
    return folder
