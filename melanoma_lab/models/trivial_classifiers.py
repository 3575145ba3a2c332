"""Trivial arms: classifiers that never see a lesion's shape, fitted in one go, without TensorFlow.

A network that is no better than these has not learned what it is wanted for: ``majority`` knows
the class frequencies, ``source_only`` where a photograph comes from, ``metadata_only`` whom it is
of, ``colour_histogram`` which colours it has.

A builder takes (options, data) and returns a ``TrivialClassifier``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.trivial_classifiers import (
    ColourHistogram,
    Majority,
    MetadataOnly,
    SourceOnly,
    TrivialArchitecture,
)
from melanoma_lab.core.errors import UserError
from melanoma_lab.input_pipeline.prepare import PreparedData
from melanoma_lab.registry import builder, find_builder

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


@dataclass(frozen=True)
class TrivialClassifier:
    """A trivial arm before it is fitted.

    Attributes:
        features: shape (n, d); a row for every row of the manifest, each a function of that image
            alone.
        classifier: of scikit-learn's kind, not fitted; its labels are class indices.
        weight_name: the argument by which its ``fit`` takes a weight for every image.
        parameters: how many numbers it has learned, once it is fitted.
    """

    features: NDArray[Any]
    classifier: Any
    parameters: Callable[[Any], int]
    weight_name: str = "sample_weight"


def build_trivial_classifier(
    architecture: TrivialArchitecture, data: PreparedData
) -> TrivialClassifier:
    """Build a trivial arm for a dataset.

    Args:
        architecture: the option's configuration.
        data: the split dataset.

    Raises:
        UserError: the dataset does not know what the arm looks at.
    """
    model: TrivialClassifier = find_builder("architecture", architecture.name)(architecture, data)
    return model


@builder("architecture", "majority")
def majority(_options: Majority, data: PreparedData) -> TrivialClassifier:
    """The class frequencies of the training split, whatever the image."""
    from sklearn.dummy import DummyClassifier

    return TrivialClassifier(
        features=np.empty((len(data.manifest), 1)),
        classifier=DummyClassifier(strategy="prior"),
        parameters=lambda fitted: fitted.class_prior_.size,
    )


@builder("architecture", "colour_histogram")
def colour_histogram(options: ColourHistogram, data: PreparedData) -> TrivialClassifier:
    """Logistic regression on the square roots of colour shares, standardised.

    Roots make the distance between two histograms Hellinger's, in which rare colours count too.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    shares = compute_colour_histograms(data.pixels, data.rows, options.bins)
    return TrivialClassifier(
        features=np.sqrt(shares),
        classifier=make_pipeline(StandardScaler(), LogisticRegression(C=options.c, max_iter=2000)),
        weight_name="logisticregression__sample_weight",
        parameters=lambda fitted: fitted[-1].coef_.size + fitted[-1].intercept_.size,
    )


def compute_colour_histograms(
    pixels: NDArray[np.uint8], rows: NDArray[np.int64], bins: int
) -> Floats:
    """The joint colour histogram of images (Swain and Ballard, IJCV 7, 1991).

    Args:
        pixels: uint8, shape (m, height, width, 3), RGB.
        rows: int64, shape (n,); which of them.
        bins: equal parts that each channel is cut into, 1 to 256.

    Returns:
        float64, shape (n, bins**3): the share of each image's pixels that have each colour; red
        varies slowest. A row sums to one.
    """
    shares = np.empty((len(rows), bins**3))
    for i, row in enumerate(rows):  # one image in memory at a time
        level = (pixels[row].reshape(-1, 3).astype(np.int64) * bins) >> 8
        colour = level @ (bins**2, bins, 1)
        shares[i] = np.bincount(colour, minlength=bins**3) / len(colour)
    return shares


@builder("architecture", "source_only")
def source_only(options: SourceOnly, data: PreparedData) -> TrivialClassifier:
    """The class frequencies of the training images of the same source.

    Raises:
        UserError: the dataset names no sources.
    """
    sources = data.manifest["source"].to_numpy(str)
    if not sources.astype(bool).any():
        raise UserError(
            "architecture=source_only: this dataset does not say where its images come from; "
            "expected a column source in its table (metadata.csv of isic9, manifest.csv of csv)."
        )
    return TrivialClassifier(
        features=sources[:, None],
        classifier=SourceFrequencyClassifier(options.smoothing),
        parameters=lambda fitted: len(fitted.shares) * len(fitted.classes_),
    )


@builder("architecture", "metadata_only")
def metadata_only(options: MetadataOnly, data: PreparedData) -> TrivialClassifier:
    """Logistic regression on what is known of the patient, encoded as a network gets it."""
    from sklearn.linear_model import LogisticRegression

    if data.patients is None:
        raise ValueError("Expected encoded metadata. Received none: metadata=none is refused.")
    return TrivialClassifier(
        features=data.patients.numbers,
        classifier=LogisticRegression(C=options.c, max_iter=2000),
        parameters=lambda fitted: fitted.coef_.size + fitted.intercept_.size,
    )


class SourceFrequencyClassifier:
    """Class shares of each source, drawn towards those of all images where there are few.

    P(class | source) = (n_source,class + m P(class)) / (n_source + m), the m-estimate of Cestnik
    (ECAI 1990). A source that was not seen gets P(class).

    Args:
        smoothing: m, more than 0; in images of weight one.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self.classes_: Labels = np.empty(0, np.int64)
        self.prior: Floats = np.empty(0)
        self.shares: dict[str, Floats] = {}

    def fit(self, features: NDArray[np.str_], labels: Labels, sample_weight: Floats) -> Self:
        """Fit to sources, shape (n, 1), and labels, shape (n,), each image with its weight."""
        self.classes_, index = np.unique(labels, return_inverse=True)

        def count(of: NDArray[np.bool_]) -> Floats:
            counts = np.bincount(index[of], sample_weight[of], minlength=len(self.classes_))
            return counts.astype(np.float64)

        everything = count(np.ones(len(labels), bool))
        self.prior = everything / everything.sum()
        for source in np.unique(features[:, 0]):
            counts = count(features[:, 0] == source) + self.smoothing * self.prior
            self.shares[str(source)] = counts / counts.sum()
        return self

    def predict_proba(self, features: NDArray[np.str_]) -> Floats:
        """Probabilities of ``classes_``, shape (n, len(classes_)), for sources, shape (n, 1)."""
        return np.array([self.shares.get(source, self.prior) for source in features[:, 0]])
