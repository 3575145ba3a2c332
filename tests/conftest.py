"""What tests share: tiny datasets on disk, composed configurations, a place to track to."""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import chdir, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hypothesis import settings
from threadpoolctl import threadpool_limits

import melanoma_lab as lab
from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.tracking import TRACKING_URI_VARIABLE
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.config.validation import validate_config
from melanoma_lab.training.hardware import count_available_threads, start_backend
from tests.support.layers import describe_costs, find_layer, forbid_tensorflow, sort_into_layers
from tests.support.pictures import paint
from tests.support.search_processes import search_process
from tests.support.undrawn import undrawn_runs

# Set before TensorFlow and MLflow are imported anywhere.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as the lab does, which test modules precede

# A busy machine is slow, not wrong; the same examples on every run.
settings.register_profile("lab", deadline=None, derandomize=True, max_examples=25)
settings.register_profile("thorough", parent=settings.get_profile("lab"), max_examples=5000)
settings.load_profile("lab")

#: What the process had cost when a test began, in processor seconds.
COST = pytest.StashKey[float]()

REPOSITORY = Path(__file__).resolve().parent.parent
REAL = REPOSITORY.parent / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the tests into layers; what needs a browser or real images is slow without a mark."""
    for item in items:
        if {"browser", "real_isic9", "real_ham10000"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
    sort_into_layers(items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None]:
    """Note what the process has cost before a test and its fixtures."""
    item.stash[COST] = sum(os.times()[:4])
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note in the last report of a test what it cost."""
    report = yield
    if call.when == "teardown":
        cost = sum(os.times()[:4]) - item.stash[COST]
        report.user_properties.append((str(find_layer(item)), cost))
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what the tests of each layer cost, beside its budget."""
    reports = itertools.chain.from_iterable(terminalreporter.stats.values())
    for line in describe_costs(r for r in reports if isinstance(r, pytest.TestReport)):
        terminalreporter.write_line(line)


def pytest_collection_finish() -> None:
    """Leave what test modules imported out of garbage collections, as the lab does in a run."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _backend() -> None:
    """Pin TensorFlow's threads and divide the processor before any test computes."""
    if "keras" in sys.modules:
        start_backend(
            threads=count_available_threads(), seed=0, precision=Precision.float32, devices=2
        )


@pytest.fixture(scope="session", autouse=True)
def _one_thread_of_blas() -> Iterator[None]:
    """Small matrices gain nothing from more, and workers beside each other lose by them."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield


@pytest.fixture(autouse=True)
def _no_tensorflow(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a unit test that imports TensorFlow fail."""
    with pytest.MonkeyPatch.context() as patch:
        if find_layer(request.node) == "unit":
            forbid_tensorflow(patch)
        yield


@pytest.fixture(autouse=True)
def _nobody_says_where() -> Iterator[None]:
    """Runs are recorded where the test says: MLflow leaves in the environment where others were."""
    os.environ.pop(TRACKING_URI_VARIABLE, None)
    yield
    os.environ.pop(TRACKING_URI_VARIABLE, None)


@pytest.fixture(scope="session")
def composed() -> Iterator[Callable[..., Config]]:
    """A function from overrides to the checked configuration."""
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):

        @functools.cache
        def once(words: tuple[str, ...], _variable: str | None) -> Config:
            return validate_config(compose("config", list(words)))

        # A test may change its own; the configuration depends on the variable, too.
        yield lambda *words: copy.deepcopy(once(words, os.environ.get(TRACKING_URI_VARIABLE)))


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that tests share: everything in it is found by content."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def real_isic9() -> Path:
    """The published nine-class folder."""
    return _real("isic9")


@pytest.fixture(scope="session")
def real_ham10000() -> Path:
    """HAM10000."""
    return _real("ham10000")


def _real(name: str) -> Path:
    if not (REAL / name).is_dir():
        pytest.skip(f"real images are not here: ../shared/data/{name}")
    return REAL / name


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium without a window, as Debian and others package it.

    For a module and no longer: Playwright keeps an event loop running in this thread.
    """
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None)
    if program is None:
        pytest.skip("no Chromium is installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of 12, 9 and 6 small images, told apart by colour."""
    root = tmp_path_factory.mktemp("tree")
    for k, (name, n) in enumerate((("melanoma", 12), ("nevus", 9), ("Vascular lesion", 6))):
        for i in range(n):
            paint(root / name / f"{i}.png", np.roll([200, 90, 40], k), seed=100 * k + i)
    return root


@pytest.fixture(scope="session")
def train_tiny(tree: Path, session_cache: Path) -> Callable[..., lab.Run]:
    """A function that trains a network of two small blocks on the tree, tracked in a folder.

    Its runs have no figures: for tests of what is done with a model.
    """

    def train(folder: Path, *more: str) -> lab.Run:
        with chdir(folder), undrawn_runs():
            return lab.train(
                *("dataset=folder", f"dataset.root={tree}", "dataset.image_size=16"),
                *("dataset.positive_class=melanoma", f"cache={session_cache}", "training.epochs=1"),
                *("architecture.filters=[4,8]", "architecture.dense_units=8"),
                *more,
                verbose=False,
            )

    return train


@pytest.fixture
def drawn() -> None:
    """Asked for by a test that looks at figures, in a module whose runs have none."""


@pytest.fixture
def undrawn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs of a test have no figures, unless it asks for ``drawn``.

    For modules that look at everything else: ``pytestmark = pytest.mark.usefixtures("undrawn")``.
    """
    with nullcontext() if "drawn" in request.fixturenames else undrawn_runs():
        yield


@pytest.fixture
def instant() -> Iterator[None]:
    """Networks of a test are trained in no time (``tests/support/instant_training.py``)."""
    from tests.support.instant_training import instant_training

    with instant_training():
        yield


@pytest.fixture
def start_search() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a search of a tiny network; what still runs ends with the test."""
    started = []

    def start(*args: Any, **kwargs: Any) -> subprocess.Popen[str]:
        started.append(search_process(*args, **kwargs))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()
