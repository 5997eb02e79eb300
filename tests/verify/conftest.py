"""A finished audit of the hand-made world, once for all tests of this folder."""

from pathlib import Path

import pytest

from mneme.cli.audit import show_audit
from tests.audit import conftest as hand_made
from tests.audit.conftest import World

world = hand_made.world


@pytest.fixture(scope="session")
def audited(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an audit without a dictionary, with its page."""
    out = tmp_path_factory.mktemp("verify") / "run"
    show_audit(hand_made.audited(world, out, dictionary="none"), out, json=True)
    return out
