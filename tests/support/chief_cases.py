"""A chief's surroundings without a network or a training: a trial log, a call, stand-in trials."""

from types import SimpleNamespace

from melanoma_lab.tuning.distributed.oracle_service import OracleService, SearchInfo
from melanoma_lab.tuning.distributed.transport import pack_metadata, unpack_metadata
from melanoma_lab.tuning.oracles import build_oracle
from melanoma_lab.tuning.search import TrialLog
from melanoma_lab.tuning.search_space import parse_space

SPACE = {
    "optimizer": ["adam", "sgd"],
    "momentum": {"choices": [0.0, 0.5, 0.9], "when": {"optimizer": "sgd"}},
    "rate": {"min": 1e-4, "max": 1e-1, "log": True},
    "units": {"min": 8, "max": 64, "step": 8},
}
FACTS = SearchInfo(sweep="5eed", parent="the search's run", mark="here")


def trial_log_of(tuner, folder):
    """A trial log over a real oracle whose trials train nothing; with what it was told."""
    searched = parse_space(SPACE)
    oracle = build_oracle(tuner, searched)
    folder.mkdir(exist_ok=True)
    oracle.set_folder(folder)
    if (folder / "oracle.json").exists():
        oracle.reload()
    told = []
    trials = SimpleNamespace(
        delete_checkpoints=lambda proposal: None,
        cache=folder,
        sweep=FACTS.sweep,
        tracker=SimpleNamespace(reconcile=lambda: None),
    )
    trial_log = TrialLog(oracle, searched, tuner, trials, on_end=told.append)
    trial_log.told = told
    return trial_log


def service_of(trial_log, *, alive_for=120.0):
    return OracleService(trial_log, FACTS, alive_for=alive_for)


class Call:
    """A worker's call as gRPC shows it to a service, and the answer's metadata."""

    def __init__(self, tuner, *, process=None, sweep=FACTS.sweep, **facts):
        self._sent = pack_metadata(tuner=tuner, process=process or tuner, sweep=sweep, **facts)
        self._answer = ()

    def invocation_metadata(self):
        return self._sent

    def set_trailing_metadata(self, metadata):
        self._answer = metadata

    @property
    def answer(self):
        return unpack_metadata(self._answer)

    def abort(self, code, details):
        raise Exception(f"{code.name}: {details}")  # noqa: TRY002 - as gRPC's is
