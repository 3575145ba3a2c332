"""Description of a saved network in its ``MLmodel`` file: enough to use it years later.

This module imports neither TensorFlow nor MLflow.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from melanoma_lab.config.schema.data import Resize
from melanoma_lab.core.version import __version__
from melanoma_lab.data.decoding import DECODING_VERSION

#: Key of the description in the metadata of ``MLmodel``.
METADATA_KEY: Final = "melanoma_lab"
NOTICE: Final = "Research use only: not a medical device; no diagnosis."


@dataclass(frozen=True)
class ModelInfo:
    """Meaning of a network's inputs and outputs.

    Attributes:
        slugs: K class slugs in the order of the outputs.
        classes: the class names in the dataset.
        positive_class: slug of the positive class; None if the dataset names none.
        dataset: name of the dataset that the network was trained on.
        image_size: side of the input images in pixels.
        resize: how images that are not square are made square.
        decoding: version of the conversion of files to pixels.
        encoding: the columns of patient metadata among the inputs, as described in
            ``melanoma_lab.data.patient_metadata``; None if pixels are the only input.
        version: version of the lab that saved the network.
        notice: what the network must not be used for.
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
        """The class names in the dataset, or the slugs if those are unknown."""
        return self.classes or self.slugs

    def metadata(self) -> dict[str, Any]:
        """Return the metadata for ``MLmodel``: lists, strings and numbers under one key."""
        return {METADATA_KEY: {k: _to_plain_value(v) for k, v in asdict(self).items()}}

    @classmethod
    def read(cls, metadata: object) -> Self | None:
        """Read metadata of an ``MLmodel`` file, which may hold anything.

        Args:
            metadata: the metadata, as ``ModelInfo.metadata`` returns it.

        Returns:
            The description; None if the metadata has none.

        Raises:
            ValueError: the lab did not write this metadata.
        """
        if not isinstance(metadata, Mapping) or METADATA_KEY not in metadata:
            return None
        content = metadata[METADATA_KEY]
        content = content if isinstance(content, Mapping) else {}
        slugs, positive_class = _read_names(content.get("slugs")), content.get("positive_class")
        classes = _read_names(content.get("classes"))
        if not slugs or len(set(slugs)) < len(slugs):
            raise ValueError(f"metadata.{METADATA_KEY}.slugs: expected a list of different names")
        kinds: tuple[tuple[str, type], ...] = (
            ("image_size", int),
            ("decoding", int),
            ("encoding", dict),
        )
        wrong = [name for name, kind in kinds if not isinstance(content.get(name), kind | None)]
        if wrong:
            raise ValueError(
                f"metadata.{METADATA_KEY}.{wrong[0]}: is of another kind than the lab writes"
            )
        return cls(
            slugs=slugs,
            classes=classes if len(classes) == len(slugs) else (),
            positive_class=positive_class if positive_class in slugs else None,
            dataset=str(content.get("dataset", "")),
            image_size=content.get("image_size"),
            resize=Resize(content.get("resize", Resize.squash)),
            decoding=content.get("decoding") or DECODING_VERSION,
            encoding=content.get("encoding"),
            version=str(content.get("version", "")),
        )


def _read_names(value: object) -> tuple[str, ...]:
    """Return a list of non-empty names as a tuple; an empty tuple for any other value."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        return ()
    return tuple(value)


def _to_plain_value(value: Any) -> Any:
    if isinstance(value, Resize):
        return value.value
    return list(value) if isinstance(value, tuple) else value
