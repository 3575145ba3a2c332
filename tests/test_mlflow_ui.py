"""A study in MLflow's own pages, seen as a user sees it: a real ``mlflow ui`` in a real browser."""

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import requests

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parent.parent
LAB = (sys.executable, "-m", "melanoma_lab")
ENVIRONMENT = os.environ | {
    "PYTHONPATH": str(REPOSITORY),
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Seven processes that wait for jobs would take longer to start than the pages.
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
SLOW = 120_000  # milliseconds that a page of a busy machine may take


@pytest.fixture(scope="module")
def folder(tmp_path_factory, session_cache):
    """A study of three arms, one of them a network, trained and compared from a fresh folder."""
    folder = tmp_path_factory.mktemp("study")
    tiny = ["dataset.lesions=110", "dataset.image_size=32", "training.epochs=1", "study=arms"]
    arms = "+experiment=majority,colour_histogram,compact"
    for command in (
        [*LAB, "-m", arms, "seed=0", *tiny, f"cache={session_cache}"],
        [*LAB, "compare", "study=arms", "reference=majority"],
    ):
        subprocess.run(command, cwd=folder, env=ENVIRONMENT, check=True, capture_output=True)
    return folder


@contextmanager
def mlflow_ui(folder):
    """The address of ``mlflow ui``, as it is typed in a folder, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", port]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(900):
            with suppress(requests.RequestException):
                requests.get(f"http://127.0.0.1:{port}/health", timeout=5).raise_for_status()
                break
            assert process.poll() is None, "mlflow ui ended"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 15)
        process.wait()


@pytest.fixture(scope="module")
def page(browser, folder):
    """A window of MLflow's pages."""
    with mlflow_ui(folder) as address, browser.new_page() as page:
        page.set_viewport_size({"width": 1400, "height": 900})
        page.set_default_timeout(SLOW)
        page.goto(address)
        yield page


def go_to_the_study(page):
    """From MLflow's first page, which opens at what is for language models."""
    page.goto(page.url.partition("#")[0])
    page.get_by_text("Model training", exact=True).click()
    page.get_by_role("link", name="arms", exact=True).first.click()
    page.get_by_role("link", name="study arms").wait_for()
    if (assistant := page.get_by_role("button", name="Close", exact=True)).count():
        assistant.click()


def test_a_study_can_be_found_read_and_compared(page):
    go_to_the_study(page)
    page.get_by_text("Too few runs to compare compact with majority").first.wait_for()

    # One run is seen, the study's; the others lie under it, by names that fit their column.
    runs = page.locator(".ag-row .ag-checkbox-input")
    assert runs.count() == 1
    page.locator(".ag-row button").first.click()
    names = ["colour_histogram seed=0", "compact seed=0", "majority seed=0"]
    for name in names:
        link = page.get_by_role("link", name=name, exact=True)
        link.wait_for()
        width, room = link.evaluate("link => [link.scrollWidth, link.clientWidth]")
        assert width <= room or len(name) > 20, name
    assert page.get_by_text(re.compile(r"^synthetic \(")).count() == 4  # the column Dataset

    # Select three, compare.
    assert runs.count() == 4
    for i in (1, 2, 3):
        runs.nth(i).click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("Comparing 3 Runs").wait_for()
    details = page.locator("table.mlflow-compare-run-table").first
    assert sorted(name for name in names if name in details.inner_text()) == names

    # What differs is the arms' own; what they share goes at a click.
    page.get_by_role("switch", name="Parameters - Show diff only").click()
    parameters = page.locator("table.mlflow-compare-run-table").nth(1).inner_text()
    keys = set(re.findall(r"^[a-z_.]+(?=\t)", parameters, re.MULTILINE))
    assert {"architecture.name", "architecture.filters"} <= keys
    assert {key.split(".")[0] for key in keys} <= {"architecture", "reference", "regularisation"}
    # Of the metrics the page holds only those in and near view, and learns late of a turn.
    page.get_by_text("epoch/val_balanced_accuracy", exact=True).last.hover()
    metric = page.get_by_text("test/balanced_accuracy", exact=True).last
    for turn in range(400):
        if metric.is_visible():
            break
        page.mouse.wheel(0, -100 if turn // 100 % 2 else 100)  # down, and again: it learns late
        page.wait_for_timeout(300)
    assert metric.is_visible()


def test_the_studys_page_has_the_verdicts_and_the_report(page):
    go_to_the_study(page)
    page.get_by_role("link", name="study arms").click()
    page.get_by_text("Too few runs to compare compact with majority").first.wait_for()
    page.get_by_role("link", name="compact seed=0").wait_for()  # among its child runs
    page.get_by_role("tab", name="Artifacts").click()
    for name in ("comparison.json", "report.md", "figures"):
        page.get_by_text(name, exact=True).wait_for()
    page.get_by_text("report.html", exact=True).click()
    report = page.frame_locator("iframe").get_by_role("heading", name="arms: which arms help?")
    report.wait_for()
