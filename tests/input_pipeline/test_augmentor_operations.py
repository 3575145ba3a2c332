"""Augmentor's operations: checked names and arguments, exact probability, RGB of the same size."""

from __future__ import annotations

import inspect
import random
import re
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from melanoma_lab.core.errors import UserError
from melanoma_lab.input_pipeline.augmentor_operations import (
    augment_image,
    build_operations,
    check_operations,
    parse_operations,
    silence_augmentor,
)

pytestmark = pytest.mark.unit

ROTATE = {"rotate": {"probability": 0.7, "max_left_rotation": 10, "max_right_rotation": 10}}

#: Valid values for arguments that have no default, by name.
VALUES: dict[str, Any] = {
    "probability": 1,
    "min_factor": 1.2,
    "max_factor": 1.5,
    "max_left_rotation": 20,
    "max_right_rotation": 20,
    "max_shear_left": 10,
    "max_shear_right": 10,
    "percentage_area": 0.8,
    "width": 20,
    "height": 30,
    "scale_factor": 1.5,
    "grid_width": 4,
    "grid_height": 4,
    "magnitude": 2,
    "corner": "bell",
    "method": "in",
    "rectangle_area": 0.5,
}


def noise(height: int = 36, width: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def all_operations() -> dict[str, dict[str, Any]]:
    """Every operation that Augmentor has, with valid arguments."""
    with warnings.catch_warnings():
        # Where Augmentor is compiled first, Python warns of its docstrings.
        warnings.simplefilter("ignore")
        import Augmentor

    found = {}
    for name, method in inspect.getmembers(Augmentor.Pipeline, inspect.isfunction):
        parameters = inspect.signature(method).parameters
        if "probability" in parameters:
            found[name] = {
                key: VALUES[key]
                for key, parameter in parameters.items()
                if key in VALUES and (parameter.default is parameter.empty or key == "probability")
            }
    return found


def changed(operations: list[Any], seed: int, pixels: np.ndarray) -> np.ndarray:
    with silence_augmentor():
        return augment_image(pixels, build_operations(parse_operations(operations)), seed)


@pytest.mark.parametrize("name", all_operations())
def test_every_operation_changes_an_image_and_keeps_its_form(name: str) -> None:
    operations = [{name: all_operations()[name]}]
    pixels = noise()
    check_operations(operations, image_size=(36, 48))
    copies = [changed(operations, seed, pixels) for seed in range(5)]
    assert {(copy.shape, copy.dtype) for copy in copies} == {(pixels.shape, pixels.dtype)}
    assert any((copy != pixels).any() for copy in copies)


def test_operations_follow_each_other_after_one_that_drops_colour() -> None:
    operations = [
        {"black_and_white": {"probability": 1}},
        {"random_color": {"probability": 1, "min_factor": 1, "max_factor": 2}},
        {"histogram_equalisation": {}},
    ]
    copy = changed(operations, 0, noise())
    np.testing.assert_array_equal(copy[..., 0], copy[..., 1])
    assert len(np.unique(copy)) == 2


def test_the_probability_is_exact() -> None:
    # Pipeline.sample performs an operation asked for at 0.7 in 75 % of the cases: 5 sd from here.
    pixels = noise(4, 4)
    operations = build_operations(parse_operations([{"flip_left_right": {"probability": 0.7}}]))
    n = 2000
    with silence_augmentor():
        fired = sum((augment_image(pixels, operations, i) != pixels).any() for i in range(n))
    assert abs(fired - 0.7 * n) < 3 * (n * 0.7 * 0.3) ** 0.5


def test_the_copy_is_a_function_of_its_seed() -> None:
    # One operation draws from random, the other from numpy.random.
    brightness = {"random_brightness": {"probability": 1, "min_factor": 0.5, "max_factor": 1.5}}
    operations = [ROTATE, brightness]
    first, again, other = (changed(operations, seed, noise()) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    # The seed's upper half counts too.
    assert (changed([brightness], 2**100, noise()) != changed([brightness], 0, noise())).any()


def test_the_original_is_not_touched() -> None:
    pixels = noise()
    before = pixels.copy()
    changed([{"random_erasing": {"probability": 1, "rectangle_area": 0.5}}], 0, pixels)
    np.testing.assert_array_equal(pixels, before)


def test_global_generators_are_not_used() -> None:
    python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    check_operations([ROTATE, {"random_erasing": {"probability": 1, "rectangle_area": 0.5}}])
    assert random.getstate() == python_state
    np.testing.assert_equal(np.random.get_state(), numpy_state)  # noqa: NPY002


def test_augmentor_itself_is_not_changed() -> None:
    import Augmentor.Operations

    pixels = noise()
    changed([ROTATE], 0, pixels)
    assert Augmentor.Operations.random is random
    assert Augmentor.Operations.np is np


def test_threads_do_not_share_random_numbers() -> None:
    operations = [
        {
            "random_distortion": {
                "probability": 1,
                "grid_width": 4,
                "grid_height": 4,
                "magnitude": 5,
            }
        },
        {"random_erasing": {"probability": 1, "rectangle_area": 0.5}},
    ]
    pixels = noise()
    alone = [changed(operations, seed, pixels) for seed in range(40)]
    built = build_operations(parse_operations(operations))
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda seed: augment_image(pixels, built, seed), range(40)))
    np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        ([], "at least one operation"),
        (None, "at least one operation"),
        ("rotate", "at least one operation"),
        (["rotate"], "[0]: expected one operation with its arguments"),
        ([ROTATE | {"invert": {"probability": 1}}], "[0]: expected one operation"),
        ([{"rotate": 0.7}], "[0].rotate: expected arguments by name"),
        ([ROTATE, {"rotat": {}}], "[1]: Augmentor has no operation 'rotat'. Did you mean rotate"),
        ([{"sample": {"n": 3}}], "no operation 'sample'"),
        (
            [{"zoom": {"probability": 1, "min_facto": 1, "max_factor": 2}}],
            "[0].zoom: no argument 'min_facto'. Did you mean min_factor?",
        ),
        ([{"zoom": {"probability": 1}}], "[0].zoom: min_factor and max_factor must be given"),
        ([{"invert": {"probability": 0}}], "probability: expected more than 0, at most 1"),
        ([{"invert": {"probability": 1.01}}], "probability: expected more than 0, at most 1"),
        ([{"invert": {"probability": "high"}}], "probability: expected more than 0, at most 1"),
        ([{"invert": {"probability": float("nan")}}], "probability: expected more than 0"),
        (
            [{"rotate": ROTATE["rotate"] | {"max_left_rotation": 90}}],
            "[0].rotate: The max_left_rotation argument must be between 0 and 25",
        ),
        (
            [
                {
                    "resize": {
                        "probability": 1,
                        "width": 9,
                        "height": 9,
                        "resample_filter": "ANTIALIAS",
                    }
                }
            ],
            "[0].resize: fails on an image of 48x36 pixels",
        ),
        (
            [{"crop_by_size": {"probability": 0.1, "width": 40, "height": 40, "centre": False}}],
            "[0].crop_by_size: fails on an image of 48x36 pixels",
        ),
    ],
)
def test_mistakes_are_named_before_any_image_is_read(operations: object, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        check_operations(operations, image_size=(36, 48))


def test_defaults_are_filled_in_so_that_equal_configurations_are_equal() -> None:
    (short,) = parse_operations([{"black_and_white": {"probability": 1}}])
    (long,) = parse_operations([{"black_and_white": {"threshold": 128, "probability": 1}}])
    assert short == long


def test_a_colour_may_be_a_list() -> None:
    arguments = {"probability": 1, "max_left_rotation": 9, "max_right_rotation": 9}
    operations = [{"rotate_without_crop": arguments | {"fillcolor": [255, 0, 0]}}]
    corners = [
        changed(operations, seed, np.zeros((30, 30, 3), np.uint8))[0, 0] for seed in range(5)
    ]
    assert [255, 0, 0] in [corner.tolist() for corner in corners]


def test_checking_loads_no_tensorflow_and_importing_no_augmentor() -> None:
    program = f"""
import sys
from melanoma_lab.input_pipeline.augmentor_operations import check_operations
assert not {{"Augmentor", "hydra"}} & set(sys.modules)
check_operations([{ROTATE!r}])
assert not {{"tensorflow", "keras", "mlflow", "matplotlib"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
