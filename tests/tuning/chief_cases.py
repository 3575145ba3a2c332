"""A chief's surroundings without a network or a training: a ledger, a call, stand-in trials."""

from types import SimpleNamespace

from melanoma_lab.tuning.algorithms import build_oracle
from melanoma_lab.tuning.ledger import Ledger
from melanoma_lab.tuning.service import Facts, Service
from melanoma_lab.tuning.space import declared
from melanoma_lab.tuning.wire import packed, unpacked

SPACE = {
    "optimizer": ["adam", "sgd"],
    "momentum": {"choices": [0.0, 0.5, 0.9], "when": {"optimizer": "sgd"}},
    "rate": {"min": 1e-4, "max": 1e-1, "log": True},
    "units": {"min": 8, "max": 64, "step": 8},
}
FACTS = Facts(sweep="5eed", parent="the search's run", mark="here")


def ledger_of(tuner, folder):
    """A ledger over a real oracle whose trials train nothing; with what it was told."""
    searched = declared(SPACE)
    oracle = build_oracle(tuner, searched)
    folder.mkdir(exist_ok=True)
    oracle.keep_in(folder)
    if (folder / "oracle.json").exists():
        oracle.reload()
    told, forgotten = [], []
    trials = SimpleNamespace(
        forget=lambda proposal: forgotten.append(proposal.trial),
        cache=folder,
        sweep=FACTS.sweep,
        tracker=SimpleNamespace(reconcile=lambda: None),
    )
    ledger = Ledger(oracle, searched, tuner, trials, on_end=told.append)
    ledger.told, ledger.forgotten = told, forgotten
    return ledger


def service_of(ledger, *, alive_for=120.0):
    return Service(ledger, FACTS, alive_for=alive_for)


class Call:
    """A worker's call as gRPC shows it to a service, and the answer's metadata."""

    def __init__(self, tuner, *, process=None, sweep=FACTS.sweep, **facts):
        self._sent = packed(tuner=tuner, process=process or tuner, sweep=sweep, **facts)
        self._answer = ()

    def invocation_metadata(self):
        return self._sent

    def set_trailing_metadata(self, metadata):
        self._answer = metadata

    @property
    def answer(self):
        return unpacked(self._answer)

    def abort(self, code, details):
        raise Exception(f"{code.name}: {details}")  # noqa: TRY002 - as gRPC's is
