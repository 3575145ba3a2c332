"""The answer to one image: probabilities, sentences, heat maps and similar training images.

Pictures are small JPEGs inside the page itself, never stored.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.data.cache import compute_file_digests
from melanoma_lab.data.decoding import read_for_display
from melanoma_lab.data.split import TEST
from melanoma_lab.evaluation.decision_rule import DecisionRule
from melanoma_lab.inference.demo import messages
from melanoma_lab.inference.demo.training_images import ReferenceSet, find_nearest
from melanoma_lab.inference.image_files import decode_or_explain
from melanoma_lab.inference.predictor import PredictionBatch, Predictor
from melanoma_lab.plots.grad_cam import overlay_on_picture
from melanoma_lab.reports.rendering import encode_jpeg_uri
from melanoma_lab.tracking.logged_model import ModelInfo

#: The maximum number of classes with a heat map; the most probable ones get one.
EXPLAINED = 12
#: Length in pixels of the longer side of the uploaded picture, and of a training image.
LARGE, SMALL = 480, 192

#: From pixels, uint8 (n, s, s, 3), and classes, int64 (n,), to maps, float32 (n, s, s), 0 to 1.
HeatMapFunction = Callable[[NDArray[np.uint8], NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class ClassProbability:
    """A class and its probability, calibrated if the model can be.

    ``threshold`` is the operating point's if it is one of this class, else None.
    """

    name: str
    share: float
    threshold: float | None = None

    @property
    def text(self) -> str:
        """The probability as text."""
        return messages.format_percent(self.share)

    @property
    def threshold_text(self) -> str:
        """The threshold as text; empty if there is none."""
        return "" if self.threshold is None else messages.format_percent(self.threshold)


@dataclass(frozen=True)
class AnswerText:
    """The numbers and sentences about an image.

    Attributes:
        headline: the most probable class and its probability.
        bars: the probabilities of all classes, the most probable first.
        scale: why the probabilities are not calibrated; empty if they are.
        decision: the decision at the operating point; empty if there is none.
        rates: how the threshold was chosen, and its sensitivity and specificity.
        warnings: reasons not to trust the answer, the most serious first.
        note: a further remark; may be empty.
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
    """The heat map of one class, laid over the picture, as a data URI."""

    name: str
    uri: str


@dataclass(frozen=True)
class Neighbour:
    """A training image whose embedding is close to that of the image.

    Attributes:
        label: the name of its class.
        text: the cosine similarity as text.
        uri: the picture as a data URI; empty if its file has changed since training.
    """

    label: str
    text: str
    uri: str


@dataclass(frozen=True)
class ImageAnswer:
    """All that the page shows of an image; pictures are data URIs.

    Attributes:
        name: the name of the uploaded file.
        said: the numbers and sentences.
        picture: the picture itself.
        explanations: heat maps of the most probable classes, the most probable first.
        no_explanations: why there are no heat maps; empty if there are.
        neighbours: the most similar training images.
        no_neighbours: why there are none; empty if there are, or if the user wants none.
        part: which part of the picture is shown, if the network crops it; else empty.
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
        """The counts of the neighbours' classes, as text."""
        return messages.count_labels(near.label for near in self.neighbours)


def build_answer_text(
    answers: PredictionBatch,
    card: ModelInfo,
    advice: DecisionRule | None,
    known: tuple[str, str] | None,
) -> AnswerText:
    """Phrase the answer to one image, from the predictions of a batch of this image alone.

    ``known`` is split and label if the file is one of the model's dataset, else None.
    """
    (shares,) = answers.probabilities if answers.calibrated is None else answers.calibrated
    decided = int(answers.decided[0])
    positive, decision, rates = -1, "", ""
    if answers.reached is not None and advice is not None:
        positive = card.slugs.index(advice.slug)
        name = card.names[positive]
        decision = messages.describe_decision(
            float(shares[positive]), bool(answers.reached[0]), name, advice
        )
        rates = messages.describe_operating_point(name, advice)
    order = sorted(range(len(shares)), key=lambda k: (k != decided, -shares[k]))
    bars = tuple(
        ClassProbability(
            card.names[k],
            float(shares[k]),
            advice.threshold if advice is not None and k == positive else None,
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
    """A model that answers one image at a time.

    ``explain`` computes heat maps, or is a text that says why there are none.
    """

    def __init__(
        self, model: Predictor, reference: ReferenceSet, explain: HeatMapFunction | str
    ) -> None:
        self.model, self.reference = model, reference
        self._explain = explain
        self._one_at_a_time = threading.Lock()  # the page is served by several threads

    def look_at(self, path: str, name: str) -> ImageAnswer | str:
        """Answer an image file; return a short reason instead if it cannot be read.

        ``name`` is the file's name as the user knows it.
        """
        pixels = decode_or_explain(path, self.model.size, self.model.card.resize)
        if isinstance(pixels, str):
            return pixels
        try:
            picture = read_for_display(path, LARGE, self.model.card.resize)
        except ValueError as error:  # damaged in a part that a smaller decoding does not read
            return str(error)
        (digest,) = compute_file_digests([path], threads=1)
        with self._one_at_a_time:
            answers = self.model.look_at(pixels[np.newaxis])
            known = self.reference.known.get(digest)
            text = build_answer_text(answers, self.model.card, self.model.source.advice, known)
            explained, why_not = self._explain_classes(pixels, answers)
            nearest = self._find_nearest(pixels)
        return ImageAnswer(
            name=name,
            said=text,
            picture=encode_picture(picture),
            explanations=tuple(
                Explanation(self.model.card.names[k], encode_picture(draw_heat_map(picture, heat)))
                for k, heat in explained
            ),
            no_explanations=why_not,
            neighbours=self._show_neighbours(nearest),
            no_neighbours=self.reference.why_none,
            part=messages.PART if self.model.card.resize is Resize.crop else "",
        )

    def _explain_classes(
        self, pixels: NDArray[np.uint8], answers: PredictionBatch
    ) -> tuple[Sequence[tuple[int, NDArray[np.float32]]], str]:
        """Compute heat maps of the most probable classes, or return why there are none."""
        if isinstance(self._explain, str):
            return (), self._explain
        (probabilities,) = answers.probabilities
        classes = np.argsort(-probabilities, kind="stable")[:EXPLAINED]
        heat = self._explain(np.repeat(pixels[np.newaxis], len(classes), axis=0), classes)
        return list(zip(classes.tolist(), heat, strict=True)), ""

    def _find_nearest(self, pixels: NDArray[np.uint8]) -> list[tuple[int, float]]:
        known = self.reference
        if known.images is None or known.features is None or known.of is None:
            return []
        query = known.of(pixels[np.newaxis])[0]
        return find_nearest(known.features, query, known.images.groups, known.count)

    def _show_neighbours(self, nearest: Sequence[tuple[int, float]]) -> tuple[Neighbour, ...]:
        images = self.reference.images
        if images is None:
            return ()
        neighbours = []
        for row, cosine in nearest:
            path, uri = images.paths[row], ""
            if compute_file_digests([path], threads=1) == [images.digests[row]]:
                uri = encode_picture(read_for_display(path, SMALL, self.model.card.resize))
            neighbours.append(Neighbour(images.labels[row], f"{cosine:.2f}", uri))
        return tuple(neighbours)


def draw_heat_map(picture: Image.Image, heat: NDArray[np.float32]) -> Image.Image:
    """Draw a heat map, float32 (s, s), 0 to 1, over a picture.

    The square map is stretched to the picture's proportions; the result's longer side has ``LARGE``
    pixels.
    """
    square = picture.resize((LARGE, LARGE), Image.Resampling.BICUBIC)
    laid = overlay_on_picture(square, heat)
    longest = max(picture.size)
    size = [max(1, round(LARGE * side / longest)) for side in picture.size]
    return laid.resize((size[0], size[1]), Image.Resampling.BILINEAR)


def encode_picture(picture: Image.Image) -> str:
    """Encode a picture as a data URI with a JPEG, in a quality to be looked at closely."""
    return encode_jpeg_uri(picture, quality=88, optimize=False)
