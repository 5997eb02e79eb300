"""The tables of what can be audited are what the tests of models run over."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.shape_tables import PARTS

PAGE = Path(__file__).parents[2] / "docs" / "what-can-be-audited.md"


@pytest.mark.parametrize("part", PARTS)
def test_the_page_says_what_the_tests_run_over(part: Callable[[], str]) -> None:
    assert part() in PAGE.read_text(encoding="utf-8"), "print it with: python -m tests.models.shape_tables"
