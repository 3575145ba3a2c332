import dataclasses
import functools
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from melanoma_lab.core.formatting import format_percent as share
from melanoma_lab.evaluation.clinical_evaluation import (
    ClinicalEvaluation,
    evaluate_clinically,
)
from melanoma_lab.evaluation.decision_rule import Temperature
from melanoma_lab.evaluation.evaluated_run import evaluate_run
from melanoma_lab.evaluation.metrics import ece
from melanoma_lab.evaluation.predictions import Predictions
from melanoma_lab.plots import style
from melanoma_lab.plots.classification import (
    draw_confusion_matrix,
    draw_precision_recall_curves,
    draw_reliability_diagram,
    draw_roc_curves,
)
from melanoma_lab.plots.clinical_evaluation import (
    MOST_ROWS,
    draw_decision_curve,
    draw_operating_curve,
    draw_subgroup_forest,
)
from melanoma_lab.plots.run_figures import save_run_figures
from melanoma_lab.plots.training_figures import (
    ClassCounts,
    TrainingFigures,
    draw_class_distribution,
    draw_learning_curves,
    draw_samples,
    format_mixed_label,
)
from melanoma_lab.training.training_result import MAX_SAMPLES
from tests.support.evaluation_cases import Case, random_case, split_arrays, table_of

pytestmark = pytest.mark.unit

FILES = {
    "class_distribution.png",
    "samples.png",
    "learning_curves.png",
    "confusion_matrix.png",
    "roc_curves.png",
    "precision_recall_curves.png",
    "reliability_diagram.png",
}
OF_MELANOMA = {"operating_curve.png", "decision_curve.png"}
HELD = ("val", "test")
NINE = (
    "actinic_keratosis",
    "basal_cell_carcinoma",
    "dermatofibroma",
    "melanoma",
    "nevus",
    "pigmented_benign_keratosis",
    "seborrheic_keratosis",
    "squamous_cell_carcinoma",
    "vascular_lesion",
)
SLUGS = {
    2: ("benign", "melanoma"),
    9: NINE,
    20: tuple(f"pigmented_benign_keratosis_of_the_scalp_{i}" for i in range(20)),
}


def texts(fig: Figure) -> list[Text]:
    """Every text that is drawn, which ticks outside the axes' limits are not."""
    drawn: list[Text] = []
    draw = Text.draw

    def record(self: Text, renderer: object) -> None:
        if self.get_visible() and self.get_text().strip():
            drawn.append(self)
        draw(self, renderer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Text, "draw", record)
        fig.draw_without_rendering()
    return drawn


def words(fig: Figure) -> str:
    return "\n".join(text.get_text() for text in texts(fig))


def counts_of(k: int, scale: int = 37) -> ClassCounts:
    train = scale * (1 + np.arange(k))
    return ClassCounts(train, np.full(k, train.sum() // k), train // 10, train // 9)


def history_of(epochs: int, balanced: bool = True) -> dict[str, list[float]]:
    names = ["train_loss", "val_loss", "train_accuracy", "val_accuracy"]
    names += ["val_balanced_accuracy"] * balanced
    return {
        name: [1 / (epoch + i) for epoch in range(2, epochs + 2)] for i, name in enumerate(names)
    }


def noise_images(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(n, 12, 16, 3), dtype=np.uint8)


def judged(k: int, n: int = 150, **columns: object) -> tuple[pd.DataFrame, ClinicalEvaluation]:
    """Val and test, and what becomes of them."""
    tables = [table_of(random_case(n, k, i + 5), split, SLUGS[k]) for i, split in enumerate(HELD)]
    table = pd.concat(tables, ignore_index=True)
    manifest = pd.DataFrame({"image_id": table["image_id"]} | columns)
    positive_class = "melanoma" if "melanoma" in SLUGS[k] else None
    return table, evaluate_clinically(
        Predictions(table), positive_class, sensitivity=0.9, manifest=manifest
    )


def subgroups_of(k: int) -> tuple[pd.DataFrame, ClinicalEvaluation]:
    return judged(
        k,
        age=np.resize([20.0, 50, 70, np.nan], 300),
        sex=np.resize(["female", "male"], 300),
        site=np.resize([f"a part of the body {i}" for i in range(15)], 300),
        source=np.resize(["a clinic with a very long name, of the city of Vienna", "$b$"], 300),
    )


def figures_of_melanoma(k: int) -> dict[str, Figure]:
    table, judgement = subgroups_of(k)
    y_true, y_score = split_arrays(table, "test")
    slug = SLUGS[k].index("melanoma")
    of_class = y_true == slug, judgement.temperature.apply(y_score)[:, slug]
    return {
        "operating": draw_operating_curve(*of_class, "test", judgement.point),
        "decision": draw_decision_curve(
            *of_class, Predictions(table).split("test").groups, "test", "melanoma"
        ),
    }


@functools.cache
def figures(k: int) -> dict[str, Figure]:
    slugs = SLUGS[k]
    positive_class = "melanoma" if "melanoma" in slugs else None
    y_true, y_score = random_case(150, k, seed=k)
    return {
        "distribution": draw_class_distribution(counts_of(k), slugs),
        "samples": draw_samples(noise_images(MAX_SAMPLES), (slugs * 9)[:MAX_SAMPLES]),
        "learning": draw_learning_curves(history_of(12), kept_epoch=7),
        "confusion": draw_confusion_matrix(y_true, y_score, slugs, "test"),
        "roc": draw_roc_curves(y_true, y_score, slugs, "test", positive_class),
        "precision recall": draw_precision_recall_curves(
            y_true, y_score, slugs, "test", positive_class
        ),
        "reliability": draw_reliability_diagram(y_true, y_score, "test"),
        "calibrated": draw_reliability_diagram(y_true, y_score, "test", Temperature(1.7, 150)),
        "subgroups": draw_subgroup_forest(subgroups_of(k)[1].subgroups, subgroups_of(k)[1].point),
        **(figures_of_melanoma(k) if positive_class else {}),
    }


@pytest.mark.parametrize("k", SLUGS)
def test_no_text_leaves_the_figure_or_runs_into_another(k):
    for name, fig in figures(k).items():
        shown = texts(fig)
        frame = fig.bbox
        # The box of a slanted label is far larger than the label: judged by eye instead.
        boxes = [(t, t.get_window_extent()) for t in shown]
        for text, box in boxes:
            assert frame.x0 - 1 <= box.x0, (name, text)
            assert box.x1 <= frame.x1 + 1, (name, text)
            assert frame.y0 - 1 <= box.y0, (name, text)
            assert box.y1 <= frame.y1 + 1, (name, text)
        level = [(t, box) for t, box in boxes if t.get_rotation() in (0, 90)]
        for (one, a), (other, b) in itertools.combinations(level, 2):
            overlaps = (
                min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
            )
            assert not overlaps, (name, one, other)


def test_every_figure_of_predictions_says_what_it_is_not_for():
    for name, fig in figures(9).items():
        predicts = name not in {"distribution", "samples", "learning"}
        assert ("Research use only - not a medical device" in words(fig)) == predicts


@pytest.mark.parametrize("name", ["distribution", "confusion", "roc", "precision recall"])
def test_class_names_are_there_in_full(name):
    read = words(figures(9)[name])
    for slug in NINE:
        assert slug.replace("_", " ") in read


def test_a_mixed_image_is_named_after_its_classes_and_their_shares():
    slugs = ("benign_keratosis", "melanoma", "nevus")
    assert format_mixed_label(np.array([0, 1.0, 0]), slugs) == "melanoma"
    assert format_mixed_label(np.array([0.002, 0.998, 0]), slugs) == "melanoma"
    name = format_mixed_label(np.array([0.3, 0.0, 0.7]), slugs)
    assert name.replace("\xa0", " ") == "nevus 70 %, benign_keratosis 30 %"
    read = words(draw_samples(noise_images(2), [name, "melanoma"])).replace("\xa0", " ")
    assert "nevus 70 %,\nbenign\nkeratosis 30 %" in read


def test_class_distribution_gives_every_count():
    counts = ClassCounts(*np.array([[1234, 56], [645, 646], [78, 9], [81, 11]]))
    read = words(draw_class_distribution(counts, SLUGS[2])).split("\n")
    for count in ("1,234", "56", "645", "646", "78", "9", "81", "11"):
        assert count in read
    assert "original images (1,290)" in read
    assert "after balancing (1,291)" in read
    assert read[read.index("val") + 1] == "87"
    assert read[read.index("test") + 1] == "92"


def test_class_distribution_refuses_counts_of_other_classes():
    with pytest.raises(ValueError, match=r"Expected 9 counts of train. Received \(2,\)"):
        draw_class_distribution(counts_of(2), NINE)


def test_samples_shows_the_pixels_it_is_given():
    images = noise_images(3).astype(np.float32)
    images[0, 0, 0] = (-20, 127.6, 300)
    fig = draw_samples(images, ["melanoma", "nevus", "nevus"])
    (ax,) = fig.axes
    shown = [image.get_array() for image in ax.images]
    assert len(shown) == 3
    np.testing.assert_array_equal(shown[0][0, 0], [0, 128, 255])
    np.testing.assert_array_equal(shown[2], images[2])
    assert [text.get_text() for text in ax.texts] == ["melanoma", "nevus", "nevus"]
    assert "16 x 12 pixels" in words(fig)


def test_samples_shows_a_limited_number():
    (ax,) = draw_samples(noise_images(40), ["nevus"] * 40).axes
    assert len(ax.images) == MAX_SAMPLES == 18


@pytest.mark.parametrize(
    ("images", "names"),
    [(noise_images(2), ["nevus"]), (noise_images(0), []), (noise_images(1)[0], ["nevus"])],
)
def test_samples_refuses_what_is_no_batch(images, names):
    with pytest.raises(ValueError, match="Expected one or more images"):
        draw_samples(images, names)


def test_learning_curves_mark_the_kept_epoch_and_explain_themselves():
    fig = draw_learning_curves(history_of(5), kept_epoch=3)
    read = words(fig)
    assert "kept: epoch 3" in read
    assert "training mode (dropout and augmentation on" in read
    for ax in fig.axes:
        marked = [line for line in ax.lines if line.get_label() == "kept: epoch 3"]
        assert [list(line.get_xdata()) for line in marked] == [[3, 3]]


def test_learning_curves_draw_what_is_in_the_history():
    history = history_of(4)
    loss, accuracy = draw_learning_curves(history, kept_epoch=None).axes
    drawn = {(ax, line.get_label()): line for ax in (loss, accuracy) for line in ax.lines}
    for key, name in {
        (loss, "training"): "train_loss",
        (loss, "validation"): "val_loss",
        (accuracy, "training"): "train_accuracy",
        (accuracy, "validation"): "val_accuracy",
        (accuracy, "validation, balanced"): "val_balanced_accuracy",
    }.items():
        assert list(drawn.pop(key).get_ydata()) == history[name]
    assert not drawn
    assert "balanced" not in words(draw_learning_curves(history_of(4, balanced=False), None))


def test_learning_curves_of_a_diverged_run_have_a_gap():
    history = history_of(4) | {"train_loss": [1.0, np.inf, np.nan, 2.0]}
    loss = draw_learning_curves(history, kept_epoch=1).axes[0]
    line = next(line for line in loss.lines if line.get_label() == "training")
    np.testing.assert_array_equal(line.get_ydata(), [1, np.nan, np.nan, 2])
    assert loss.get_ylim() == pytest.approx((0, 2.1))


@pytest.mark.parametrize("kept_epoch", [0, 6])
def test_learning_curves_refuse_an_epoch_that_was_not_trained(kept_epoch):
    with pytest.raises(ValueError, match=r"Received lengths \[5\] and kept_epoch"):
        draw_learning_curves(history_of(5), kept_epoch)


def test_learning_curves_refuse_lists_of_different_lengths():
    with pytest.raises(ValueError, match="Expected lists of one length"):
        draw_learning_curves(history_of(5) | {"val_loss": [1.0]}, 1)


def test_confusion_matrix_counts_by_hand():
    y_true = np.array([0, 0, 0, 1])
    y_score = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    fig = draw_confusion_matrix(y_true, y_score, SLUGS[2], "val")
    np.testing.assert_allclose(fig.axes[0].images[0].get_array(), [[2 / 3, 1 / 3], [0, 1]])
    assert [text.get_text() for text in fig.axes[0].texts] == ["2", "1", "0", "1"]
    read = words(fig)
    assert "val (4 images)" in read
    assert "balanced accuracy 0.833" in read
    assert "benign  (3)" in read


def without_class(case: Case, label: int) -> Case:
    return case[0][case[0] != label], case[1][case[0] != label]


def test_an_absent_class_is_said_to_be_absent():
    case = without_class(random_case(150, 9, seed=0), 4)
    assert "nevus  (absent)" in words(draw_confusion_matrix(*case, NINE, "test"))
    assert "nevus: absent" in words(draw_roc_curves(*case, NINE, "test"))
    assert "nevus: absent" in words(draw_precision_recall_curves(*case, NINE, "test"))


def test_curves_give_area_and_prevalence_and_stress_melanoma():
    y_true = np.array([0, 0, 0, 1])
    y_score = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    roc = draw_roc_curves(y_true, y_score, SLUGS[2], "test", "melanoma")
    assert "melanoma: 0.667  (1, 25.0 %)" in words(roc)
    assert "macro AUROC 0.667" in words(roc)
    # The only positive comes second: average precision 1/2.
    precision_recall = draw_precision_recall_curves(y_true, y_score, SLUGS[2], "test", "melanoma")
    assert "melanoma: 0.500  (1, 25.0 %)" in words(precision_recall)
    for fig in (roc, precision_recall):
        lines = {line.get_label().split(":")[0]: line for line in fig.axes[0].lines}
        assert lines["melanoma"].get_color() == style.VERMILLION
        assert lines["melanoma"].get_linewidth() > lines["benign"].get_linewidth()
        assert lines["benign"].get_color() != style.VERMILLION


def area_under_steps(x: np.ndarray, y: np.ndarray) -> float:
    """Of a line drawn with steps-post, from right to left."""
    return float(-np.sum(np.diff(x) * y[:-1]))


def test_the_area_that_is_seen_is_the_area_that_is_said():
    y_true, y_score = random_case(80, 9, seed=3)
    roc = draw_roc_curves(y_true, y_score, NINE, "test").axes[0]
    precision_recall = draw_precision_recall_curves(y_true, y_score, NINE, "test").axes[0]
    for k in range(9):
        said = float(roc.lines[k].get_label().split()[-4])
        assert np.trapezoid(roc.lines[k].get_ydata(), roc.lines[k].get_xdata()) == pytest.approx(
            said, abs=6e-4
        )
        line = precision_recall.lines[k]
        assert line.get_drawstyle() == "steps-post"
        said = float(line.get_label().split()[-4])
        assert area_under_steps(*line.get_data()) == pytest.approx(said, abs=6e-4)


def test_twenty_classes_all_look_different():
    y_true, y_score = random_case(400, 20, seed=0)
    lines = draw_roc_curves(y_true, y_score, SLUGS[20], "test").axes[0].lines[:20]
    assert len({(line.get_color(), str(line._dash_pattern)) for line in lines}) == 20


def test_reliability_diagram_gives_the_ece_and_the_counts():
    case = random_case(150, 9, seed=1)
    fig = draw_reliability_diagram(*case, "test")
    assert f"ECE {ece(*case):.3f} (150 images)" in words(fig)
    assert sum(bar.get_height() for bar in fig.axes[1].patches) == 150
    assert len(fig.axes[1].patches) == 15


def test_reliability_is_shown_before_and_after():
    case = random_case(150, 9, seed=1)
    temperature = Temperature(1.7, 150)
    fig = draw_reliability_diagram(*case, "test", temperature)
    after = ece(case[0], temperature.apply(case[1]))
    assert f"ECE {ece(*case):.3f} (150 images); after calibration {after:.3f}" in words(fig)
    assert "after temperature 1.70, from val" in words(fig)
    unfitted = Temperature(1.0, 150, "there was no reason")
    assert "after" not in words(draw_reliability_diagram(*case, "test", unfitted))


def test_the_operating_curve_shows_the_chosen_point_on_its_curves():
    table, judgement = judged(2)
    point = judgement.point
    y_true, y_score = split_arrays(table, "test")
    score = judgement.temperature.apply(y_score)[:, 1]
    fig = draw_operating_curve(y_true == 1, score, "test", point)
    rates = point.rates["test"]
    for what in ("sensitivity", "specificity"):
        rate = getattr(rates, what)
        said = f"{what}: {share(rate.value)} ({share(rate.low)} to {share(rate.high)})"
        assert said in words(fig)
        line = next(line for line in fig.axes[0].lines if line.get_label() == said)
        at = np.log(point.threshold / (1 - point.threshold))
        shown = np.interp(at, line.get_xdata(), line.get_ydata())
        assert shown == pytest.approx(rate.value, abs=0.03)
    assert "chosen on val for a sensitivity of 90 %" in words(fig)
    nowhere = dataclasses.replace(point, threshold=float("nan"))
    assert "no threshold: val has no image of melanoma" in words(
        draw_operating_curve(y_true == 1, score, "test", nowhere)
    )


def test_a_threshold_at_the_edge_is_still_seen():
    table, judgement = judged(2)
    y_true, y_score = split_arrays(table, "test")
    point = dataclasses.replace(judgement.point, threshold=1e-6)
    ax = draw_operating_curve(y_true == 1, y_score[:, 1], "test", point).axes[0]
    assert ax.get_xlim()[0] < np.log(1e-6)


def test_the_decision_curve_names_the_share_and_says_where_there_is_nothing():
    table, _ = judged(2)
    y_true, y_score = split_arrays(table, "test")
    groups = Predictions(table).split("test").groups
    fig = draw_decision_curve(y_true == 1, y_score[:, 1], groups, "test", "melanoma")
    assert f"150 images, {share((y_true == 1).mean())} melanoma" in words(fig)
    assert {"treat all", "treat none"} <= set(words(fig).split("\n"))
    never = draw_decision_curve(y_true == 7, y_score[:, 1], groups, "test", "melanoma")
    assert "no image of melanoma in test" in words(never)


def test_the_forest_names_every_subgroup_it_shows():
    _, judgement = subgroups_of(9)
    read = words(draw_subgroup_forest(judgement.subgroups, judgement.point))
    for name in ("all", "age: under 40", "sex: female", "site: a part of the body 3"):
        assert f"{name}  (" in read
    assert read.count("site: ") == MOST_ROWS
    assert "3 smaller: subgroups.csv" in read
    few = draw_subgroup_forest(judgement.subgroups, None)
    assert len(few.axes) == 1
    assert len(draw_subgroup_forest(judgement.subgroups, judgement.point).axes) == 3


def test_a_dollar_sign_in_a_name_is_no_formula():
    fig = draw_class_distribution(counts_of(2), ["a$b", "c$d$e"])
    read = words(fig)
    assert r"c\$d\$e" in read
    fig.canvas.draw()


def arguments(k: int, splits: tuple[str, ...] = ("train", "val", "test")) -> dict[str, object]:
    tables = [table_of(random_case(60, k, i), split, SLUGS[k]) for i, split in enumerate(splits)]
    table = pd.concat(tables, ignore_index=True)
    manifest = table[["image_id"]].assign(sex=np.resize(["f", "m"], len(table)))
    positive_class = "melanoma" if k < 20 else None
    training = TrainingFigures(
        counts=counts_of(k),
        history=history_of(6),
        kept_epoch=4,
        sample_images=noise_images(7),
        sample_names=(SLUGS[k] * 4)[:7],
    )
    return {
        "run": evaluate_run(
            {},
            Predictions(table),
            manifest,
            audit=None,
            positive_class=positive_class,
            sensitivity=0.9,
            costs={},
        ),
        "training": training,
    }


def test_save_plots_writes_pictures_with_something_on_them(tmp_path: Path):
    paths = save_run_figures(tmp_path / "run" / "plots", **arguments(2))
    expected = FILES | OF_MELANOMA | {"subgroups.png"}
    assert {path.name for path in paths} == expected
    assert {path.name for path in (tmp_path / "run" / "plots").iterdir()} == expected
    for path in paths:
        with Image.open(path) as image:
            assert image.format == "PNG"
            assert round(image.info["dpi"][0]) == style.DPI
            assert min(image.size) > 250
            colours = image.convert("RGB").getcolors(maxcolors=1 << 20)
        # White paper, and on it ink of many shades.
        white = next(n for n, colour in colours if colour == (255, 255, 255))
        assert white / sum(n for n, _ in colours) < 0.98
        assert len(colours) > 50


@pytest.mark.parametrize(
    ("splits", "shown"), [(("train", "val", "test"), "test"), (("train", "val"), "val")]
)
def test_save_plots_shows_the_test_split_or_else_val(tmp_path: Path, monkeypatch, splits, shown):
    seen = {}
    monkeypatch.setattr(style, "save_png", lambda fig, path, **_: seen.update({path.stem: fig}))
    given = arguments(2, splits)
    save_run_figures(tmp_path, **given)
    value = ece(*split_arrays(given["run"].predictions.table, shown))
    assert f"Reliability, {shown}\nECE {value:.3f}" in words(seen["reliability_diagram"])
    for name in (
        "confusion_matrix",
        "roc_curves",
        "precision_recall_curves",
        "operating_curve",
        "decision_curve",
        "subgroups",
    ):
        assert f", {shown}" in seen[name].get_suptitle()
    calibrated = given["run"].evaluation.calibrated[shown]["ece"]
    assert f"after calibration {calibrated:.3f}" in words(seen["reliability_diagram"])


def test_save_plots_without_any_held_out_image(tmp_path: Path):
    assert len(save_run_figures(tmp_path, **arguments(2, ("train",)))) == len(FILES | OF_MELANOMA)
    nothing = split_arrays(arguments(2, ("train",))["run"].predictions.table, "val")
    assert "no images" in words(draw_roc_curves(*nothing, SLUGS[2], "val"))
    assert "ECE undefined" in words(draw_reliability_diagram(*nothing, "val"))


def test_no_figure_is_kept_alive_by_pyplot():
    from matplotlib import pyplot as plt

    figures.cache_clear()
    figures(2)
    assert not plt.get_fignums()
