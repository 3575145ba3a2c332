"""What a kept network says about itself, in its ``MLmodel``: enough to use it years later.

No TensorFlow and no MLflow here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from melanoma_lab.config.schema.dataset import Resize
from melanoma_lab.core.version import __version__
from melanoma_lab.data.decoding import DECODING_VERSION

#: Below which key of the ``MLmodel``'s metadata it stands.
METADATA_KEY: Final = "melanoma_lab"
NOTICE: Final = "Research use only: not a medical device; no diagnosis."


@dataclass(frozen=True)
class ModelInfo:
    """What the numbers that a network takes and gives mean.

    Attributes:
        slugs: K class slugs in the order of its outputs.
        classes: their names as the dataset has them.
        positive_class: slug of the positive class; None where the dataset names none.
        dataset: what it was trained on.
        image_size: side in pixels of the images that it takes.
        resize: what becomes of the proportions of an image that is not square.
        decoding: version of how files became pixels.
        encoding: what the columns that it takes beside pixels hold, as
            ``melanoma_lab.data.patient_metadata`` describes it; None where it takes pixels alone.
        version: of the lab.
        notice: what it must not be used for.
    """

    slugs: tuple[str, ...]
    classes: tuple[str, ...] = ()
    positive_class: str | None = None
    dataset: str = ""
    image_size: int | None = None
    resize: Resize = Resize.squash
    decoding: int = DECODING_VERSION
    encoding: dict[str, Any] | None = None
    version: str = __version__
    notice: str = NOTICE

    @property
    def names(self) -> tuple[str, ...]:
        """The classes as the dataset has them, else their slugs."""
        return self.classes or self.slugs

    def metadata(self) -> dict[str, Any]:
        """As MLflow keeps it: lists, strings and numbers below one key."""
        return {METADATA_KEY: {k: _plain(v) for k, v in asdict(self).items()}}

    @classmethod
    def read(cls, metadata: object) -> Self | None:
        """What ``metadata`` gave, as a file may have it; None where it says nothing.

        Raises:
            ValueError: it is not what ``metadata`` gives.
        """
        if not isinstance(metadata, Mapping) or METADATA_KEY not in metadata:
            return None
        said = metadata[METADATA_KEY]
        said = said if isinstance(said, Mapping) else {}
        slugs, positive_class = _names(said.get("slugs")), said.get("positive_class")
        classes = _names(said.get("classes"))
        if not slugs or len(set(slugs)) < len(slugs):
            raise ValueError(f"metadata.{METADATA_KEY}.slugs: expected a list of different names")
        kinds: tuple[tuple[str, type], ...] = (
            ("image_size", int),
            ("decoding", int),
            ("encoding", dict),
        )
        wrong = [name for name, kind in kinds if not isinstance(said.get(name), kind | None)]
        if wrong:
            raise ValueError(
                f"metadata.{METADATA_KEY}.{wrong[0]}: is of another kind than the lab writes"
            )
        return cls(
            slugs=slugs,
            classes=classes if len(classes) == len(slugs) else (),
            positive_class=positive_class if positive_class in slugs else None,
            dataset=str(said.get("dataset", "")),
            image_size=said.get("image_size"),
            resize=Resize(said.get("resize", Resize.squash)),
            decoding=said.get("decoding") or DECODING_VERSION,
            encoding=said.get("encoding"),
            version=str(said.get("version", "")),
        )


def _names(value: object) -> tuple[str, ...]:
    """A list of names as it should be; empty where it is anything else."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        return ()
    return tuple(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Resize):
        return value.value
    return list(value) if isinstance(value, tuple) else value
