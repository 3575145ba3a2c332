"""Jobs of one command at once, with Hydra's joblib launcher and real processes."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

import mlflow
import pytest
from hydra.errors import MissingConfigException
from omegaconf import OmegaConf

from melanoma_lab import launching
from melanoma_lab.config.validation import explain_hydra_error
from melanoma_lab.core.shell_commands import format_pip_install
from melanoma_lab.launching import (
    InterruptHandler,
    JobStatusStore,
    PrefixedLines,
    count_parallel_jobs,
)
from melanoma_lab.tracking.upload import PROCESS_TAG
from melanoma_lab.training.hardware import count_available_threads

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SMALL = (
    "dataset=folder",
    "dataset.image_size=16",
    "architecture.filters=[4,8,8]",
    "architecture.dense_units=8",
)
TWO = ("-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


@pytest.fixture
def launch(tmp_path, tree):
    """A function that starts a multirun of two jobs at once, from a folder with nothing in it."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")

    def start(*arguments):
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "melanoma_lab",
                *TWO,
                *arguments,
                *SMALL,
                f"dataset.root={tree}",
            ],
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches a group of processes
        )

    return start


def runs_below(folder):
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([client.get_experiment_by_name("ablation").experiment_id])
    return [run for run in runs if "arm" in run.data.tags]  # not the study's own


def members(group):
    """Processes of a group that are alive (Linux)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, its_group, *_ = path.read_text().rpartition(")")[2].split()
            found += [path.parent.name] if int(its_group) == group and state != "Z" else []
    return found


def test_two_at_once_from_an_empty_folder_one_failing_then_skipped(tmp_path, launch):
    process = launch("optimizer.learning_rate=1e30,1e-3", "training.epochs=1")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert "1 of 2 runs failed:" in err
    assert "custom,optimizer.learning_rate=1e+30 seed 0: diverged" in err
    assert "Traceback" not in err + out
    rates = {float(run.data.params["optimizer.learning_rate"]): run for run in runs_below(tmp_path)}
    failed, finished = rates[1e30], rates[1e-3]
    assert (failed.info.status, finished.info.status) == ("FAILED", "FINISHED")
    assert failed.data.tags[PROCESS_TAG] != finished.data.tags[PROCESS_TAG]
    for run in (failed, finished):
        assert run.data.tags["threads"] == str(max(1, count_available_threads() // 2))
    content = json.loads((tmp_path / "experiments" / "ablation" / "comparison.json").read_text())
    assert [arm["seeds"] for arm in content["arms"].values()] == [[0]]
    # Whole lines, each told apart, up to the steps of the command itself, which compares.
    jobs = list(takewhile(lambda line: line != "loading the command ...", out.splitlines()))
    assert all(re.match(r"\[[01]\]( |$)", line) for line in jobs)
    assert {line[:3] for line in jobs if "epoch 1/1" in line} >= {"[1]"}

    process = launch("optimizer.learning_rate=1e-3", "training.epochs=1", "seed=0")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "[0]   Skipped: run " in out
    assert len(runs_below(tmp_path)) == 2
    assert not [path for path in (tmp_path / "experiments").iterdir() if path.name[0] == "."]


@pytest.mark.parametrize("how", ["ctrl-c", "kill -9"])
def test_no_job_outlives_its_command(tmp_path, launch, how):
    process = launch("training.epochs=100000", "seed=0,1,2")
    training = set()
    while len(training) < 2:
        line = process.stdout.readline()
        assert line, process.communicate()
        training |= {line[:3]} if " epoch " in line else set()
    if how == "ctrl-c":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.kill()
    _, err = process.communicate(timeout=60)  # until nobody has its outputs open
    until = time.monotonic() + 60
    while members(process.pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert members(process.pid) == []
    assert process.returncode == (130 if how == "ctrl-c" else -signal.SIGKILL)
    assert "Traceback" not in err
    tags = {run.data.tags["seed"]: run for run in runs_below(tmp_path)}
    assert {seed: run.info.status for seed, run in tags.items()} == {"0": "KILLED", "1": "KILLED"}
    assert {run.data.tags["reason"] for run in tags.values()} == {"interrupted"}


@pytest.mark.parametrize(
    ("launcher", "expected"),
    [
        ({"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}, 1),
        ({"_target_": "x.JoblibLauncher", "n_jobs": 3}, 3),
        ({"_target_": "x.JoblibLauncher", "n_jobs": -1}, 8),
        ({"_target_": "x.JoblibLauncher", "n_jobs": -3}, 6),
        ({"_target_": "x.JoblibLauncher", "n_jobs": -20}, 1),
        ({"_target_": "x.SlurmLauncher"}, 1),
    ],
)
def test_how_many_jobs_share_the_machine(monkeypatch, launcher, expected):
    monkeypatch.setattr(launching, "count_available_threads", lambda: 8)
    monkeypatch.setattr(launching.HydraConfig, "initialized", lambda: True)
    config = OmegaConf.create({"launcher": launcher})
    monkeypatch.setattr(launching.HydraConfig, "get", lambda: config)
    assert count_parallel_jobs() == expected


def test_without_a_command_nobody_shares():
    assert count_parallel_jobs() == 1


def test_threads_are_shared_out():
    assert count_available_threads(1) == count_available_threads()
    assert count_available_threads(10**6) == 1


def test_lines_are_passed_on_whole_and_marked():
    behind = io.StringIO()
    lines = PrefixedLines(behind, "[7] ")
    lines.write("one\ntwo")
    lines.flush()
    assert behind.getvalue() == "[7] one\n"
    lines.write(" and more\n\nlast")
    assert behind.getvalue() == "[7] one\n[7] two and more\n[7]\n"
    assert not lines.isatty()


def test_a_launcher_that_is_not_there_is_named_with_its_package():
    error = MissingConfigException("", missing_cfg_file="hydra/launcher/joblib", options=["basic"])
    assert explain_hydra_error(error) == (
        f"hydra/launcher=joblib: not installed: {format_pip_install('hydra-joblib-launcher')}"
    )
    error = MissingConfigException("", missing_cfg_file="hydra/launcher/jobli", options=["basic"])
    assert explain_hydra_error(error) == "hydra/launcher=jobli: no such option. Valid: basic."


def test_a_second_ctrl_c_does_not_wait_for_jobs(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(os, "kill", lambda process, how: asked.append((process, how)))
    monkeypatch.setattr(
        JobStatusStore, "stoppable", lambda notes: set() if len(asked) > 1 else {5, 6}
    )
    interrupt = InterruptHandler(JobStatusStore(tmp_path, os.getpid()))
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            interrupt(signal.SIGINT, None)
    assert sorted(asked) == [(5, signal.SIGTERM), (6, signal.SIGTERM)]
