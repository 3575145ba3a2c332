"""Copies are found, lookalikes are not, and odd input does no harm."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageEnhance
from scipy.ndimage import gaussian_filter

from melanoma_lab.audit import candidates, descriptors, near_duplicates
from melanoma_lab.audit.alignment import (
    band_pass,
    invert,
    propose_shifts,
    propose_turns,
    refine,
    score_detail_agreement,
    similarity_transform,
    warp_planes,
)
from melanoma_lab.audit.candidates import find_nearest_pairs
from melanoma_lab.audit.descriptors import compute_fingerprints, reduce_size
from melanoma_lab.audit.near_duplicates import IDENTICAL, find_near_duplicates

pytestmark = pytest.mark.unit

HAM10000 = Path(__file__).parents[2].parent / "shared" / "data" / "ham10000"
SIDE = 96
SEED = 2  # Augmentor draws from the global generator: this seed gives it ten degrees

Images = NDArray[np.uint8]


def draw_lesions(n: int, side: int = SIDE, seed: int = 0) -> Images:
    """Draw round brown spots on pale skin: alike in everything but their fine texture."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side * 2 - 1
    images = np.empty((n, side, side, 3), np.uint8)
    for index in range(n):
        cx, cy = rng.uniform(-0.15, 0.15, 2)
        radius = rng.uniform(0.35, 0.55)
        wobble = gaussian_filter(rng.standard_normal((side, side)), side / 12)
        spot = 1 / (1 + np.exp((np.hypot(x - cx, y - cy) - radius - wobble) * 20))
        grain = gaussian_filter(rng.standard_normal((side, side)), 1.2) * 25
        coarse = gaussian_filter(rng.standard_normal((side, side)), side / 20) * 120
        skin = np.array([225, 185, 170]) + rng.normal(0, 5, 3)
        lesion = np.array([130, 85, 60]) + rng.normal(0, 5, 3)
        picture = skin + spot[..., None] * (lesion - skin) + (grain + coarse)[..., None]
        images[index] = np.clip(picture, 0, 255).astype(np.uint8)
    return images


def encode(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    width, height = image.size
    box = (width * left, height * top, width * (1 - right), height * (1 - bottom))
    return image.crop(tuple(round(edge) for edge in box))


def augmentor(image: Image.Image) -> Image.Image:
    operations = pytest.importorskip("Augmentor.Operations")
    random.seed(SEED)
    operation = operations.RotateRange(probability=1, max_left_rotation=10, max_right_rotation=10)
    return operation.perform_operation([image])[0]


CHANGES = {
    "quality": (lambda image: encode(image, 40), "re-encoded or brightness"),
    "smaller": (lambda image: image.resize((64, 64)), "re-encoded or brightness"),
    "brighter": (
        lambda image: ImageEnhance.Brightness(image).enhance(1.1),
        "re-encoded or brightness",
    ),
    "darker": (
        lambda image: ImageEnhance.Brightness(image).enhance(0.9),
        "re-encoded or brightness",
    ),
    "contrast": (
        lambda image: ImageEnhance.Contrast(image).enhance(1.15),
        "re-encoded or brightness",
    ),
    "flipped": (
        lambda image: encode(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), 90),
        "flipped",
    ),
    "upside down": (
        lambda image: encode(image.transpose(Image.Transpose.FLIP_TOP_BOTTOM), 90),
        "flipped",
    ),
    "quarter turn": (
        lambda image: encode(image.transpose(Image.Transpose.ROTATE_90), 90),
        "turned by 90°",
    ),
    "half turn": (
        lambda image: encode(image.transpose(Image.Transpose.ROTATE_180), 90),
        "turned by 180°",
    ),
    "transposed": (
        lambda image: encode(image.transpose(Image.Transpose.TRANSPOSE), 90),
        "flipped, turned by 90°",
    ),
    "cropped": (lambda image: crop(image, 0.1, 0.1, 0.1, 0.1), "cropped"),
    "cropped on two sides": (lambda image: crop(image, 0.1, 0.08, 0.0, 0.0), "cropped"),
    "Augmentor": (augmentor, "rotated, cropped"),
}


def change_all(images: Images, change: object) -> Images:
    side = images.shape[1]
    return np.stack(
        [
            np.asarray(change(Image.fromarray(image)).resize((side, side)))  # type: ignore[operator]
            for image in images
        ]
    )


@pytest.fixture(scope="module")
def lesions() -> Images:
    return draw_lesions(40)


@pytest.fixture(scope="module")
def photographs() -> Images:
    """One image of each of 300 lesions of HAM10000."""
    if not HAM10000.is_dir():
        pytest.skip("needs the HAM10000 images in ../shared/data")
    table = pd.read_csv(HAM10000 / "HAM10000_metadata.csv").drop_duplicates("lesion_id")
    names = table["image_id"].sample(300, random_state=0)
    opened = (Image.open(HAM10000 / "images" / f"{name}.jpg") for name in names)
    return np.stack([np.asarray(image.convert("RGB").resize((128, 128))) for image in opened])


class TestCopiesAreFound:
    @pytest.mark.parametrize("name", CHANGES)
    def test_every_kind_of_change(self, lesions: Images, name: str) -> None:
        change, kind = CHANGES[name]
        n = 8
        both = np.concatenate([lesions, change_all(lesions[:n], change)])

        found = find_near_duplicates(both)

        expected = [(index, len(lesions) + index) for index in range(n)]
        assert list(zip(found["first"], found["second"], strict=True)) == expected
        assert set(found["kind"]) == {kind}
        assert found["score"].between(near_duplicates.MIN_SCORE, 1.0).all()

    def test_two_copies_turned_apart_meet_in_one_pair(self, lesions: Images) -> None:
        left = change_all(lesions[:5], augmentor)
        right = change_all(lesions[:5, :, ::-1], augmentor)  # the mirror image, turned likewise

        found = find_near_duplicates(np.concatenate([lesions[5:], left, right]))

        assert list(found["second"] - found["first"]) == [5] * 5

    def test_on_photographs(self, photographs: Images) -> None:
        n = 10
        copies = [change_all(photographs[:n], change) for change, _ in CHANGES.values()]

        found = find_near_duplicates(photographs, against=np.concatenate(copies))

        # Each of the 130 copies is named with its own original and with no other.
        assert sorted(found["second"]) == list(range(n * len(CHANGES)))
        assert (found["first"] == found["second"] % n).all()


class TestLookalikesAreNot:
    def test_drawn_lesions(self, lesions: Images) -> None:
        assert find_near_duplicates(lesions).empty

    def test_photographs_of_different_lesions(self, photographs: Images) -> None:
        assert find_near_duplicates(photographs, n_neighbours=20).empty

    def test_a_rim_and_a_ruler_shared_by_all(self, lesions: Images) -> None:
        shared = lesions.copy()
        y, x = np.mgrid[:SIDE, :SIDE] / SIDE * 2 - 1
        shared[:, np.hypot(x, y) > 0.95] = 5
        shared[:, 80:84, 10:86:6] = 20

        assert find_near_duplicates(shared).empty

    def test_constant_images_are_duplicates_only_where_identical(self) -> None:
        images = np.zeros((12, 64, 64, 3), np.uint8)
        for index, level in enumerate([0, 0, 0, 1, 128, 200, 254, 255, 255, 30, 31, 32]):
            images[index] = level

        found = find_near_duplicates(images)

        assert found[["first", "second"]].to_numpy().tolist() == [[0, 1], [0, 2], [7, 8]]
        assert set(found["kind"]) == {IDENTICAL}

    def test_smooth_gradients_are_no_clique(self) -> None:
        y, x = np.mgrid[:64, :64] / 63
        slopes = np.linspace(0.2, 1.0, 10)
        images = np.stack(
            [np.repeat((50 + 150 * (s * x + (1 - s) * y))[..., None], 3, axis=2) for s in slopes]
        ).astype(np.uint8)

        assert find_near_duplicates(images).empty


class TestOddInput:
    @pytest.mark.parametrize("side", [32, 180])
    @pytest.mark.parametrize("n", [0, 1, 2])
    def test_few_images(self, n: int, side: int) -> None:
        found = find_near_duplicates(draw_lesions(n, side))

        assert found.empty
        assert list(found.columns) == ["first", "second", "score", "kind"]
        assert [dtype.kind for dtype in found.dtypes[:3]] == ["i", "i", "f"]

    @pytest.mark.parametrize("side", [32, 48, 64, 180])
    def test_a_lone_pair_of_any_size(self, side: int) -> None:
        original = draw_lesions(1, side)
        both = np.concatenate([original, change_all(original[:, ::-1], CHANGES["quality"][0])])

        found = find_near_duplicates(both)

        assert found[["first", "second", "kind"]].to_numpy().tolist() == [[0, 1, "flipped"]]

    def test_all_images_identical_are_tied_to_the_first(self, lesions: Images) -> None:
        found = find_near_duplicates(np.repeat(lesions[:1], 50, axis=0))

        assert found["first"].tolist() == [0] * 49
        assert found["second"].tolist() == list(range(1, 50))
        assert found["score"].eq(1.0).all()

    @pytest.mark.parametrize(
        "images",
        [
            np.zeros((2, 64, 64), np.uint8),
            np.zeros((2, 64, 48, 3), np.uint8),
            np.zeros((2, 31, 31, 3), np.uint8),
            np.zeros((2, 64, 64, 3), np.float32),
        ],
        ids=["no channels", "not square", "too small", "not uint8"],
    )
    def test_wrong_arrays_are_refused(self, images: Images) -> None:
        with pytest.raises(ValueError, match=r"Expected images .* Received"):
            find_near_duplicates(images)
        with pytest.raises(ValueError, match=r"Expected images .* Received"):
            find_near_duplicates(draw_lesions(1), against=images)


class TestBetweenTwoSets:
    def test_only_pairs_across(self, lesions: Images) -> None:
        first = np.concatenate([lesions[:10], lesions[:1]])  # 0 and 10 are identical
        copies = change_all(lesions[[3, 0, 20]], CHANGES["cropped"][0])
        second = np.concatenate([lesions[[5]], copies, copies])

        found = find_near_duplicates(first, against=second)

        pairs = set(zip(found["first"], found["second"], strict=True))
        # Which of two identical images of the second set is named does not matter.
        assert {(a, b - 3 if b > 3 else b) for a, b in pairs} == {(5, 0), (3, 1), (0, 2), (10, 2)}
        assert found.set_index("first")["kind"][5] == IDENTICAL

    def test_sizes_may_differ(self, lesions: Images) -> None:
        larger = np.stack(
            [np.asarray(Image.fromarray(image).resize((150, 150))) for image in lesions[:6]]
        )

        found = find_near_duplicates(larger, against=lesions)

        assert found["first"].tolist() == found["second"].tolist() == list(range(6))

    def test_nothing_against_nothing(self, lesions: Images) -> None:
        assert find_near_duplicates(lesions[:0], against=lesions[:3]).empty
        assert find_near_duplicates(lesions[:3], against=lesions[:0]).empty


class TestTheResultIsAFunctionOfTheImages:
    @pytest.fixture(scope="class")
    @staticmethod
    def mixed(lesions: Images) -> Images:
        changed = [change_all(lesions[:6], CHANGES[name][0]) for name in ("cropped", "Augmentor")]
        return np.concatenate([lesions[:25], *changed, lesions[:2]])

    def test_same_input_same_output(self, mixed: Images) -> None:
        pd.testing.assert_frame_equal(find_near_duplicates(mixed), find_near_duplicates(mixed))

    def test_order_does_not_matter(self, mixed: Images) -> None:
        order = np.random.default_rng(1).permutation(len(mixed))

        def groups(found: pd.DataFrame, names: NDArray[np.intp]) -> set[frozenset[int]]:
            sets = {int(name): {int(name)} for name in names}
            for a, b in zip(names[found["first"]], names[found["second"]], strict=True):
                joined = sets[int(a)] | sets[int(b)]
                sets.update(dict.fromkeys(joined, joined))
            return {frozenset(group) for group in sets.values()}

        straight = find_near_duplicates(mixed)
        shuffled = find_near_duplicates(mixed[order])

        assert groups(straight, np.arange(len(mixed))) == groups(shuffled, order)
        assert sorted(straight["score"]) == pytest.approx(sorted(shuffled["score"]), abs=1e-3)

    def test_blocks_and_threads_do_not_matter(
        self, mixed: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = find_near_duplicates(mixed, n_threads=1)
        monkeypatch.setattr(near_duplicates, "_PAIRS_AT_ONCE", 7)
        monkeypatch.setattr(near_duplicates, "_FINE_PAIRS_AT_ONCE", 3)
        monkeypatch.setattr(descriptors, "_IMAGES_AT_ONCE", 5)
        monkeypatch.setattr(candidates, "_ROWS_AT_ONCE", 5)
        monkeypatch.setattr("melanoma_lab.audit.descriptors._BLOCK", 5)

        blocked = find_near_duplicates(mixed, n_threads=3)

        pd.testing.assert_frame_equal(whole, blocked, rtol=1e-3)

    def test_the_score_cut_is_a_cut(self, mixed: Images) -> None:
        loose, strict = (find_near_duplicates(mixed, min_score=cut) for cut in (0.55, 0.985))

        kept = loose[loose["score"] >= 0.985].reset_index(drop=True)
        assert 0 < len(strict) < len(loose)
        pd.testing.assert_frame_equal(kept, strict)

    def test_every_step_tells_its_progress_to_the_end(
        self, lesions: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(near_duplicates, "_FEW_PAIRS", 0)
        told: list[tuple[int, int]] = []

        find_near_duplicates(lesions, progress=lambda done, total: told.append((done, total)))

        finished = [total for done, total in told if done == total]
        assert finished[:2] == [len(lesions)] * 2  # described, and neighbours sought
        assert len(finished) == 3
        assert all(0 < done <= total for done, total in told)

    def test_a_memory_map_will_do(self, mixed: Images, tmp_path: Path) -> None:
        np.save(tmp_path / "images.npy", mixed)
        mapped = np.load(tmp_path / "images.npy", mmap_mode="r")

        pd.testing.assert_frame_equal(find_near_duplicates(mapped), find_near_duplicates(mixed))


class TestParts:
    @pytest.mark.parametrize("turn", range(4))
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_features_do_not_see_flips_and_quarter_turns(
        self, lesions: Images, mirrored: bool, turn: int
    ) -> None:
        moved = np.rot90(lesions[:, :, ::-1] if mirrored else lesions, turn, axes=(1, 2))

        original, changed = (
            compute_fingerprints(lesions),
            compute_fingerprints(np.ascontiguousarray(moved)),
        )

        spread = original.features.std(axis=0).max()
        np.testing.assert_allclose(original.features, changed.features, atol=0.02 * spread)

    @pytest.mark.parametrize("turn", range(4))
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_both_hypotheses_lay_a_moved_image_over_its_original(
        self, lesions: Images, mirrored: bool, turn: int
    ) -> None:
        moved = np.rot90(lesions[:, ::-1] if mirrored else lesions, turn, axes=(1, 2))
        first, second = (
            compute_fingerprints(lesions),
            compute_fingerprints(np.ascontiguousarray(moved)),
        )
        a = first.thumbnails.astype(np.float32)
        b = second.thumbnails.astype(np.float32)

        by_turn = propose_turns(first.harmonics, second.harmonics)
        by_shift = propose_shifts(band_pass(a, 8.0), band_pass(b, 8.0))

        for transform in (by_turn, by_shift):
            aligned, inside = warp_planes(b, transform, a.shape[1])
            difference = np.abs(aligned - a.reshape(len(a), -1))[inside]
            assert difference.mean() < 2.0  # grey levels: rounding and interpolation

    @pytest.mark.parametrize("scale", [0.8, 1 / 0.8])
    @pytest.mark.parametrize("mirrored", [False, True])
    def test_shift_hypotheses_know_the_scales_that_they_are_asked_for(
        self, lesions: Images, mirrored: bool, scale: float
    ) -> None:
        whole = lesions[:10].mean(axis=3, dtype=np.float32)
        turn = np.full(10, np.pi / 2)
        truth = similarity_transform(np.full(10, mirrored), turn, np.full(10, 0.8))
        truth[:, 0, 2] = 0.1
        part = warp_planes(whole, truth, SIDE)[0].reshape(whole.shape)
        pair = (part, whole) if scale < 1 else (whole, part)
        expected = truth if scale < 1 else invert(truth)

        found = propose_shifts(*(band_pass(grey, 3.0) for grey in pair), (1.0, scale))

        np.testing.assert_allclose(found, expected, atol=2.5 / SIDE)

    def test_what_the_first_alignment_gets_wrong_the_second_mends(
        self, lesions: Images, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        copies = change_all(lesions[:10], CHANGES["cropped"][0])
        upside_down = similarity_transform(np.zeros(1, bool), np.full(1, np.pi), np.ones(1))
        monkeypatch.setattr(
            near_duplicates.alignment, "propose_turns", lambda a, _: upside_down.repeat(len(a), 0)
        )
        once = near_duplicates.alignment.propose_shifts
        monkeypatch.setattr(
            near_duplicates.alignment,
            "propose_shifts",
            lambda a, b, scales=None: (
                once(a, b, scales) if scales else upside_down.repeat(len(a), axis=0)
            ),
        )
        monkeypatch.setattr(near_duplicates, "_COARSE_CORRELATION", -1.0)
        monkeypatch.setattr(near_duplicates, "_COARSE_SCORE", -1.0)
        both = find_near_duplicates(lesions[:10], against=copies)
        monkeypatch.setattr(near_duplicates, "_DOUBTFUL_SCORE", -1.0)
        first_only = find_near_duplicates(lesions[:10], against=copies)

        assert both["first"].tolist() == both["second"].tolist() == list(range(10))
        assert len(first_only) < 5

    def test_refinement_recovers_a_known_transform(self, lesions: Images) -> None:
        grey = lesions[:10].mean(axis=3, dtype=np.float32)
        truth = similarity_transform(np.zeros(10, bool), np.full(10, 0.06), np.full(10, 0.95))
        truth[:, :, 2] = 0.03
        first = warp_planes(grey, truth, SIDE)[0].reshape(-1, SIDE, SIDE)
        start = similarity_transform(np.zeros(10, bool), np.zeros(10), np.ones(10))

        found, correlation = refine(band_pass(first, 8.0), band_pass(grey, 8.0), start, 25)

        np.testing.assert_allclose(found, truth, atol=0.01)
        assert correlation.min() > 0.95

    def test_agreement_of_details_is_one_for_equals_and_zero_for_strangers(
        self, lesions: Images
    ) -> None:
        grey = lesions.mean(axis=3, dtype=np.float32)
        identity = similarity_transform(
            np.zeros(len(grey), bool), np.zeros(len(grey)), np.ones(len(grey))
        )

        same = score_detail_agreement(grey, grey * 0.8 + 10, identity, 3.0)
        other = score_detail_agreement(grey, np.roll(grey, 1, axis=0), identity, 3.0)

        assert same.min() > 0.98
        assert np.abs(other).max() < 0.25
        assert np.abs(other.mean()) < 0.05

    def test_areas_are_averaged(self) -> None:
        plane = np.arange(16, dtype=np.float32).reshape(1, 4, 4)

        np.testing.assert_allclose(reduce_size(plane, 2), [[[2.5, 4.5], [10.5, 12.5]]])
        # From 3 to 2, the middle pixel counts half on either side.
        np.testing.assert_allclose(
            reduce_size(np.tile([[0.0, 3.0, 6.0]], (3, 1))[None].astype(np.float32), 2)[0, 0],
            [1.0, 5.0],
            rtol=1e-6,
        )

    def test_nearest_pairs_are_those_of_a_full_matrix(self) -> None:
        vectors = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = vectors @ vectors.T
        np.fill_diagonal(cosine, -np.inf)
        expected = {
            (min(i, j), max(i, j))
            for i in range(60)
            for j in np.argsort(-cosine[i])[:4]
            if cosine[i, j] >= 0.8
        }

        found = find_nearest_pairs(vectors, n_neighbours=4, min_similarity=0.8)

        assert {tuple(pair) for pair in found.tolist()} == expected
        assert len(found) == len(expected) > 20
