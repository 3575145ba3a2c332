"""A chief with its network and its crew; the processes are stand-ins that train nothing."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from melanoma_lab import registry
from melanoma_lab.config.schema.tuner import RandomSearch
from melanoma_lab.core.errors import RunError, UserError
from melanoma_lab.tuning.distributed import chief as chief_module
from melanoma_lab.tuning.distributed import worker_pool as crew_module
from melanoma_lab.tuning.distributed.chief import Chief, find_cache_mark
from melanoma_lab.tuning.distributed.process_role import ProcessRole
from melanoma_lab.tuning.distributed.transport import (
    open_channel,
    open_server,
    pack_metadata,
    unpack_metadata,
)
from melanoma_lab.tuning.distributed.worker import ChiefClient
from melanoma_lab.tuning.distributed.worker_pool import (
    WorkerPool,
    assign_gpus,
    build_worker_command,
)
from melanoma_lab.tuning.search import TooManyFailuresError
from melanoma_lab.tuning.space_validation import TuneCommand
from tests.support.chief_cases import FACTS, trial_log_of

pytestmark = pytest.mark.component

SLEEPS = [sys.executable, "-c", "import time; time.sleep(600)"]


class Place:
    """A chief on a free port, in a thread of its own, and its workers."""

    def __init__(self, folder, monkeypatch):
        self.folder, self._monkeypatch = folder, monkeypatch
        self.raised = []

    def run(self, tuner, *, words=SLEEPS, count=0, timeout=120.0):
        """Start a chief; a thread, for tests to be its workers."""
        self.trial_log = trial_log_of(tuner, self.folder / "search")
        ready = threading.Event()

        def serve():
            with open_server(None) as (server, self.port):
                self.crew = WorkerPool(count, words, self.folder, host="127.0.0.1", port=self.port)
                chief = Chief(
                    self.trial_log, server, self.crew,
                    parent="run", worker_timeout=timeout, total=4,
                )  # fmt: skip
                ready.set()
                try:
                    chief.search()
                except Exception as error:  # noqa: BLE001 - for the test to look at
                    self.raised.append(error)

        thread = threading.Thread(target=serve)
        thread.start()
        ready.wait()
        return thread

    def client(self, name, channel, *, sweep=FACTS.sweep):
        self._monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
        self._monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        self._monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(self.port))
        return ChiefClient(self.trial_log.oracle, channel, sweep=sweep, patience=1.0)

    def reached(self):
        return open_channel(ProcessRole("w", "127.0.0.1", self.port), timeout=60)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(chief_module, "PAUSE", 0.05)
    monkeypatch.setattr(chief_module, "FAREWELL", 1.0)
    monkeypatch.setattr(chief_module, "LAST_BREATH", 0.0)
    return Place(tmp_path, monkeypatch)


def train(client, name, *, score=0.5, reason=""):
    """Be a worker for a trial; its id, or None where there is none left."""
    trial = client.create_trial(name)
    if trial.status == "STOPPED":
        return None
    trial.status, trial.message = ("INVALID", reason) if reason else ("COMPLETED", None)
    client.end_trial(trial, score=None if reason else score)
    return trial.trial_id


def fail_again_and_again(client):
    while True:
        train(client, "w", reason="out of memory")


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_trial_of_a_process_that_is_killed_goes_on_elsewhere(place, capsys):
    thread = place.run(RandomSearch("random", max_trials=3), count=1)
    with place.reached() as channel:
        here = place.client("local-worker-0", channel)
        lost = here.create_trial("local-worker-0")
        assert here.told == {"parent": "run", "said": "trial 1", "mark": here.told["mark"]}
        assert (
            find_cache_mark(place.folder / "search", FACTS.sweep).read_text() == here.told["mark"]
        )
        until(lambda: place.crew._running)  # the server is up before the workers
        (first,) = place.crew._running.values()
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: place.crew._running.get("local-worker-0") not in {None, first})
        (second,) = place.crew._running.values()
        other = place.client("elsewhere", channel)
        assert train(other, "elsewhere", score=0.1 + 0.2) == lost.trial_id
        assert train(other, "elsewhere", score=0.25)
        assert train(other, "elsewhere", score=0.25)
        assert train(other, "elsewhere") is None
    thread.join()
    assert place.raised == []
    assert [ended.score for ended in place.trial_log.told] == [0.1 + 0.2, 0.25, 0.25]
    assert second.poll() is not None  # it ends with its chief
    assert "ended by signal 9 (killed? out of memory?); it is started again" in (
        capsys.readouterr().out
    )
    assert not find_cache_mark(place.folder / "search", FACTS.sweep).exists()


def test_a_worker_that_refuses_is_quoted_and_not_started_again(place):
    words = [sys.executable, "-c", "print('melanoma_lab: no such key'); raise SystemExit(2)"]
    place.run(RandomSearch("random", max_trials=3), words=words, count=2).join()
    (error,) = place.raised
    assert isinstance(error, RunError)
    assert "its process ended with status 2, without a trial" in str(error)
    assert "melanoma_lab: no such key" in str(error)
    assert place.crew._running.keys() <= {"local-worker-0", "local-worker-1"}
    assert all(process.poll() is not None for process in place.crew._running.values())


def test_workers_that_never_come_up_end_the_search(place):
    words = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    place.run(RandomSearch("random", max_trials=3), words=words, count=1).join()
    (error,) = place.raised
    assert "ended by signal 9" in str(error)


def test_too_many_failures_end_the_search_and_workers_hear_why(place):
    thread = place.run(RandomSearch("random", max_trials=9, max_failures=2))
    with place.reached() as channel:
        client = place.client("w", channel)
        with pytest.raises(RunError, match="The search has ended: 2 trials in a row have failed"):
            fail_again_and_again(client)
    thread.join()
    assert isinstance(place.raised[0], TooManyFailuresError)


def test_a_worker_that_is_not_heard_loses_its_trial(place, capsys):
    thread = place.run(RandomSearch("random", max_trials=1), timeout=0.5)
    with place.reached() as channel:
        assert place.client("silent", channel).create_trial("silent").trial_id == "0000"
        assert train(place.client("other", channel), "other") == "0000"
        assert train(place.client("other", channel), "other") is None
    thread.join()
    assert "silent: no word for 0.5 s (tuner.worker_timeout)" in capsys.readouterr().out


def test_a_worker_of_another_search_is_told_so_and_one_without_its_chief_gives_up(place):
    thread = place.run(RandomSearch("random", max_trials=1))
    with place.reached() as channel:
        with pytest.raises(UserError, match="The chief searches something else"):
            place.client("w", channel, sweep="another").create_trial("w")
        client = place.client("w", channel)
        train(client, "w")
        assert train(client, "w") is None
        thread.join()
        begun = time.monotonic()
        with pytest.raises(RunError, match="The chief has not answered for 1 s"):
            client.create_trial("w")
        assert time.monotonic() - begun < 30


def test_a_search_that_is_over_starts_nobody(place):
    tuner = RandomSearch("random", max_trials=1)
    thread = place.run(tuner)
    with place.reached() as channel:
        client = place.client("w", channel)
        train(client, "w")
        train(client, "w")
    thread.join()
    place.run(tuner, count=2).join()
    assert place.raised == []
    assert place.crew._running == {}


def test_a_port_in_use_is_refused_and_a_chief_that_is_not_there_missed():
    with open_server(None) as (_, port):
        taken = ProcessRole("chief", "127.0.0.1", port)
        with (
            pytest.raises(UserError, match=f"cannot listen at 127.0.0.1:{port}"),
            open_server(taken),
        ):
            pass
    gone = pytest.raises(RunError, match=r"No chief answers at .* after 0.1 s")
    with gone, open_channel(taken, timeout=0.1):
        pass


def test_facts_cross_whole_and_long_texts_are_cut_to_fit():
    facts = {"tuner": "w", "score": 0.1 + 0.2, "unsent": False, "nothing": None}
    assert unpack_metadata(pack_metadata(**facts)) == facts
    assert unpack_metadata(None) == {}
    assert len(pack_metadata(reason="x" * 100_000)[0][1]) < 8192


def test_the_command_of_a_worker_is_what_was_typed(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "get_user_options", lambda: ({}, {}))  # other tests declare some
    typed = ("+experiment=dropout", "tuner=grid", "task=tune", "tuner.workers=2", "seed=3")
    words = build_worker_command(TuneCommand.from_overrides(typed, tmp_path))
    assert words[1:] == [
        "-m", "melanoma_lab", "tune", "--config-dir", str(tmp_path), "+experiment=dropout",
        "seed=3", "tuner=grid", "tuner.workers=2",
    ]  # fmt: skip
    monkeypatch.setattr(registry, "get_user_options", lambda: ({}, {("loss", "mine"): print}))
    with pytest.raises(UserError, match=r"tuner.workers: expected 1 .*python my_lab.py tune"):
        build_worker_command(TuneCommand.from_overrides(typed))
    monkeypatch.setattr(crew_module.HydraConfig, "initialized", lambda: True)
    script = str(tmp_path / "my_lab.py")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", script, raising=False)
    assert build_worker_command(TuneCommand.from_overrides(typed))[1:3] == [script, "tune"]


@pytest.mark.parametrize(
    ("gpus", "devices", "visible", "expected"),
    [
        (0, 1, "", []),
        (1, 1, "", []),
        (2, 1, "", ["0", "1"]),
        (2, 1, "5,7", ["5", "7"]),
        (2, 2, "", []),
        (4, None, "", []),
    ],
)
def test_each_worker_has_a_gpu_where_there_are_several(
    gpus, devices, visible, expected, monkeypatch
):
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(range(gpus)))
    assert assign_gpus(devices, {"CUDA_VISIBLE_DEVICES": visible}) == expected


def test_a_crew_is_called_where_its_chief_listens(tmp_path):
    tell = "import os; print(os.environ['KERASTUNER_ORACLE_IP'], os.environ['MELANOMA_LAB_CHIEF'])"
    with WorkerPool(1, [sys.executable, "-c", tell], tmp_path, host="0.0.0.0", port=8000) as crew:  # noqa: S104
        crew.start()
        crew.wait(60)
    assert crew.last_words("local-worker-0") == f"127.0.0.1 {os.getpid()}"
    assert Path(crew.log("local-worker-0")).is_file()
