import dataclasses
import hashlib
import json

import pytest

from melanoma_lab.config.fingerprint import compute_fingerprint, config_to_dict
from melanoma_lab.config.schema.evaluation import EVALUATE_KEYS

pytestmark = pytest.mark.unit


def of(config):
    return compute_fingerprint(config, dataset_digest="d", split_hash="s")


def test_what_is_computed_counts(composed):
    base = of(composed())
    changed = [
        of(composed(override))
        for override in (
            "seed=1",
            "optimizer=sgd",
            "training.epochs=3",
            "training.precision=mixed_bfloat16",
            "training.devices=2",
            "split.seed=1",
            "balancing=oversample",
            "loss=focal",
            "metadata=patient",
            "evaluation.test=false",
            "evaluation.tta=flips",
            "schedule=cosine",
            "dataset.image_size=48",
            "evaluation.sensitivity=0.95",
        )
    ]
    assert len({base, *changed}) == 1 + len(changed)


def test_how_values_are_searched_is_none_of_a_runs(composed):
    assert of(composed("tuner=hyperband", "tuner.max_epochs=3")) == of(composed())
    assert "tuner" not in config_to_dict(composed())


def test_how_a_model_is_shown_is_none_of_a_runs(composed):
    assert of(composed("task=demo", "demo.port=1", "demo.neighbours=0")) == of(composed())
    assert "demo" not in config_to_dict(composed())


def test_ending_early_and_measuring_less_count(composed):
    config = composed()
    early = of(composed("training.stop_after=3"))
    less = compute_fingerprint(config, dataset_digest="d", split_hash="s", splits=("train", "val"))
    assert len({of(config), early, less}) == 3


def test_it_is_the_hash_of_what_counts(composed):
    config = composed()
    plain = config_to_dict(config)
    for key in ("task", "study", "reference", "metric", "cache", "output", "against", "tracking"):
        del plain[key]
    del plain["arm"], plain["members"], plain["model"], plain["images"]
    del plain["grad_cam"], plain["formats"]
    del plain["audit"], plain["dataset"]["root"], plain["dataset"]["outside_root"]
    del plain["training"]["threads"], plain["training"]["resume"]
    for key in EVALUATE_KEYS:
        del plain["evaluation"][key]
    text = json.dumps([plain, "d", "s"], sort_keys=True)
    assert of(config) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_where_the_folder_lies_does_not_count(composed):
    here, there = (of(composed("dataset=folder", f"dataset.root=/{at}")) for at in "xy")
    assert here == there


@pytest.mark.slow
def test_paths_tracking_threads_and_the_question_do_not_count(composed):
    base = of(composed())
    for override in (
        "dataset.outside_root=true",
        "tracking.uri=sqlite:///x.db",
        "tracking.register=lesions",
        "training.threads=1",
        "training.resume=false",
        "cache=/c",
        "study=other",
        "reference=x",
        "tracking.model=false",
    ):
        assert of(composed(override)) == base, override
    for task, override in (
        ("ensemble", "arm=x"),
        ("ensemble", "members=3"),
        ("evaluate", "model=x"),
        ("predict", "images=x"),
        ("predict", "grad_cam=x"),
        ("export", "formats=[onnx,litert]"),
        ("card", "output=x"),
        ("audit", "against=x"),
        ("audit", "audit.strict=true"),
    ):
        assert of(composed(f"task={task}", override)) == base, override
    of_evaluate = ("evaluation.overlap=keep", "evaluation.trained_on=x", "evaluation.lesions=false")
    for override in (*of_evaluate, "mapping=isic9_to_ham10000"):
        assert of(composed("task=evaluate", override)) == base, override


def test_the_data_count(composed):
    config = composed()
    assert compute_fingerprint(config, dataset_digest="e", split_hash="s") != of(config)
    assert compute_fingerprint(config, dataset_digest="d", split_hash="t") != of(config)


def test_what_is_known_of_patients_counts(composed):
    config = composed("metadata=patient")

    def digest(patients):
        return compute_fingerprint(config, dataset_digest="d", split_hash="s", patients=patients)

    assert len({digest(None), digest("p"), digest("q")}) == 3


def test_a_tables_columns_of_patients_count_where_they_are_named(composed):
    plain = config_to_dict(composed("dataset=csv"))["dataset"]["columns"]
    assert {"age", "sex", "site"} <= plain.keys()
    named = [composed("dataset=csv", f"dataset.columns.{k}=x") for k in ("age", "sex", "site")]
    assert len({of(composed("dataset=csv")), *map(of, named)}) == 4


def test_resolved_is_plain(composed):
    plain = config_to_dict(composed("dataset=isic9"))
    assert plain["dataset"]["conflicts"] == "error"
    assert type(plain["dataset"]["conflicts"]) is str
    assert plain["dataset"]["diagnoses"]["MEL"] == ["melanoma"]
    assert not dataclasses.is_dataclass(plain["training"])


def test_a_file_of_weights_counts_by_its_content(composed):
    def digest(path, weights):
        config = composed("architecture=efficientnet_lite0", f"architecture.weights={path}")
        return compute_fingerprint(config, dataset_digest="d", split_hash="s", weights=weights)

    assert digest("a.pth", "123") == digest("b.pth", "123")
    assert digest("a.pth", "123") != digest("a.pth", "124")
    assert digest("none", None) != digest("imagenet", None)
