"""A run that tests of the page share."""

import pytest


@pytest.fixture(scope="session")
def trained(tmp_path_factory, train_tiny):
    """A folder with one run, of a network that sees mirrored views too."""
    folder = tmp_path_factory.mktemp("trained")
    return folder, train_tiny(folder, "evaluation.tta=flips")
