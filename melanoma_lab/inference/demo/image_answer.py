"""What is shown of one image: numbers and sentences, then pictures. No server here."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.data.pixel_cache import compute_file_digests
from melanoma_lab.data.split import TEST
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.inference.demo import messages, pictures
from melanoma_lab.inference.demo.neighbours import Embedder, find_nearest
from melanoma_lab.inference.demo.training_images import TrainingImages
from melanoma_lab.inference.image_batches import decode_or_explain
from melanoma_lab.inference.predictor import PredictionBatch, Predictor
from melanoma_lab.tracking.model_info import ModelInfo

#: Most classes whose influence is mapped, the most probable ones.
EXPLAINED = 12

#: From pixels, uint8 (n, s, s, 3), and classes, int64 (n,), to maps, float32 (n, s, s), 0 to 1.
HeatMapFunction = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class ClassProbability:
    """A class and its probability.

    Attributes:
        name: of the class.
        share: its probability, calibrated where that is possible.
        threshold: of the operating point, where it is of this class.
    """

    name: str
    share: float
    threshold: float | None = None

    @property
    def text(self) -> str:
        """The probability in words."""
        return messages.format_percent(self.share)

    @property
    def threshold_text(self) -> str:
        """The threshold in words; empty where there is none."""
        return "" if self.threshold is None else messages.format_percent(self.threshold)


@dataclass(frozen=True)
class AnswerText:
    """What is said of an image.

    Attributes:
        headline: the most probable class.
        bars: of all classes, the most probable first.
        scale: why the probabilities are not calibrated; empty where they are.
        decision: of the operating point; empty where there is none.
        rates: what its threshold was chosen for, and how often it is right.
        warnings: why not to believe it, the gravest first.
        note: what else is to be known; empty where nothing is.
    """

    headline: str
    bars: tuple[ClassProbability, ...]
    scale: str
    decision: str
    rates: str
    warnings: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Explanation:
    """Where in the picture a network found what speaks for a class."""

    name: str
    uri: str


@dataclass(frozen=True)
class Neighbour:
    """A training image that the network takes for similar.

    Attributes:
        label: its class name.
        text: how similar.
        uri: the picture; empty where its file has changed.
    """

    label: str
    text: str
    uri: str


@dataclass(frozen=True)
class ImageAnswer:
    """All that is shown of an image.

    Attributes:
        name: of the file.
        said: in words and numbers.
        picture: itself, as an address.
        explanations: of the most probable classes, in that order.
        no_explanations: why there are none.
        neighbours: the nearest training images.
        no_neighbours: why there are none; both are empty where none were asked for.
        part: which part of it is shown, because the network sees no more; empty: all of it.
    """

    name: str
    said: AnswerText
    picture: str
    explanations: tuple[Explanation, ...]
    no_explanations: str
    neighbours: tuple[Neighbour, ...]
    no_neighbours: str
    part: str = ""

    @property
    def labels(self) -> str:
        """Of the neighbours, counted."""
        return messages.count_labels(near.label for near in self.neighbours)


@dataclass(frozen=True)
class ReferenceSet:
    """What an image is compared with.

    Attributes:
        known: digest -> split and label of the images that the model was made with.
        images: the training images; None where they are not there.
        features: theirs, float32, shape (n, d), of unit length.
        of: what gives an image its features.
        why_none: why there are no training images.
        count: how many are shown.
    """

    known: Mapping[str, tuple[str, str]]
    images: TrainingImages | None = None
    features: NDArray[np.float32] | None = None
    of: Embedder | None = None
    why_none: str = ""
    count: int = 0


def build_answer_text(
    answers: PredictionBatch,
    card: ModelInfo,
    advice: DecisionRule | None,
    known: tuple[str, str] | None,
) -> AnswerText:
    """What is said of one image.

    Args:
        answers: of that image alone.
        card: what the network's outputs mean.
        advice: how its answers are to be read; None where nothing says it.
        known: split and label, where it is an image that the model was made with.
    """
    (shares,) = answers.probabilities if answers.calibrated is None else answers.calibrated
    decided = int(answers.decided[0])
    called, decision, rates = -1, "", ""
    if answers.reached is not None and advice is not None:
        called = card.slugs.index(advice.slug)
        name = card.names[called]
        decision = messages.describe_decision(
            float(shares[called]), bool(answers.reached[0]), name, advice
        )
        rates = messages.describe_operating_point(name, advice)
    order = sorted(range(len(shares)), key=lambda k: (k != decided, -shares[k]))
    bars = tuple(
        ClassProbability(
            card.names[k],
            float(shares[k]),
            advice.threshold if advice is not None and k == called else None,
        )
        for k in order
    )
    warnings, note = [], ""
    if answers.unlike is not None and answers.unlike[0] > 1:
        warnings.append(messages.describe_unlike_image(float(answers.unlike[0])))
    if known is not None:
        note = messages.describe_known_file(*known)
        if known[0] != TEST:
            warnings.append(note)
            note = ""
    return AnswerText(
        headline=f"{bars[0].name}, {bars[0].text}",
        bars=bars,
        scale=messages.explain_uncalibrated(advice),
        decision=decision,
        rates=rates,
        warnings=tuple(warnings),
        note=note,
    )


class DemoService:
    """A model that is asked about one image at a time.

    Args:
        model: the network.
        reference: what images are compared with.
        explain: maps what speaks for a class; or why that cannot be done.
    """

    def __init__(
        self, model: Predictor, reference: ReferenceSet, explain: HeatMapFunction | str
    ) -> None:
        self.model, self.reference = model, reference
        self._explain = explain
        self._one_at_a_time = threading.Lock()  # the page is served by several threads

    def look_at(self, path: str, name: str) -> ImageAnswer | str:
        """What is shown of an image file, or why it cannot be read, in a few words.

        Args:
            path: of the file.
            name: what whoever gave it calls it.
        """
        pixels = decode_or_explain(path, self.model.size, self.model.card.resize)
        if isinstance(pixels, str):
            return pixels
        try:
            picture = pictures.load_picture(path, pictures.LARGE, self.model.card.resize)
        except ValueError as error:  # damaged where a smaller decoding does not look
            return str(error)
        (digest,) = compute_file_digests([path], threads=1)
        with self._one_at_a_time:
            answers = self.model.look_at(pixels[np.newaxis])
            said = build_answer_text(
                answers,
                self.model.card,
                self.model.source.advice,
                self.reference.known.get(digest),
            )
            explained, why_not = self._explanations(pixels, answers)
            near = self._nearest(pixels)
        return ImageAnswer(
            name=name,
            said=said,
            picture=pictures.encode_data_uri(picture),
            explanations=tuple(
                Explanation(
                    self.model.card.names[k],
                    pictures.encode_data_uri(pictures.draw_heat_map(picture, h)),
                )
                for k, h in explained
            ),
            no_explanations=why_not,
            neighbours=self._shown(near),
            no_neighbours=self.reference.why_none,
            part=messages.PART if self.model.card.resize is Resize.crop else "",
        )

    def _explanations(
        self, pixels: NDArray[np.uint8], answers: PredictionBatch
    ) -> tuple[Sequence[tuple[int, NDArray[np.float32]]], str]:
        """Maps of the most probable classes, or why there are none."""
        if isinstance(self._explain, str):
            return (), self._explain
        (probabilities,) = answers.probabilities
        classes = np.argsort(-probabilities, kind="stable")[:EXPLAINED]
        heat = self._explain(np.repeat(pixels[np.newaxis], len(classes), axis=0), classes)
        return list(zip(classes.tolist(), heat, strict=True)), ""

    def _nearest(self, pixels: NDArray[np.uint8]) -> list[tuple[int, float]]:
        to = self.reference
        if to.images is None or to.features is None or to.of is None:
            return []
        return find_nearest(to.features, to.of(pixels[np.newaxis])[0], to.images.groups, to.count)

    def _shown(self, near: Sequence[tuple[int, float]]) -> tuple[Neighbour, ...]:
        images = self.reference.images
        if images is None:
            return ()
        resize = self.model.card.resize
        return tuple(
            Neighbour(images.labels[row], f"{cosine:.2f}", _unchanged(images, row, resize))
            for row, cosine in near
        )


def _unchanged(images: TrainingImages, row: int, resize: Resize) -> str:
    """A training image, if its file is still the one that the network has seen."""
    path = images.paths[row]
    if compute_file_digests([path], threads=1) != [images.digests[row]]:
        return ""
    return pictures.encode_data_uri(pictures.load_picture(path, pictures.SMALL, resize))
