"""What a chief answers its workers, whatever becomes of them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_tuner.src import protos
from keras_tuner.src.engine.trial import Trial, TrialStatus

from melanoma_lab.config.schema.tuner import (
    BayesianOptimization,
    GridSearch,
    Hyperband,
    RandomSearch,
)
from melanoma_lab.tuning.distributed.oracle_service import MOST_DEATHS
from tests.support.chief_cases import Call, service_of, trial_log_of
from tests.support.marks import slow

pytestmark = pytest.mark.component

FOUR = RandomSearch("random", max_trials=4)
REQUEST = protos.get_service()


def ask(service, tuner, **more):
    """The next trial of a worker."""
    request = REQUEST.CreateTrialRequest(tuner_id=tuner)
    return Trial.from_proto(service.CreateTrial(request, Call(tuner, **more)).trial)


def show_life(service, tuner, trial_id):
    service.GetTrial(REQUEST.GetTrialRequest(trial_id=trial_id), Call(tuner, has_it=True))


def end(service, tuner, trial, *, score=0.5, reason="", unsent=False):
    call = Call(tuner, score=None if reason else score, reason=reason, unsent=unsent)
    service.EndTrial(REQUEST.EndTrialRequest(trial=trial.to_proto()), call)


def take_in(service, trial_log):
    """The chief's part."""
    while not service.done.empty():
        done = service.done.get_nowait()
        trial_log.record_end(done.trial_id, seconds=done.seconds, unsent=done.unsent)


def test_keras_tuner_prints_nothing_of_the_space(tmp_path, capfd):
    service = service_of(trial_log_of(FOUR, tmp_path / "x"))
    trial = ask(service, "a")
    show_life(service, "a", trial.trial_id)
    end(service, "a", trial)
    assert capfd.readouterr().out == ""


def test_a_score_a_reason_and_what_waits_to_be_sent_arrive_as_they_were(tmp_path):
    trial_log = trial_log_of(FOUR, tmp_path / "x")
    service = service_of(trial_log)
    first, second = ask(service, "a"), ask(service, "b")
    assert first.hyperparameters.values == trial_log.oracle.trials["0000"].hyperparameters.values
    end(service, "a", first, score=0.1 + 0.2, unsent=True)  # 32 bits could not hold it
    end(service, "b", second, reason="diverged: the loss became nan")
    take_in(service, trial_log)
    assert [(t.score, t.reason) for t in trial_log.told] == [
        (0.1 + 0.2, ""),
        (None, "diverged: the loss became nan"),
    ]
    assert trial_log.unsent == 1
    assert [t.number for t in trial_log.told] == [1, 2]


def test_the_trial_of_a_worker_that_died_goes_to_the_next_that_asks(tmp_path):
    service = service_of(trial_log_of(FOUR, tmp_path / "x"))
    dead, other = ask(service, "dead"), ask(service, "other")
    assert service.lose("dead", "killed")
    assert not service.lose("dead", "killed")  # once
    end(service, "other", other)
    again = ask(service, "other")
    assert again.trial_id == dead.trial_id
    assert again.hyperparameters.values == dead.hyperparameters.values
    end(service, "dead", dead, score=0.9)  # it was not dead, and comes too late
    assert service.oracle.trials[dead.trial_id].score is None


def test_a_trial_that_takes_its_workers_with_it_fails(tmp_path):
    trial_log = trial_log_of(FOUR, tmp_path / "x")
    service = service_of(trial_log)
    for n in range(MOST_DEATHS):
        assert ask(service, f"worker{n}").trial_id == "0000"
        service.lose(f"worker{n}", "out of memory?")
    take_in(service, trial_log)
    (told,) = trial_log.told
    assert told.score is None
    assert told.reason == f"{MOST_DEATHS} workers ended with it: out of memory?"
    assert ask(service, "another").trial_id == "0001"


def test_a_worker_that_leaves_gives_its_trial_back_and_that_counts_for_nothing(tmp_path):
    service = service_of(trial_log_of(FOUR, tmp_path / "x"))
    for _ in range(MOST_DEATHS + 1):
        assert ask(service, "a").trial_id == "0000"
        service.EndTrial(REQUEST.EndTrialRequest(), Call("a", leaves=True))
    assert ask(service, "b", process="b").trial_id == "0000"


def test_a_worker_waits_while_one_under_way_may_come_back_and_all_hear_the_end(tmp_path):
    service = service_of(trial_log_of(RandomSearch("random", max_trials=1), tmp_path / "x"))
    trial = ask(service, "a")
    assert ask(service, "b").status == TrialStatus.IDLE
    service.lose("a", "killed")
    again = ask(service, "b")
    assert again.trial_id == trial.trial_id
    end(service, "b", again)
    assert not service.over
    assert ask(service, "b").status == TrialStatus.STOPPED
    assert service.over
    assert service.told()
    assert ask(service, "late").status == TrialStatus.STOPPED


def test_who_searches_something_else_or_has_anothers_name_is_refused(tmp_path):
    service = service_of(trial_log_of(FOUR, tmp_path / "x"))
    with pytest.raises(Exception, match=r"FAILED_PRECONDITION: .*searches something else .*5eed"):
        ask(service, "a", sweep="another")
    with pytest.raises(Exception, match="FAILED_PRECONDITION"):
        service.CreateTrial(REQUEST.CreateTrialRequest(tuner_id="plain"), BareCall())
    ask(service, "a", process="host:1")
    with pytest.raises(Exception, match="ALREADY_EXISTS: a: host:1 is a worker of this name"):
        ask(service, "a", process="host:2")
    assert service.error is None
    assert list(service.oracle.trials) == ["0000"]


class BareCall(Call):
    """Of Keras Tuner's own client, which sends nothing beside its message."""

    def __init__(self):
        super().__init__("plain")
        self._sent = ()


def test_a_worker_that_was_started_again_gets_its_trial_again(tmp_path):
    service = service_of(trial_log_of(FOUR, tmp_path / "x"), alive_for=0.0)
    assert ask(service, "a", process="host:1").trial_id == "0000"
    assert ask(service, "a", process="host:2").trial_id == "0000"


def test_a_worker_that_is_not_heard_is_named_and_one_that_is_is_not(tmp_path):
    service = service_of(trial_log_of(FOUR, tmp_path / "x"), alive_for=0.0)
    ask(service, "a")
    assert service.silent() == ["a"]
    patient = service_of(trial_log_of(FOUR, tmp_path / "y"))
    ask(patient, "a")
    show_life(patient, "a", "0000")
    assert patient.silent() == []


def test_a_chief_that_was_killed_finds_its_workers_as_they_were(tmp_path):
    before = service_of(trial_log_of(FOUR, tmp_path / "x"))
    trial = ask(before, "a")
    after = service_of(trial_log_of(FOUR, tmp_path / "x"))
    show_life(after, "a", trial.trial_id)
    assert ask(after, "b").trial_id == "0001"
    end(after, "a", trial, score=0.25)
    assert after.oracle.trials["0000"].score == 0.25
    late = service_of(trial_log_of(FOUR, tmp_path / "x"))
    given = ask(late, "c")
    assert given.trial_id == "0001"
    with pytest.raises(Exception, match="ABORTED: The trial has been given to another"):
        show_life(late, "b", "0001")


def test_what_goes_wrong_in_the_oracle_ends_the_search(tmp_path, monkeypatch):
    service = service_of(trial_log_of(FOUR, tmp_path / "x"))
    trial = ask(service, "a")

    def full():
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(service.oracle, "save", full)
    with pytest.raises(OSError, match="No space"):
        end(service, "a", trial)
    assert isinstance(service.error, OSError)
    assert service.changed.is_set()
    with pytest.raises(Exception, match=r"ABORTED: The search has ended: .*No space"):
        ask(service, "b")


def test_nothing_is_left_of_a_search_that_has_ended(tmp_path):
    tuner = RandomSearch("random", max_trials=1)
    service = service_of(trial_log_of(tuner, tmp_path / "x"))
    assert service.left()
    end(service, "a", ask(service, "a"))
    again = service_of(trial_log_of(tuner, tmp_path / "x"))
    assert not again.left()
    assert list(again.oracle.trials) == ["0000"]


@pytest.mark.parametrize(
    "tuner",
    [
        RandomSearch("random", max_trials=6),
        slow(BayesianOptimization("bayesian", max_trials=6, initial_trials=3)),
        GridSearch("grid", max_trials=6),
        Hyperband("hyperband", max_epochs=4, factor=2),
    ],
    ids=lambda tuner: tuner.name,
)
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), workers=st.integers(1, 4))
def test_whatever_becomes_of_workers_every_trial_ends_once(tuner, tmp_path_factory, seed, workers):
    folder = tmp_path_factory.mktemp("x")
    chance = random.Random(seed)  # noqa: S311 - not for secrets
    trial_log = trial_log_of(tuner, folder)
    service = service_of(trial_log)
    names, busy, told = [f"w{n}" for n in range(workers)], {}, []
    for _ in range(2000):
        name = chance.choice(names)
        if name not in busy:
            trial = ask(service, name)
            if trial.status == TrialStatus.STOPPED:
                break
            if trial.status == TrialStatus.RUNNING:
                assert trial.trial_id not in busy.values()
                busy[name] = trial
            continue
        what = chance.choice(["end", "end", "fail", "die", "leave", "kill the chief"])
        trial = busy.pop(name)
        if what == "end":
            end(service, name, trial, score=chance.random())
        elif what == "fail":
            end(service, name, trial, reason="it failed")
        elif what == "die":
            service.lose(name, "killed")
        elif what == "leave":
            service.EndTrial(REQUEST.EndTrialRequest(), Call(name, leaves=True))
        else:
            busy[name] = trial
            told += trial_log.told
            trial_log = trial_log_of(tuner, folder)
            service = service_of(trial_log)
            for tuner_id, kept in busy.items():
                show_life(service, tuner_id, kept.trial_id)
        tuner.max_failures = 1000
        take_in(service, trial_log)
    assert service.over
    told += trial_log.told
    ended = [t.proposal.trial for t in told]
    assert sorted(ended) == sorted(trial_log.oracle.trials) == sorted(trial_log.oracle.end_order)
    assert len(ended) == (6 if tuner.name != "hyperband" else len(set(ended)))
