"""A run that tests of the page share."""

import os
from pathlib import Path

import pytest

import melanoma_lab as lab

TINY = ("architecture.filters=[4,8]", "architecture.dense_units=8", "training.epochs=1")


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tree, session_cache):
    """A folder with one run, of a network that sees mirrored views too."""
    folder = tmp_path_factory.mktemp("trained")
    before = Path.cwd()
    os.chdir(folder)
    try:
        run = lab.train(
            *("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16"),
            *("dataset.melanoma=melanoma", "evaluation.tta=flips", f"cache={session_cache}"),
            *TINY,
            verbose=False,
        )
    finally:
        os.chdir(before)
    return folder, run
