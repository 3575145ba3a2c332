"""README is short, and its commands are those that a fresh machine types."""

import re

import pytest

from tests.support.documentation import REPOSITORY, find_blocks

pytestmark = pytest.mark.unit

README = (REPOSITORY / "README.md").read_text()
LOCKS = ("requirements.lock", "requirements-dev.lock")


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_the_two_commands_use_the_environment_that_they_make():
    """`.ci/run` types them as they are found here."""
    first, second = [line for line in README.splitlines() if line.startswith("python3 install.py")]
    assert first.startswith("python3 install.py && .venv/bin/python -m melanoma_lab ")
    assert second.startswith("python3 install.py --dev && .venv/bin/python -m pytest ")
    blocks = [block.strip() for block in find_blocks(REPOSITORY / "README.md", "")]
    assert blocks == [first, second]


def test_it_names_no_address_of_a_clone():
    assert "git clone <this repository> melanoma_lab" in README


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_hashes_and_names_no_address(lock):
    text = (REPOSITORY / lock).read_text()
    pinned = re.findall(r"^[a-z0-9][^ ]*==", text, flags=re.MULTILINE)
    assert len(pinned) > 100
    assert text.count("--hash=sha256:") >= len(pinned)
    assert "://" not in text
