"""Detection of images that do not resemble the training images, by colour and texture.

A network predicts a class for any image, even for a photograph of a palace. The measures here are
of the image itself: colours at its centre and its edge, their spread, and the strength and the
direction of edges at three scales. The distance is Mahalanobis's, with the covariance of Ledoit and
Wolf (2004, "A well-conditioned estimator for large-dimensional covariance matrices"). Lee et al.
(2018, "A simple unified framework for detecting out-of-distribution samples") compute it from a
network's features; that would depend on the architecture and need another forward pass, while
pixels are decoded anyway.

The detector is fitted to training images; its limit is a quantile of validation images, to which it
was not fitted. It needs only NumPy and Pillow, and is saved as a small JSON file.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from melanoma_lab.core.untrusted_files import parse_json
from melanoma_lab.data.split import TRAIN, VAL

if TYPE_CHECKING:  # slow to import, and not needed at run time
    from melanoma_lab.input_pipeline.prepare import PreparedData

#: File name of a detector in the folder of its network.
FILE: Final = "appearance.json"
#: Version of the file: increase it when the results of ``extract_colour_and_texture`` change.
VERSION: Final = 1
#: Share of validation images that lie within the limit.
WITHIN: Final = 0.99
#: The most images to measure: enough for the covariance, and for a quantile of 99 %.
TRAINING_IMAGES, VALIDATION_IMAGES = 1500, 1000
#: Side in pixels to which images are resized; the scales are this, a half and a quarter of it.
SIDE: Final = 48
SCALES: Final = 3
#: Radii, in units of half a side, that divide an image into centre, middle and edge.
RINGS: Final = (0.4, 0.8)
#: Keeps the logarithm finite for an image without edges; a fortieth of one of 256 grey levels.
FLAT: Final = 1e-4
_CHUNK: Final = 256


@dataclass(frozen=True)
class OutOfDistributionDetector:
    """Detector of images whose colour and texture differ from those of the training images.

    Attributes:
        mean: float64, shape (d,); means of the d measures.
        scale: float64, shape (d,); standard deviations of the measures.
        whitening: float64, shape (d, d); standardised measures times it are uncorrelated.
        limit: the distance that the share ``WITHIN`` of validation images does not exceed.
        n_train: number of training images that were measured.
        n_val: number of validation images that were measured.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    whitening: NDArray[np.float64]
    limit: float
    n_train: int
    n_val: int

    def relative_distance(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the distances of images from the training images, divided by the limit.

        An image does not resemble the training images if its distance, float32, is above 1. The
        pixels are uint8, shape (n, s, s, 3), RGB; s is the side of the training images.
        """
        return (self._distances(extract_colour_and_texture(pixels)) / self.limit).astype(np.float32)

    def _distances(self, measures: NDArray[np.float32]) -> NDArray[np.float64]:
        standardised = (measures - self.mean) / self.scale
        distances: NDArray[np.float64] = np.linalg.norm(standardised @ self.whitening, axis=1)
        return distances

    def text(self) -> str:
        """Return the detector as JSON."""
        content = {
            k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()
        }
        return json.dumps({"version": VERSION, "within": WITHIN, **content})

    @classmethod
    def read(cls, text: str) -> Self | None:
        """Read a detector from JSON that ``text`` wrote; return None if it has another version.

        Raises:
            ValueError: the text is not a detector.
        """
        try:
            content = dict(parse_json(text))
            if content.get("version") != VERSION:
                return None
            arrays = {k: np.array(content[k], np.float64) for k in ("mean", "scale", "whitening")}
            found = cls(
                **arrays,
                limit=float(content["limit"]),
                n_train=int(content["n_train"]),
                n_val=int(content["n_val"]),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"missing or of another kind: {error}") from error
        d = extract_colour_and_texture(np.zeros((1, 1, 1, 3), np.uint8)).shape[1]
        shapes = [array.shape for array in arrays.values()]
        sound = all(np.isfinite(array).all() for array in arrays.values())
        if shapes != [(d,), (d,), (d, d)] or not sound or not 0 < found.limit < np.inf:
            raise ValueError(f"expected finite numbers of shapes {(d,)}, {(d,)} and {(d, d)}")
        return found


def fit_detector_to_dataset(data: PreparedData) -> OutOfDistributionDetector | None:
    """Fit a detector to a dataset's training and validation images.

    Return None if there are fewer than two training images or no validation images.
    """
    train = _sample_pixels(data, TRAIN, TRAINING_IMAGES)
    val = _sample_pixels(data, VAL, VALIDATION_IMAGES)
    return (
        fit_detector(_measure_all(train), _measure_all(val))
        if len(train) > 1 and len(val)
        else None
    )


def fit_detector(train: NDArray[np.float32], val: NDArray[np.float32]) -> OutOfDistributionDetector:
    """Fit a detector to measures.

    Args:
        train: float32, shape (n, d), n > 1; measures of training images.
        val: float32, shape (m, d), m > 0; measures of validation images, which set the limit.
    """
    from sklearn.covariance import ledoit_wolf

    mean = train.mean(axis=0, dtype=np.float64)
    scale = train.std(axis=0, dtype=np.float64) + 1e-6  # a measure may be constant
    covariance, _ = ledoit_wolf((train - mean) / scale, assume_centered=True)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance + 1e-6 * np.eye(len(mean))))
    fitted = OutOfDistributionDetector(mean, scale, whitening, 1.0, len(train), len(val))
    limit = float(np.quantile(fitted._distances(val), WITHIN))  # noqa: SLF001 - its own
    return OutOfDistributionDetector(mean, scale, whitening, limit, len(train), len(val))


def extract_colour_and_texture(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Measure the colour and texture of images.

    Args:
        pixels: uint8, shape (n, s, s, 3), RGB.

    Returns:
        float32, shape (n, 30). The ten measures are those of three channels: brightness, red minus
        green, and the mean of red and green minus blue. They are the channel's mean at the centre,
        in the middle and at the edge, its standard deviation, and at each scale the logarithms of
        the mean difference of neighbouring pixels and of the ratio of horizontal to vertical
        differences.
    """
    small = [Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BOX) for p in pixels]
    red, green, blue = np.moveaxis(np.stack(list(map(np.asarray, small))), -1, 0) / np.float32(255)
    brightness = (red + green + blue) / 3
    channels = np.stack([brightness, red - green, (red + green) / 2 - blue], axis=1)
    flat = channels.reshape(len(pixels), 3, -1)
    measures = [*np.moveaxis(flat @ _make_ring_weights().T, -1, 0), flat.std(axis=2)]
    for _ in range(SCALES):
        across = np.abs(np.diff(channels, axis=3)).mean(axis=(2, 3)) + FLAT
        down = np.abs(np.diff(channels, axis=2)).mean(axis=(2, 3)) + FLAT
        measures += [np.log(across + down), np.log(across / down)]
        n, c, height, width = channels.shape
        channels = channels.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    return np.concatenate(measures, axis=1)


def _make_ring_weights() -> NDArray[np.float32]:
    """Return weights, shape (3, SIDE * SIDE), of the means over centre, middle and edge."""
    steps = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    ring = np.digitize(np.hypot(steps[:, None], steps), RINGS).ravel()
    masks: NDArray[np.float32] = np.eye(len(RINGS) + 1, dtype=np.float32)[ring].T
    masks /= masks.sum(axis=1, keepdims=True)
    return masks


def _sample_pixels(data: PreparedData, split: str, most: int) -> Any:
    """Return at most ``most`` images of a split.

    They are evenly spaced over its rows, because these may be sorted by class or by name.
    """
    rows = data.rows[data.select_split(split)]
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)
    return data.pixels[np.sort(rows[chosen])]


def _measure_all(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return ``extract_colour_and_texture`` of all images, computed in chunks to save memory."""
    return np.concatenate(
        [
            extract_colour_and_texture(pixels[first : first + _CHUNK])
            for first in range(0, len(pixels), _CHUNK)
        ]
    )
