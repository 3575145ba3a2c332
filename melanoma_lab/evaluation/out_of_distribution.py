"""Does a picture look like the training images? Colour and texture, whatever the network.

A network answers anything, a photograph of a palace included. What is measured here is the picture
itself: colours at its centre and its edge, their spread, and how strong and how directed edges are
at three scales. The distance is Mahalanobis's, with the covariance of Ledoit and Wolf (2004, "A
well-conditioned estimator for large-dimensional covariance matrices"). Lee et al. (2018, "A simple
unified framework for detecting out-of-distribution samples") take it of a network's features; that
would depend on the architecture and cost another pass, and pixels are decoded anyway.

Fitted to training images; the limit is a quantile of validation images, which it was not fitted to.
NumPy and Pillow alone, and a small JSON file that says all of it.
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

if TYPE_CHECKING:  # as slow to load as it is seldom needed
    from melanoma_lab.input_pipeline.prepare import PreparedData

#: What a reference is called beside its network.
FILE: Final = "appearance.json"
#: Part of every file: raise it when ``extract_colour_and_texture`` gives something else.
VERSION: Final = 1
#: Share of validation images that lie within the limit.
WITHIN: Final = 0.99
#: Images that are measured at most: enough for the covariance, and for a quantile of 99 %.
TRAINING_IMAGES, VALIDATION_IMAGES = 1500, 1000
#: Pictures are measured at this side; scales are it, a half and a quarter of it.
SIDE: Final = 48
SCALES: Final = 3
#: Distances from the centre, in shares of half a side, that divide it into centre, middle and edge.
RINGS: Final = (0.4, 0.8)
#: Keeps the logarithm of a picture without edges finite; a fortieth of a step of 8 bits.
FLAT: Final = 1e-4
_CHUNK: Final = 256


@dataclass(frozen=True)
class OutOfDistributionDetector:
    """What the training images look like.

    Attributes:
        mean: float64, shape (d,), of the measures.
        scale: float64, shape (d,), their standard deviations.
        whitening: float64, shape (d, d); standardised measures times it are uncorrelated.
        limit: the distance that the share ``WITHIN`` of validation images does not exceed.
        n_train: training images that were measured.
        n_val: validation images that were measured.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    whitening: NDArray[np.float64]
    limit: float
    n_train: int
    n_val: int

    def relative_distance(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """How far pictures are from the training images; above 1 they look unlike them.

        Args:
            pixels: uint8, shape (n, s, s, 3), RGB, of the side that the training images have.

        Returns:
            float32, shape (n,): the distance, in limits.
        """
        return (self._distances(extract_colour_and_texture(pixels)) / self.limit).astype(np.float32)

    def _distances(self, measures: NDArray[np.float32]) -> NDArray[np.float64]:
        standardised = (measures - self.mean) / self.scale
        distances: NDArray[np.float64] = np.linalg.norm(standardised @ self.whitening, axis=1)
        return distances

    def text(self) -> str:
        """As JSON."""
        content = {
            k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in asdict(self).items()
        }
        return json.dumps({"version": VERSION, "within": WITHIN, **content})

    @classmethod
    def read(cls, text: str) -> Self | None:
        """What ``text`` gave, as a file may have it; None where another version made it.

        Raises:
            ValueError: it is something else.
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
    """What a dataset's training images look like; the test images are not looked at.

    Args:
        data: the split dataset.

    Returns:
        The reference; None where there are no validation images to set its limit by.
    """
    train = _pixels(data, TRAIN, TRAINING_IMAGES)
    val = _pixels(data, VAL, VALIDATION_IMAGES)
    return (
        fit_detector(_measure_all(train), _measure_all(val))
        if len(train) > 1 and len(val)
        else None
    )


def fit_detector(train: NDArray[np.float32], val: NDArray[np.float32]) -> OutOfDistributionDetector:
    """Fit a reference to measures.

    Args:
        train: float32, shape (n, d), n > 1: of training images.
        val: float32, shape (m, d), m > 0: of validation images.
    """
    from sklearn.covariance import ledoit_wolf

    mean = train.mean(axis=0, dtype=np.float64)
    scale = train.std(axis=0, dtype=np.float64) + 1e-6  # what never varies says nothing
    covariance, _ = ledoit_wolf((train - mean) / scale, assume_centered=True)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance + 1e-6 * np.eye(len(mean))))
    fitted = OutOfDistributionDetector(mean, scale, whitening, 1.0, len(train), len(val))
    limit = float(np.quantile(fitted._distances(val), WITHIN))  # noqa: SLF001 - its own
    return OutOfDistributionDetector(mean, scale, whitening, limit, len(train), len(val))


def extract_colour_and_texture(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colour and texture of pictures.

    Args:
        pixels: uint8, shape (n, s, s, 3), RGB.

    Returns:
        float32, shape (n, 30). For brightness, red against green and both against blue: the mean at
        the centre, around it and at the edge, the standard deviation, and for each scale the
        logarithm of the mean step between neighbours and of horizontal against vertical steps.
    """
    small = [Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BOX) for p in pixels]
    red, green, blue = np.moveaxis(np.stack(list(map(np.asarray, small))), -1, 0) / np.float32(255)
    brightness = (red + green + blue) / 3
    channels = np.stack([brightness, red - green, (red + green) / 2 - blue], axis=1)
    flat = channels.reshape(len(pixels), 3, -1)
    found = [*np.moveaxis(flat @ _rings().T, -1, 0), flat.std(axis=2)]
    for _ in range(SCALES):
        across = np.abs(np.diff(channels, axis=3)).mean(axis=(2, 3)) + FLAT
        down = np.abs(np.diff(channels, axis=2)).mean(axis=(2, 3)) + FLAT
        found += [np.log(across + down), np.log(across / down)]
        n, c, height, width = channels.shape
        channels = channels.reshape(n, c, height // 2, 2, width // 2, 2).mean(axis=(3, 5))
    return np.concatenate(found, axis=1)


def _rings() -> NDArray[np.float32]:
    """What takes a flat picture to the means of its centre, of what is around it, and its edge."""
    steps = (np.arange(SIDE) + 0.5) / SIDE * 2 - 1
    which = np.digitize(np.hypot(steps[:, None], steps), RINGS).ravel()
    masks: NDArray[np.float32] = np.eye(len(RINGS) + 1, dtype=np.float32)[which].T
    masks /= masks.sum(axis=1, keepdims=True)
    return masks


def _pixels(data: PreparedData, split: str, most: int) -> Any:
    """Some images of a split, evenly spaced over its rows, which lie class by class or by name."""
    rows = data.rows[data.select_split(split)]
    chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(np.int64)
    return data.pixels[np.sort(rows[chosen])]


def _measure_all(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``extract_colour_and_texture``, in parts that need little memory."""
    return np.concatenate(
        [
            extract_colour_and_texture(pixels[first : first + _CHUNK])
            for first in range(0, len(pixels), _CHUNK)
        ]
    )
