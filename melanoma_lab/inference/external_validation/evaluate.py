"""Evaluate a saved model on a dataset that it was not trained on, as a tracked run."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from omegaconf import OmegaConf

from melanoma_lab.audit.inspection import find_shared_photographs
from melanoma_lab.config.compose import CONF_DIR
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.data import Predefined, Undivided
from melanoma_lab.config.schema.evaluation import OnOverlap
from melanoma_lab.config.schema.training import Precision
from melanoma_lab.core.console import show_note, show_progress
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.files import get_cache_folder
from melanoma_lab.core.formatting import format_list, slugify
from melanoma_lab.data.patient_metadata import (
    PatientEncoder,
    describe_unseen_categories,
    is_missing,
)
from melanoma_lab.data.split import TEST
from melanoma_lab.inference.external_validation.evaluation_report import (
    ExternalEvaluation,
    build_evaluation_params,
    build_evaluation_tags,
    name_evaluation,
    report_evaluation,
    show_dataset,
    show_training_overlap,
)
from melanoma_lab.inference.external_validation.training_overlap import (
    ImageRoles,
    assign_image_roles,
)
from melanoma_lab.inference.known_images import (
    find_known_images,
    load_run_manifest,
    read_training_run,
)
from melanoma_lab.inference.model_source import ModelSource, find_model
from melanoma_lab.inference.prediction_messages import show_source
from melanoma_lab.inference.predictor import PredictionBatch, Predictor, load_predictor
from melanoma_lab.input_pipeline.prepare import PreparedData, prepare_images
from melanoma_lab.runs import run_messages
from melanoma_lab.tracking.logged_model import ModelInfo
from melanoma_lab.tracking.tracker import connect
from melanoma_lab.tracking.upload import flatten_params
from melanoma_lab.training.hardware import choose_threads

CLASSES_KEY = "evaluation.classes"


def evaluate_model(config: Config) -> str:
    """Evaluate a model on the images of a dataset that it has not seen, and track the evaluation.

    Image size and proportions are those of the model. The id of the MLflow run is returned.

    Raises:
        UserError: the model or the dataset cannot be used, their classes do not match, or the model
            has seen all images.
        RunError: not everything could be sent to MLflow.
    """
    threads = choose_threads(config.training.threads)
    with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as scratch:
        source = find_model(config.model, config.tracking, Path(scratch))
        evaluated = _prepare(config, source, threads, Path(scratch))
        connecting = connect(config.tracking, config.study)
        model = load_predictor(
            source, threads=threads, seed=config.seed, patients=evaluated.encoding is not None
        )
        answers = _predict(evaluated, model)
        tags = build_evaluation_tags(evaluated)
        tags |= {"threads": str(threads), "precision": Precision.float32.value}
        params = flatten_params(build_evaluation_params(evaluated))
    tracker = connecting.result()
    with tracker.run(name_evaluation(tags), tags, params) as run_id:
        report_evaluation(evaluated, answers, tracker, model.network)
    run_messages.show_run_location(
        config, run_id, kept=tracker.kept, advice="This run is an evaluation; compare ignores it."
    )
    return run_id


def _prepare(
    config: Config, source: ModelSource, threads: int, scratch: Path
) -> ExternalEvaluation:
    """Prepare model and images and check them, as far as possible without TensorFlow."""
    card = source.card
    if card is None:
        raise UserError(
            f"model={source.typed}: a bare .keras file does not contain the names of its "
            "classes, so its predictions cannot be compared with labels; expected a run's id, a "
            "folder with MLflow's MLmodel, or models:/NAME/VERSION."
        )
    show_source(source, card)
    run = read_training_run(source, config.tracking, scratch)
    manifest = load_run_manifest(run, config.tracking, scratch)
    known = find_known_images(manifest, config.evaluation.trained_on, threads)
    size = card.image_size
    if size is None:  # an old model's card has none, so the network itself is loaded
        size = load_predictor(source, threads=threads, seed=config.seed, patients=True).size
    dataset = replace(config.dataset, image_size=size, resize=card.resize)
    config = replace(config, dataset=dataset)
    data, encoding = _prepare_dataset(config, source, card, threads)
    matched = match_classes(
        data.classes,
        card.slugs,
        config.evaluation.classes,
        others=data.findings.classes_left_out,
        shipped=CONF_DIR / "mapping",
    )
    show_dataset(data, config.dataset.name, matched)
    for note in describe_unseen_categories(data.manifest, encoding) if encoding else ():
        show_note(f"  {note}")
    roles = None if known is None else _find_roles(config, data, known, threads)
    # Roles are assigned to whole groups; only then are images of left-out classes removed.
    model_classes = [matched[label] for label in data.manifest["label"]]
    chosen = np.flatnonzero([name is not None for name in model_classes])
    kept = config.evaluation.overlap is OnOverlap.keep
    roles = None if roles is None else roles.of(chosen)
    show_training_overlap(roles, known, kept=kept)
    splits = [TEST] * len(chosen) if roles is None or kept else list(roles.splits)
    if TEST not in splits:
        raise UserError(
            f"The model has seen all {len(chosen):,} images: none is left for the evaluation. "
            "evaluation.overlap=keep evaluates it on them nevertheless; set "
            "evaluation.lesions=false if different lesions of the two datasets have the same ids."
        )
    data = replace(
        data,
        manifest=data.manifest.iloc[chosen].assign(split=splits).reset_index(drop=True),
        rows=data.rows[chosen],
        labels=np.array([card.slugs.index(model_classes[i] or "") for i in chosen], np.int64),
        classes=card.classes or card.slugs,
    )
    return ExternalEvaluation(config, source, card, run, data, encoding, matched, roles)


def _prepare_dataset(
    config: Config, source: ModelSource, card: ModelInfo, threads: int
) -> tuple[PreparedData, PatientEncoder | None]:
    """Prepare the dataset without dividing it, and read the model's encoder of metadata."""
    encoding = None
    if card.encoding:
        try:
            encoding = PatientEncoder.read(card.encoding)
        except ValueError as error:
            raise UserError(f"model={source.typed}: {error}") from error
    published = isinstance(config.split, Predefined)
    with show_progress("preparing images") as tell:
        data = prepare_images(
            config.dataset,
            Undivided(published=published),
            cache=get_cache_folder(config.cache),
            threads=threads,
            patients=encoding is not None,
            progress=tell,
        )
    columns = encoding.columns if encoding else {}
    for name in columns:
        if is_missing(data.manifest[name]).all():
            raise UserError(
                f"model={source.typed}: takes {', '.join(columns)} beside the image, and "
                f"dataset={config.dataset.name} has no {name} of its patients. dataset=ham10000 "
                "has all, dataset=csv those that dataset.columns names."
            )
    return data, encoding


def _find_roles(
    config: Config, data: PreparedData, known: pd.DataFrame, threads: int
) -> ImageRoles:
    """Find the role of each image of the dataset in the model's training."""
    there = known[known["path"] != ""]
    pairs: list[list[object]] = []
    with show_progress("searching for images that the model has seen") as tell:
        if len(there):
            pairs = find_shared_photographs(
                (list(data.manifest["path"]), list(data.manifest["digest"])),
                (list(there["path"]), list(there["digest"])),
                cache=get_cache_folder(config.cache),
                threads=threads,
                progress=tell,
            )
    return assign_image_roles(data.manifest, known, pairs, lesions=config.evaluation.lesions)


def _predict(evaluated: ExternalEvaluation, model: Predictor) -> PredictionBatch:
    """Apply the network to all images of the prepared dataset, a batch at a time."""
    data, encoding = evaluated.data, evaluated.encoding
    n, batch_size = len(data.rows), evaluated.config.training.batch_size
    batches = []
    with show_progress("evaluating") as tell:
        for start in range(0, n, batch_size):
            chosen = slice(start, start + batch_size)
            pixels = np.asarray(data.pixels[data.rows[chosen]])
            rows = data.manifest.iloc[chosen]
            known = encoding.to_model_inputs(rows) if encoding else None
            batches.append(model.look_at(pixels, known))
            tell(min(start + batch_size, n), n)
    return PredictionBatch.concatenate(batches)


def match_classes(
    classes: Sequence[str],
    slugs: Sequence[str],
    mapping: Mapping[str, str | None],
    *,
    others: Sequence[str] = (),
    shipped: Path | None = None,
) -> dict[str, str | None]:
    """Find each class of a dataset among a model's classes: by the user's setting, else by name.

    Args:
        classes: names of the dataset's classes.
        slugs: slugs of the model's classes.
        mapping: the user's setting, class of the model by class of the dataset, or None to leave it
            out; as names or slugs. It overrides equal names.
        others: names of classes without images in the dataset, which ``mapping`` may contain too.
        shipped: folder of mapping files that come with the lab; the error suggests one that fits.

    Returns:
        Slug of the model's class by name of the dataset's class; None if it is left out. Several
        may be mapped to one.

    Raises:
        UserError: a class has neither an equal name nor a mapping, ``mapping`` has an unknown name,
            or all classes are left out.
    """
    by_slug = {slugify(name): None if to is None else slugify(to) for name, to in mapping.items()}
    known = [slugify(name) for name in (*classes, *others)]
    for name, to in by_slug.items():
        if name not in known:
            raise UserError(
                f"{CLASSES_KEY}: the dataset has no class {name}. {suggest_choice(name, known)}"
            )
        if to is not None and to not in slugs:
            raise UserError(
                f"{CLASSES_KEY}.{name}: the model has no class {to}. {suggest_choice(to, slugs)}"
            )
    own = {name: slugify(name) for name in classes}
    missing = [name for name in own.values() if name not in by_slug and name not in slugs]
    if missing:
        raise UserError(_explain_missing(missing, slugs, shipped))
    matched = {name: by_slug.get(own[name], own[name]) for name in classes}
    if not any(matched.values()):
        raise UserError(f"{CLASSES_KEY}: leaves out all of the dataset's classes.")
    return matched


def _explain_missing(missing: Sequence[str], slugs: Sequence[str], shipped: Path | None) -> str:
    """Describe which classes have no match, and what to type to map them."""
    line = ", ".join(f"{name}: null" for name in missing)
    option = _find_mapping(missing, slugs, shipped)
    return (
        f"The model has no class called {format_list(missing)}. It has {format_list(slugs, 10)}. "
        + (f"mapping={option} maps them. Or map them yourself: " if option else "Map them: ")
        + f"'{CLASSES_KEY}={{{line}}}' leaves them out; write one of the model's classes instead "
        "of null to map to it."
    )


def _find_mapping(missing: Sequence[str], slugs: Sequence[str], shipped: Path | None) -> str | None:
    """Return the option of the group ``mapping`` that maps all missing classes, or None."""
    for path in sorted(shipped.glob("*.yaml")) if shipped else ():
        content = OmegaConf.to_container(OmegaConf.load(path))
        classes = content.get("classes", {}) if isinstance(content, dict) else {}
        if set(missing) <= set(classes) and all(to in {None, *slugs} for to in classes.values()):
            return path.stem
    return None
