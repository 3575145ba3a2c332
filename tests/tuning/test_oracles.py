"""What proposes trials: the same sequence whatever kills it, and no standstill."""

import json
import random

import pytest
from keras_tuner.src.engine.trial import TrialStatus

from melanoma_lab.config.schema.tuner import (
    BayesianOptimization,
    GridSearch,
    Hyperband,
    RandomSearch,
)
from melanoma_lab.core.files import DamagedFileError
from melanoma_lab.tuning import oracles
from melanoma_lab.tuning.oracles import (
    build_oracle,
    format_overrides,
    iterate_grid,
)
from melanoma_lab.tuning.search_messages import estimate_time_left, list_hyperband_epochs
from melanoma_lab.tuning.search_space import parse_space

pytestmark = pytest.mark.component

SPACE = {
    "optimizer": ["adam", "sgd"],
    "momentum": {"choices": [0.0, 0.5, 0.9], "when": {"optimizer": "sgd"}},
    "rate": {"min": 1e-4, "max": 1e-1, "log": True},
    "units": {"min": 8, "max": 64, "step": 8},
    "nesterov": [True, False],
}
FEW = {
    "optimizer": ["adam", "sgd"],
    "momentum": {"choices": [0.0, 0.9], "when": {"optimizer": "sgd"}},
}
TUNERS = [
    RandomSearch("random", max_trials=12),
    BayesianOptimization("bayesian", max_trials=9, initial_trials=4),
    GridSearch("grid", max_trials=12),
    Hyperband("hyperband", max_epochs=4, factor=2),
]


def score_of(trial):
    """A made-up objective that depends on every value and on the epochs."""
    text = json.dumps(
        [v for k, v in sorted(trial.hyperparameters.values.items()) if "trial_id" not in k]
    )
    return random.Random(text).random()  # noqa: S311 - not for secrets


def search(tuner, space, folder, *, fails=lambda trial: False, kills=lambda moment: False):
    """Run a search to its end, killing the process at some moments; (id, values, status)."""
    searched = parse_space(space)

    def begin():
        oracle = build_oracle(tuner, searched)
        folder.mkdir(exist_ok=True)
        oracle.set_folder(folder)
        if (folder / oracles.STATE_FILE).exists():
            oracle.reload()
        return oracle

    oracle, moment = begin(), 0
    while True:
        trial = oracle.create_trial("tuner0")
        if trial.status == TrialStatus.STOPPED:
            return [
                (i, format_overrides(oracle.trials[i].hyperparameters.values, searched),
                 oracle.trials[i].status, oracle.trials[i].score)
                for i in oracle.start_order
            ], oracle  # fmt: skip
        moment += 1
        if kills(moment):
            oracle = begin()
            continue
        if fails(trial):
            trial.status, trial.message = TrialStatus.INVALID, "it failed"
        else:
            oracle.update_trial(trial.trial_id, {tuner.objective: score_of(trial)})
            trial.status = TrialStatus.COMPLETED
        oracle.end_trial(trial)
        moment += 1
        if kills(moment):
            oracle = begin()


@pytest.mark.slow
@pytest.mark.parametrize("tuner", TUNERS, ids=lambda tuner: tuner.name)
def test_a_search_that_is_killed_again_and_again_proposes_what_one_that_was_not_does(
    tuner, tmp_path
):
    calm, _ = search(tuner, SPACE, tmp_path / "calm")
    moments = random.Random(0)  # noqa: S311 - not for secrets
    killed, _ = search(
        tuner, SPACE, tmp_path / "killed", kills=lambda moment: moments.random() < 0.4
    )
    assert killed == calm
    assert len({i for i, *_ in calm}) == len(calm) > 5
    assert all(status == TrialStatus.COMPLETED for *_, status, _ in calm)


@pytest.mark.slow
@pytest.mark.parametrize("tuner", TUNERS[:2], ids=lambda tuner: tuner.name)
def test_the_seed_decides(tuner, tmp_path):
    import dataclasses

    first, _ = search(tuner, SPACE, tmp_path / "a")
    again, _ = search(tuner, SPACE, tmp_path / "b")
    other, _ = search(dataclasses.replace(tuner, seed=1), SPACE, tmp_path / "c")
    assert first == again != other


def test_more_trials_extend_a_search(tmp_path):
    short, _ = search(RandomSearch("random", max_trials=4), SPACE, tmp_path / "x")
    longer, _ = search(RandomSearch("random", max_trials=11), SPACE, tmp_path / "x")
    assert longer[:4] == short
    assert len(longer) == 11
    assert longer == search(TUNERS[0], SPACE, tmp_path / "y")[0][:11]


@pytest.mark.slow
def test_a_key_has_a_value_only_where_its_condition_holds(tmp_path):
    for tuner in TUNERS:
        for _, values, *_ in search(tuner, SPACE, tmp_path / tuner.name)[0]:
            assert ("momentum" in values) == (values["optimizer"] == "sgd")


def test_the_grid_has_every_combination_once_the_last_key_fastest(tmp_path):
    found, _ = search(GridSearch("grid"), FEW, tmp_path)
    assert [values for _, values, *_ in found] == [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "momentum": "0.0"},
        {"optimizer": "sgd", "momentum": "0.9"},
    ]
    assert len(list(iterate_grid(parse_space(SPACE)))) == (1 + 3) * 10 * 8 * 2


@pytest.mark.parametrize("name", ["random", "bayesian"])
def test_a_small_space_ends_when_all_of_it_was_tried(tmp_path, name):
    tuner = {"random": RandomSearch, "bayesian": BayesianOptimization}[name](name, max_trials=30)
    found, _ = search(tuner, FEW, tmp_path)
    assert len(found) == 3
    assert len({json.dumps(values) for _, values, *_ in found}) == 3


def test_hyperband_promotes_the_best_and_gives_them_more_epochs(tmp_path):
    tuner = Hyperband("hyperband", max_epochs=9)
    found, oracle = search(tuner, SPACE, tmp_path)
    trials = [oracle.trials[i] for i, *_ in found]
    epochs = [trial.hyperparameters.values[oracles.EPOCHS] for trial in trials]
    assert epochs == [1] * 9 + [3] * 3 + [9] + [3] * 5 + [9] * 2 + [9] * 3
    cost = [e - t.hyperparameters.values["tuner/initial_epoch"] for e, t in zip(
        epochs, trials, strict=True)]  # fmt: skip
    assert cost == list_hyperband_epochs(tuner)
    first = sorted(trials[:9], key=lambda trial: -trial.score)
    promoted = [trial.hyperparameters.values[oracles.PROMOTED_FROM] for trial in trials[9:12]]
    assert promoted == [trial.trial_id for trial in first[:3]]
    for trial in trials[9:13]:
        before = oracle.trials[trial.hyperparameters.values[oracles.PROMOTED_FROM]]
        searched = parse_space(SPACE)
        assert format_overrides(trial.hyperparameters.values, searched) == format_overrides(
            before.hyperparameters.values, searched
        )


def test_hyperband_goes_on_where_trials_fail(tmp_path):
    tuner = Hyperband("hyperband", max_epochs=9)
    found, oracle = search(
        tuner, SPACE, tmp_path, fails=lambda trial: int(trial.trial_id) in {1, 4}
    )
    assert len(found) == len(list_hyperband_epochs(tuner))
    promoted = {
        trial.hyperparameters.values.get(oracles.PROMOTED_FROM) for trial in oracle.trials.values()
    }
    assert not promoted & {"0001", "0004"}
    assert [oracle.trials[i].status for i in ("0001", "0004")] == [TrialStatus.FAILED] * 2
    assert oracle.trials["0001"].message == "it failed"


def test_hyperband_goes_on_where_all_of_a_small_space_was_drawn(tmp_path):
    found, oracle = search(Hyperband("hyperband", max_epochs=9), FEW, tmp_path)
    epochs = [oracle.trials[i].hyperparameters.values[oracles.EPOCHS] for i, *_ in found]
    assert epochs == [1, 1, 1, 3, 9]


def test_trials_that_may_be_promoted_are_known(tmp_path):
    tuner = Hyperband("hyperband", max_epochs=9)
    seen = []

    def look(trial):
        seen.append(trial.trial_id)
        return False

    _, oracle = search(tuner, SPACE, tmp_path, fails=look)
    assert oracle.find_promotable() == set()


@pytest.mark.parametrize("damage", [lambda text: text[: len(text) // 2], lambda _: "", lambda text:
                                    text.replace("0001", "0007", 1)])  # fmt: skip
def test_a_state_that_was_changed_is_noticed(tmp_path, damage):
    tuner = RandomSearch("random", max_trials=3)
    _, oracle = search(tuner, SPACE, tmp_path)
    path = tmp_path / oracles.STATE_FILE
    path.write_text(damage(path.read_text()))
    with pytest.raises(DamagedFileError, match=r"oracle\.json"):
        oracle.reload()


def test_the_time_that_is_left_tells_trials_from_epochs():
    costs = [1.0, 1.0, 3.0, 9.0]
    seconds = [5 + 2 * cost for cost in costs]
    assert estimate_time_left(costs, seconds, [3.0, 9.0]) == pytest.approx(2 * 5 + 2 * 12)
    assert estimate_time_left([1.0], [4.0], [1.0, 1.0]) == pytest.approx(8)
    assert estimate_time_left(costs, seconds, []) == estimate_time_left([], [], [1.0]) == 0
