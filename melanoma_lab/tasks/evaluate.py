"""Evaluate a kept model on a dataset that it was not trained on, as a tracked run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from melanoma_lab import summary, tracking
from melanoma_lab.config.compose import CONF
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.evaluation import Overlap
from melanoma_lab.config.schema.split import Predefined, Undivided
from melanoma_lab.console import progress_of
from melanoma_lab.data.cache import cache_folder
from melanoma_lab.data.metadata import Encoding, is_missing, unseen_words
from melanoma_lab.data.prepare import PreparedData, prepare_images
from melanoma_lab.data.split import TEST
from melanoma_lab.errors import UserError
from melanoma_lab.evaluation import predictions
from melanoma_lab.evaluation.advice import Advice
from melanoma_lab.evaluation.judging import Judgement, groups_of, judge_as_advised
from melanoma_lab.evaluation.plots import save_plots
from melanoma_lab.evaluation.proportions import Proportion, mean_sensitivity
from melanoma_lab.evaluation.summary import absent_by_split, split_metrics
from melanoma_lab.evaluation.temperature import Temperature
from melanoma_lab.external import identity, telling
from melanoma_lab.external.answering import Answers, answers_to
from melanoma_lab.external.classes import match_classes
from melanoma_lab.external.known import (
    KnownImages,
    TrainedRun,
    known_images,
    near_identical,
    run_of,
)
from melanoma_lab.external.overlap import Shown, find_shown
from melanoma_lab.prediction.opened import open_network
from melanoma_lab.prediction.source import Source, find_model
from melanoma_lab.prediction.telling import show_source
from melanoma_lab.tracking.card import ModelCard
from melanoma_lab.training.backend import available_threads

#: Of a model that says nothing of how its answers are to be read.
NO_ADVICE = Advice(Temperature(1.0, 0, "the model does not say what was fitted to it"))


@dataclass(frozen=True)
class Evaluated:
    """A model and the images that it is applied to, before it is.

    Attributes:
        config: the checked configuration.
        source: the model's.
        card: what it says about itself.
        run: that trained it, as far as it is found.
        data: the images of classes that the model has; their split is ``test`` where they are
            judged, else what they were to the model.
        encoding: of what the model takes of patients; None where it takes images alone.
        matched: class of the dataset -> class of the model, None where it is left out.
        shown: what each image has been to the model; None where nothing says it.
    """

    config: Config
    source: Source
    card: ModelCard
    run: TrainedRun
    data: PreparedData
    encoding: Encoding | None
    matched: Mapping[str, str | None]
    shown: Shown | None

    @property
    def kept(self) -> bool:
        """Whether images that the model has seen are judged all the same."""
        return self.config.evaluation.overlap is Overlap.keep

    @property
    def melanoma(self) -> str | None:
        """The model's class that is reported on its own."""
        return self.card.melanoma or self.matched.get(self.config.dataset.melanoma or "")


def evaluate_model(config: Config) -> str:
    """Apply a model to a dataset; leave out what it has seen; measure and track the rest.

    Args:
        config: the checked configuration; ``model``, ``dataset``, ``split``, ``evaluation``,
            ``study``, ``tracking``, ``cache``, ``training.batch_size`` and ``training.threads``
            count. Images get the size that the model takes.

    Returns:
        The id of the evaluation's MLflow run.

    Raises:
        UserError: the model or the dataset cannot be used, their classes do not match, or the
            model has seen all of it.
        RunError: the tracking server did not take all of it.
    """
    threads = config.training.threads or available_threads()
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as scratch:
        source = find_model(config.model, config.tracking, Path(scratch))
        evaluated = _prepared(config, source, threads)
        connecting = tracking.connect(config.tracking, config.study)
        network = open_network(
            source, threads=threads, seed=config.seed, patients=evaluated.encoding is not None
        )
        with progress_of("evaluating") as tell:
            answers = answers_to(
                evaluated.data,
                np.arange(len(evaluated.data.manifest)),
                network,
                encoding=evaluated.encoding,
                appearance=source.appearance,
                batch_size=config.training.batch_size,
                progress=tell,
            )
        tags = identity.tags_of(config, source, evaluated.run, evaluated.data, evaluated.shown)
        tags |= {"threads": str(threads), "precision": "float32"}
        params = tracking.flatten(identity.params_of(config, evaluated.matched))
    tracker = connecting.result()
    with tracker.run(identity.name_of(tags), tags, params) as run_id:
        _record(evaluated, answers, tracker)
    summary.show_where(
        config, run_id, kept=tracker.kept, advice="It is an evaluation: compare does not see it."
    )
    return run_id


def _prepared(config: Config, source: Source, threads: int) -> Evaluated:
    """All that is found before TensorFlow is needed; mistakes show here."""
    card = source.card
    if card is None:
        raise UserError(
            f"model={source.typed}: a bare .keras file does not say what its classes are called, "
            "and so cannot be held against labels; expected a run's id, a folder with MLflow's "
            "MLmodel, or models:/NAME/VERSION."
        )
    show_source(source, card)
    run = run_of(source, config.tracking)
    known = known_images(run, config.evaluation.trained_on, threads)
    data, encoding = _dataset(config, source, card, threads)
    matched = match_classes(
        data.classes,
        card.slugs,
        config.evaluation.classes,
        others=data.findings.classes_left_out,
        shipped=CONF / "mapping",
    )
    telling.show_dataset(data, config.dataset.name, matched)
    for note in unseen_words(data.manifest, encoding) if encoding else ():
        summary.show_note(f"  {note}")
    shown = None if known is None else _shown(config, data, known, threads)
    # Groups are looked at whole; what is left out by its class counts no further.
    of_class = [matched[label] for label in data.manifest["label"]]
    chosen = np.flatnonzero([name is not None for name in of_class])
    kept = config.evaluation.overlap is Overlap.keep
    shown = None if shown is None else shown.of(chosen)
    telling.show_overlap(shown, known, kept=kept)
    splits = [TEST] * len(chosen) if shown is None or kept else list(shown.splits)
    if TEST not in splits:
        raise UserError(
            f"The model has seen all {len(chosen):,} images: none is left to judge it by. "
            "evaluation.overlap=keep judges it all the same; evaluation.lesions=false, where "
            "lesions of two datasets are only called alike."
        )
    data = replace(
        data,
        manifest=data.manifest.iloc[chosen].assign(split=splits).reset_index(drop=True),
        rows=data.rows[chosen],
        labels=np.array([card.slugs.index(of_class[i] or "") for i in chosen], np.int64),
        classes=card.classes or card.slugs,
    )
    return Evaluated(config, source, card, run, data, encoding, matched, shown)


def _dataset(
    config: Config, source: Source, card: ModelCard, threads: int
) -> tuple[PreparedData, Encoding | None]:
    """The dataset at the size that the model takes, undivided, and what is known of patients."""
    size = card.image_size
    if size is None:  # an old model's card; the network knows
        size = open_network(source, threads=threads, seed=config.seed, patients=True).image_size
    encoding = None
    if card.encoding:
        try:
            encoding = Encoding.read(card.encoding)
        except ValueError as error:
            raise UserError(f"model={source.typed}: {error}") from error
    asked = replace(
        config,
        dataset=replace(config.dataset, image_size=size),
        split=Undivided(published=isinstance(config.split, Predefined)),
    )
    with progress_of("preparing images") as tell:
        data = prepare_images(
            asked,
            cache=cache_folder(config.cache),
            threads=threads,
            patients=encoding is not None,
            progress=tell,
        )
    columns = encoding.columns if encoding else {}
    for name in columns:
        if is_missing(data.manifest[name]).all():
            raise UserError(
                f"model={source.typed}: takes {', '.join(columns)} beside the image, and "
                f"dataset={config.dataset.name} does not say the {name} of any patient. "
                "dataset=ham10000 knows all, dataset=csv what dataset.columns names."
            )
    return data, encoding


def _shown(config: Config, data: PreparedData, known: KnownImages, threads: int) -> Shown:
    """What each image of the dataset has been to the model."""
    with progress_of("looking for images that the model knows") as tell:
        cache = cache_folder(config.cache)
        pairs = near_identical(data.manifest, known, cache=cache, threads=threads, progress=tell)
    return find_shown(data.manifest, known.table, pairs, lesions=config.evaluation.lesions)


def _record(evaluated: Evaluated, answers: Answers, tracker: tracking.Tracker) -> None:
    """Measure, draw, keep and show what an evaluation comes to."""
    data, card = evaluated.data, evaluated.card
    manifest = data.manifest
    table = predictions.build(
        image_ids=list(manifest["image_id"]),
        groups=list(manifest["group"]),
        splits=list(manifest["split"]),
        labels=data.labels,
        probabilities=answers.probabilities,
        slugs=card.slugs,
    )
    judged = (manifest["split"] == TEST).to_numpy()
    advice = evaluated.source.advice or NO_ADVICE
    if advice.slug not in card.slugs:
        advice = replace(advice, slug="")
    judgement = judge_as_advised(table, advice, manifest=manifest)
    interval = _interval(table)
    metrics = split_metrics(table, TEST, evaluated.melanoma) | judgement.metrics()
    metrics |= {
        "test/balanced_accuracy_low": interval.low,
        "test/balanced_accuracy_high": interval.high,
        "images": float(judged.sum()),
        "groups": float(manifest.loc[judged, "group"].nunique()),
    }
    if evaluated.shown is not None:
        metrics["images_seen"] = float(evaluated.shown.seen.sum())
    if answers.unlike is not None:
        metrics["images_unlike_training"] = float((answers.unlike[judged] > 1).sum())
    absent = absent_by_split(table, [TEST])
    tracker.log_metrics(metrics)
    tracker.set_tags({f"absent/{split}": ", ".join(slugs) for split, slugs in absent.items()})
    with tempfile.TemporaryDirectory() as scratch:
        _keep(Path(scratch), evaluated, answers, table, judgement)
        tracker.log_folder(Path(scratch))
    telling.show_figures(metrics, evaluated.run, evaluated.config.dataset.name, interval)
    summary.show_absent(absent, len(card.slugs))
    summary.show_judgement(judgement)
    if answers.unlike is not None:
        telling.show_unlike(int(metrics["images_unlike_training"]), int(judged.sum()))


def _interval(table: pd.DataFrame) -> Proportion:
    """Balanced accuracy of the images that are judged, with its interval."""
    y_true, y_score = predictions.split_arrays(table, TEST)
    return mean_sensitivity(y_true, y_score.argmax(axis=1) == y_true, groups_of(table, TEST))


def _keep(
    folder: Path, evaluated: Evaluated, answers: Answers, table: pd.DataFrame, judgement: Judgement
) -> None:
    """Write what a run of an evaluation has beside its figures."""
    data, config = evaluated.data, evaluated.config
    plain = identity.params_of(config, evaluated.matched)
    OmegaConf.save(OmegaConf.create(plain), folder / "config.yaml")
    predictions.write_csv(table, folder / "predictions.csv")
    manifest = data.manifest
    if answers.unlike is not None:
        manifest = manifest.assign(unlike_training=answers.unlike)
    if evaluated.shown is not None:
        shown = evaluated.shown
        manifest = manifest.assign(known_as=shown.role, known_by=shown.kind)
        shown.links.to_csv(folder / "overlap.csv", index=False)
    manifest.to_csv(folder / "manifest.csv", index=False)
    data.findings.write(folder / "audit.json")
    judgement.write(folder)
    save_plots(
        folder / "plots",
        table=table,
        history={},
        kept_epoch=None,
        counts=None,
        sample_images=np.empty((0, 1, 1, 3), np.uint8),
        sample_names=(),
        melanoma=evaluated.melanoma,
        judgement=judgement,
        shown_as=config.dataset.name,
    )
