"""A folder in the manner of the published one, with everything planted that an audit must find."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from melanoma_lab.data.synthetic_dataset import draw_dataset

SIZE = 144


@dataclass(frozen=True)
class Planted:
    """A folder and what was planted in it, by image_id."""

    root: Path
    exact: list[list[str]]
    pixels: list[list[str]]
    near: list[list[str]]
    lesions: list[list[str]]
    conflicts: list[list[str]]
    metadata_conflicts: list[dict[str, str]]
    unreadable: list[str]
    suspicious: list[str]
    test_leaking: list[str]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> list[np.ndarray]:
    """Pictures of different lesions, uint8 (SIZE, SIZE, 3)."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_dataset(folder, classes=["nevus", "melanoma"], lesions=40, image_size=SIZE, seed=3)
    with (folder / "metadata.csv").open() as table:
        first = {row["lesion_id"]: row["image_id"] for row in reversed(list(csv.DictReader(table)))}
    return [
        np.asarray(Image.open(folder / "images" / f"{image_id}.png").convert("RGB"))
        for _, image_id in sorted(first.items())
    ]


@pytest.fixture(scope="session")
def planted(tmp_path_factory, drawn) -> Planted:
    """The folder; drawn pictures are JPEG files in Train and Test of two classes."""
    root = tmp_path_factory.mktemp("planted")
    pictures = iter(drawn)

    def save(image_id: str, pixels: np.ndarray | None = None, quality: int = 92) -> str:
        path = root / image_id
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(next(pictures) if pixels is None else pixels)
        form = "PNG" if path.suffix == ".png" else "JPEG"
        picture.save(path, form, **({} if form == "PNG" else {"quality": quality}))
        return image_id

    def copy(image_id: str, to: str) -> str:
        (root / to).parent.mkdir(parents=True, exist_ok=True)
        (root / to).write_bytes((root / image_id).read_bytes())
        return to

    def pixels_of(image_id: str) -> np.ndarray:
        return np.asarray(Image.open(root / image_id).convert("RGB"))

    for i in range(5):  # nothing wrong with these
        for part in ("Train", "Test"):
            for label in ("melanoma", "nevus"):
                save(f"{part}/{label}/{i}.jpg")

    a = save("Train/melanoma/twice.jpg")
    same_class = [a, copy(a, "Test/melanoma/another name.jpg")]
    b = save("Train/melanoma/contradicted.jpg")
    other_class = [b, copy(b, "Train/nevus/contradicted.jpg")]
    c = save("Train/nevus/as-png.png")
    same_pixels = [c, save("Train/nevus/as-png-again.png", pixels_of(c))]
    (root / c).write_bytes(_repacked(root / c))

    d = save("Train/nevus/original.jpg")
    near = [
        d,
        save("Test/nevus/encoded again.jpg", pixels_of(d), quality=60),
        save("Train/nevus/flipped.jpg", np.ascontiguousarray(pixels_of(d)[:, ::-1])),
    ]
    e = save("Train/melanoma/upright.jpg")
    turned = [e, save("Test/melanoma/turned.jpg", np.ascontiguousarray(np.rot90(pixels_of(e))))]

    lesion = [save("Train/melanoma/ISIC_0000001.jpg"), save("Test/melanoma/ISIC_0000002.jpg")]
    relabelled = save("Train/nevus/ISIC_0000003.jpg")
    save("Test/nevus/ISIC_0000004.jpg")
    (root / "metadata.csv").write_text(
        "image_id,lesion_id,isic2019,isic2017,isic2016,source\n"
        "ISIC_0000001,L1,MEL,,,clinic\nISIC_0000002,L1,MEL,,,clinic\n"
        "ISIC_0000003,,MEL,,,clinic\nISIC_0000004,,NV,,,elsewhere\n"
        "ISIC_0000009,,NV,,,elsewhere\n"
    )

    unreadable = [copy(a, "Train/nevus/cut.jpg"), "Train/nevus/empty.jpg", "Test/nevus/text.jpg"]
    (root / unreadable[0]).write_bytes((root / a).read_bytes()[:1500])
    (root / unreadable[1]).touch()
    (root / unreadable[2]).write_text("not a picture")

    suspicious = [
        save("Train/nevus/black.png", np.zeros((64, 64, 3), np.uint8)),
        save("Train/nevus/long.png", next(pictures)[:20].repeat(2, axis=0)),
        save("Train/nevus/tiny.png", next(pictures)[:8, :8]),
        copy(save("Train/nevus/right.png"), "Train/nevus/wrong.jpg"),
    ]
    mislabelled = ["Train/nevus/right.png", "Train/nevus/wrong.jpg"]
    save("Train/spitz nevus/0.jpg")
    return Planted(
        root=root,
        exact=sorted(map(sorted, [same_class, other_class, mislabelled])),
        pixels=[sorted(same_pixels)],
        near=sorted(map(sorted, [same_pixels, near, turned])),
        lesions=[sorted(lesion)],
        conflicts=[sorted(other_class)],
        metadata_conflicts=[
            {"image_id": relabelled, "label": "nevus", "diagnosis": "melanoma"},
        ],
        unreadable=sorted(unreadable),
        suspicious=sorted(suspicious),
        test_leaking=sorted([same_class[1], near[1], turned[1], lesion[1]]),
    )


def _repacked(path: Path) -> bytes:
    """The same pixels in other bytes."""
    stream = io.BytesIO()
    Image.open(path).save(stream, "PNG", compress_level=1)
    assert stream.getvalue() != path.read_bytes()
    return stream.getvalue()
