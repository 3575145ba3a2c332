"""Trivial classifiers: baselines that never see a lesion's shape and do not need TensorFlow.

A network that is no better than these has not learned to recognise lesions. ``majority`` uses only
the class frequencies, ``source_only`` the source of a photograph, ``metadata_only`` the patient's
metadata, and ``colour_histogram`` the colours of the image.

A builder takes (options, data) and returns a ``TrivialClassifier``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from melanoma_lab.config.schema.architecture import (
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
    """A trivial classifier that is not fitted yet, and its features.

    Attributes:
        features: shape (n, d): a row for each row of the manifest. Each depends on its own image
            only.
        classifier: unfitted classifier with scikit-learn's methods; its labels are class indices.
        parameters: function that returns a fitted classifier's number of parameters.
        weight_name: name of the argument of ``fit`` that takes the images' weights.
    """

    features: NDArray[Any]
    classifier: Any
    parameters: Callable[[Any], int]
    weight_name: str = "sample_weight"


def build_trivial_classifier(
    architecture: TrivialArchitecture, data: PreparedData
) -> TrivialClassifier:
    """Build a trivial classifier for a dataset.

    Raises:
        UserError: the dataset lacks the data that the classifier uses.
    """
    model: TrivialClassifier = find_builder("architecture", architecture.name)(architecture, data)
    return model


@builder("architecture", "majority")
def majority(_options: Majority, data: PreparedData) -> TrivialClassifier:
    """Build a classifier that predicts the class frequencies of the training split."""
    from sklearn.dummy import DummyClassifier

    return TrivialClassifier(
        features=np.empty((len(data.manifest), 1)),
        classifier=DummyClassifier(strategy="prior"),
        parameters=lambda fitted: fitted.class_prior_.size,
    )


@builder("architecture", "colour_histogram")
def colour_histogram(options: ColourHistogram, data: PreparedData) -> TrivialClassifier:
    """Build a logistic regression on the standardised square roots of colour histograms.

    With square roots, the distance between two histograms is Hellinger's, in which rare colours
    count too.
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
    """Compute the joint colour histograms of images (Swain and Ballard, IJCV 7, 1991).

    Args:
        pixels: uint8, shape (m, height, width, 3), RGB.
        rows: int64, shape (n,): rows of ``pixels`` to use.
        bins: number of equal bins of each channel, 1 to 256.

    Returns:
        float64, shape (n, bins**3): the share of an image's pixels in each colour bin. Red varies
        slowest, and a row sums to 1.
    """
    shares = np.empty((len(rows), bins**3))
    for i, row in enumerate(rows):  # one image in memory at a time
        level = (pixels[row].reshape(-1, 3).astype(np.int64) * bins) >> 8
        colour = level @ (bins**2, bins, 1)
        shares[i] = np.bincount(colour, minlength=bins**3) / len(colour)
    return shares


@builder("architecture", "source_only")
def source_only(options: SourceOnly, data: PreparedData) -> TrivialClassifier:
    """Build a classifier that predicts the class frequencies of an image's source.

    Raises:
        UserError: the dataset has no sources.
    """
    sources = data.manifest["source"].to_numpy(str)
    if not sources.astype(bool).any():
        raise UserError(
            "architecture=source_only: this dataset does not name the sources of its images; "
            "expected a column source in its table (metadata.csv of isic9, manifest.csv of csv)."
        )
    return TrivialClassifier(
        features=sources[:, None],
        classifier=SourceFrequencyClassifier(options.smoothing),
        parameters=lambda fitted: len(fitted.shares) * len(fitted.classes_),
    )


@builder("architecture", "metadata_only")
def metadata_only(options: MetadataOnly, data: PreparedData) -> TrivialClassifier:
    """Build a logistic regression on patient metadata, encoded as for a network."""
    from sklearn.linear_model import LogisticRegression

    if data.patients is None:
        raise ValueError("Expected encoded metadata. Received none: metadata=none is refused.")
    return TrivialClassifier(
        features=data.patients.numbers,
        classifier=LogisticRegression(C=options.c, max_iter=2000),
        parameters=lambda fitted: fitted.coef_.size + fitted.intercept_.size,
    )


class SourceFrequencyClassifier:
    """Classifier that predicts the class shares of a source, smoothed towards those of all images.

    P(class | source) = (n_source,class + m P(class)) / (n_source + m), the m-estimate of Cestnik
    (ECAI 1990). A source without training images gets P(class).

    Args:
        smoothing: m, a number of images of weight 1, greater than 0.
    """

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing
        self.classes_: Labels = np.empty(0, np.int64)
        self.prior: Floats = np.empty(0)
        self.shares: dict[str, Floats] = {}

    def fit(self, features: NDArray[np.str_], labels: Labels, sample_weight: Floats) -> Self:
        """Fit to sources, shape (n, 1), class indices, shape (n,), and weights, shape (n,)."""
        self.classes_, index = np.unique(labels, return_inverse=True)

        def count(mask: NDArray[np.bool_]) -> Floats:
            counts = np.bincount(index[mask], sample_weight[mask], minlength=len(self.classes_))
            return counts.astype(np.float64)

        totals = count(np.ones(len(labels), bool))
        self.prior = totals / totals.sum()
        for source in np.unique(features[:, 0]):
            counts = count(features[:, 0] == source) + self.smoothing * self.prior
            self.shares[str(source)] = counts / counts.sum()
        return self

    def predict_proba(self, features: NDArray[np.str_]) -> Floats:
        """Return probabilities, shape (n, len(classes_)), for sources, shape (n, 1)."""
        return np.array([self.shares.get(source, self.prior) for source in features[:, 0]])
