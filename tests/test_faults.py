"""Disks that are full or read only, really: small file systems mounted for one command each."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from tests.support.processes import LAB, run_python

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parent.parent
SMALL = ("architecture.filters=[4,8]", "architecture.dense_units=8", "training.epochs=1")
#: What stands before a command in a mount namespace of its own, by what is mounted on $1.
TINY = 'mount -t tmpfs -o size={} none "$1"'
READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1"'


def namespace(mount, folder, script, *arguments, here, environment=None):
    """Run a shell script where something is mounted on a folder; $@ are the arguments."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare here")
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    allowed = [*command, TINY.format("1m"), "sh", str(folder)]
    if subprocess.run(allowed, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount file systems")
    return subprocess.run(
        [*command, f"set -e; {mount}; shift; {script}", "sh", str(folder), *arguments],
        cwd=here,
        env=os.environ
        | {"PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(here / "cache")}
        | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


def lab(*arguments):
    return (sys.executable, "-m", "melanoma_lab", *arguments)


def on(tree):
    return ("dataset=folder", f"dataset.root={tree}", "dataset.positive_class=null")


@pytest.mark.parametrize("folder", ["pixels", "inspections"])
def test_a_disk_that_fills_up_while_caching(tmp_path, tree, folder):
    """27 images of 96x96 are 746 kB, of 16x16 too few to fill the disk before the inspection."""
    full = tmp_path / "full"
    full.mkdir()
    size, room = (96, "400k") if folder == "pixels" else (16, "1100k")
    done = namespace(
        TINY.format(room),
        full,
        '"$@" && exit 0; status=$?; find full -type f; exit $status',
        *lab(*on(tree), f"dataset.image_size={size}", "cache=full"),
        here=tmp_path,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    if folder == "pixels":
        assert "full/pixels: cannot be written (No space left on device)" in done.stderr
    assert "cache=DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert ".partial" not in done.stdout
    assert len(done.stderr.strip().splitlines()) <= 2


def test_the_synthetic_dataset_on_a_full_disk(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    done = namespace(
        TINY.format("200k"),
        full,
        '"$@" && exit 0; status=$?; find full -name "*.png"; exit $status',
        *lab("dataset.lesions=110", "dataset.image_size=32", "cache=full"),
        here=tmp_path,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "full/synthetic: cannot be written (No space left on device)" in done.stderr
    assert "cache=DIR" in done.stderr
    assert ".png" not in done.stdout


def test_a_working_folder_that_is_full(tmp_path, tree):
    full = tmp_path / "full"
    full.mkdir()
    done = namespace(
        TINY.format("16k"),
        full,
        "cd full; cat /dev/zero > filler 2> /dev/null || true; " + '"$@"',
        *lab(*on(tree)),
        here=tmp_path,
    )
    assert done.returncode == 1
    assert (
        "No space left on device. Free some disk space, or run from a folder on another "
        "disk." in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_a_working_folder_that_is_read_only(tmp_path, tree):
    (tmp_path / "fixed").mkdir()
    for task in (["train"], ["audit"]):
        done = namespace(
            READ_ONLY,
            tmp_path / "fixed",
            'cd fixed; "$@"',
            *lab(*task, *on(tree)),
            here=tmp_path,
        )
        assert done.returncode == 1
        assert "Read-only file system" in done.stderr
        assert re.search(r"(Run from|run the command in) a folder that", done.stderr)
        assert "Traceback" not in done.stderr


def test_a_clone_that_is_read_only_works_from_elsewhere(tmp_path, tree):
    done = namespace(
        READ_ONLY,
        REPOSITORY,
        '! touch "$PYTHONPATH/x" 2> /dev/null; "$@"',
        *lab(*on(tree), *SMALL, "dataset.image_size=16", "tracking.model=false"),
        here=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mlflow.db").exists()


RUN = """
import sys
from contextlib import suppress
from pathlib import Path
from melanoma_lab.tracking.tracker import connect
from melanoma_lab.config.schema.tracking import Tracking
from melanoma_lab.core.errors import RunError

full = Path(sys.argv[1])
tracker = connect(Tracking(uri=f"sqlite:///{full}/mlflow.db"), "study").result()
out = Path("out")
out.mkdir(exist_ok=True)
(out / "predictions.csv").write_text("x" * 3_000_000)
try:
    with tracker.run("name", {"a": "b"}, {"seed": "0"}):
        if sys.argv[2] == "figures":
            with (full / "filler").open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(512)):
                    pass
        for epoch in range(300):
            tracker.log_metrics({f"epoch/{n}": 1.0 for n in range(20)}, step=epoch)
        tracker.log_folder(out)
except RunError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.parametrize("what", ["figures", "artifacts"])
def test_a_disk_that_fills_up_while_tracking(tmp_path, what):
    """The run is kept on another disk, whole, and sent from there."""
    full = tmp_path / "full"
    full.mkdir()
    done = namespace(
        TINY.format("3m"),
        full,
        '"$@"',
        *(sys.executable, "-c", RUN, str(full), what),
        here=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    reason = "database or disk is full" if what == "figures" else "No space left on device"
    assert reason in done.stdout
    assert "nothing is lost" in done.stdout
    assert "Traceback" not in done.stderr
    (record,) = (tmp_path / "unsent").glob("*/run.json")
    assert json.loads(record.read_text())["status"] == "FINISHED"
    assert (record.parent / "artifacts" / "predictions.csv").stat().st_size == 3_000_000

    other = f"sqlite:///{tmp_path / 'other.db'}"
    sent = run_python(*LAB, "sync", f"tracking.uri={other}", folder=tmp_path)
    assert sent.returncode == 0, sent.stderr
    client = mlflow.MlflowClient(other)
    experiment = client.get_experiment_by_name("study").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert len(client.get_metric_history(run.info.run_id, "epoch/7")) == 300
    assert not (tmp_path / "unsent").exists()
    assert not (tmp_path / "experiments").exists()


def test_a_temporary_folder_that_is_full(tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    done = namespace(
        TINY.format("1m"),
        full,
        '"$@"',
        *(sys.executable, "-c", RUN, str(tmp_path), "artifacts"),
        here=tmp_path,
        environment={"TMPDIR": str(full)},
    )
    assert done.returncode == 1, done.stderr
    assert f"{full}: cannot be written (No space left on device)" in done.stdout
    assert "TMPDIR" in done.stdout
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("study").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FAILED"
    assert "No space left on device" in run.data.tags["reason"]


def test_four_commands_at_once_in_a_fresh_folder(tmp_path):
    """They draw, decode and inspect one dataset and make one database at the same time."""
    processes = [
        subprocess.Popen(
            lab(
                *("+experiment=colour_histogram", "dataset.lesions=110", "dataset.image_size=16"),
                f"seed={seed}",
            ),
            cwd=tmp_path,
            env=os.environ
            | {"PYTHONPATH": str(REPOSITORY), "XDG_CACHE_HOME": str(tmp_path / "cache")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for seed in range(4)
    ]
    for process in processes:
        out, _ = process.communicate(timeout=900)
        assert process.returncode == 0, out
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "ablation"]
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(run.data.tags["seed"] for run in runs) == ["0", "1", "2", "3"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len({run.data.tags["dataset_digest"] for run in runs}) == 1
    cache = tmp_path / "cache" / "melanoma_lab"
    assert len(list((cache / "synthetic").glob("[!.]*"))) == 1
    assert not list(cache.rglob("*.partial"))
