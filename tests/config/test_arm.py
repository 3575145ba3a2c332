import pytest

from melanoma_lab.config.arm import check_jobs_distinct, parse_arm
from melanoma_lab.config.compose import expand_multirun
from melanoma_lab.core.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["+experiment=baseline"], "baseline"),
        (["+experiment=baseline", "balancing=oversample"], "baseline,balancing=oversample"),
        ([], "custom"),
        (
            ["optimizer=sgd", "+experiment=dropout", "augmentation=none"],
            "dropout,augmentation=none,optimizer=sgd",
        ),
        (
            ["+experiment=dropout", "optimizer.learning_rate=0.01"],
            "dropout,optimizer.learning_rate=0.01",
        ),
        (
            ["+experiment=dropout", "regularisation.rates=[0.1,0.2]"],
            "dropout,regularisation.rates=[0.1,0.2]",
        ),
    ],
)
def test_an_arm_is_the_preset_and_what_was_changed(overrides, name):
    assert parse_arm(overrides).name == name


@pytest.mark.parametrize(
    "override",
    [
        "seed=3",
        "training.devices=2",
        "training.threads=2",
        "split.seed=1",
        "split.fold=2",
        "dataset.root=/x",
        "dataset.outside_root=true",
        "tracking.uri=sqlite:///a.db",
        "demo.port=1",
        "study=mine",
        "reference=baseline",
        "arm=baseline",
        "members=3",
        "task=train",
        "cache=/c",
        "training.threads=1",
        "hydra.run.dir=/x",
        "hydra/launcher=basic",
    ],
)
def test_seeds_folds_paths_and_tracking_are_no_part_of_an_arm(override):
    assert parse_arm(["+experiment=baseline", override]).name == "baseline"


def test_the_order_of_the_words_does_not_matter():
    words = ["+experiment=dropout", "balancing=none", "optimizer=sgd"]
    assert parse_arm(words) == parse_arm(words[::-1])


def test_of_a_key_that_is_given_twice_the_last_value_counts_as_in_hydra(composed):
    words = ["evaluation.tta=none", "loss=focal", "evaluation.tta=flips", "loss=cross_entropy"]
    config = composed(*words)
    assert (config.evaluation.tta, config.loss.name) == ("flips", "cross_entropy")
    assert parse_arm(words).name == "custom,evaluation.tta=flips,loss=cross_entropy"


def test_the_preset_is_kept_apart():
    assert parse_arm(["+experiment=dropout", "optimizer=sgd"]).preset == "dropout"


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("dataset.root", "A,B"),
        ("split.seed", "0,1"),
        ("cache", "a,b"),
        ("reference", "baseline,dropout"),
        ("training.threads", "1,2"),
        ("tracking.uri", "sqlite:///a.db,sqlite:///b.db"),
        ("tracking.unsent", "a,b"),
    ],
)
def test_values_of_a_key_that_tells_no_runs_apart_are_refused(key, values):
    words = [f"{key}={values}", "+experiment=baseline,dropout", "seed=0,1"]
    with pytest.raises(UserError) as raised:
        check_jobs_distinct(expand_multirun(words))
    assert str(raised.value).startswith(
        f"{key}={values}: a study distinguishes runs by arm, seed and fold only, not by {key}: "
        "of several values it would show one."
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["dataset.root=A,B"], "dataset.root=A,B: "),
        (["tracking.uri=sqlite:///a.db,sqlite:///b.db"], "tracking.uri="),
    ],
)
def test_values_that_tell_no_searches_apart_are_refused(words, told):
    with pytest.raises(UserError) as raised:
        check_jobs_distinct(expand_multirun(["task=tune", "+experiment=baseline,dropout", *words]))
    assert str(raised.value).startswith(told)


def test_several_such_keys_are_all_named():
    jobs = [["dataset.root=A", "cache=a"], ["dataset.root=B", "cache=b"]]
    with pytest.raises(UserError, match=r"^dataset\.root=A,B cache=a,b: .* by dataset\.root or "):
        check_jobs_distinct(jobs)


@pytest.mark.parametrize(
    "words",
    [
        ["+experiment=baseline,dropout", "seed=0,1", "split.fold=0,1", "study=a,b"],
        ["optimizer.learning_rate=0.1,0.2", "dataset.root=A"],
        ["seed=0,0"],
        ["task=audit", "dataset.root=A,B"],
        ["task=evaluate", "model=a,b"],
        ["task=train,audit"],
        ["task=tune", "tuner=random,hyperband", "+experiment=baseline,dropout"],
        ["task=train,tune", "seed=0"],
    ],
)
def test_what_is_told_apart_the_same_or_no_run_of_a_study_is_taken(words):
    check_jobs_distinct(expand_multirun(words))
