import pytest

from melanoma_lab.cli.multirun import drop_seed_repeats

pytestmark = pytest.mark.unit


def test_jobs_that_differ_in_their_seeds_are_one():
    batch = [["+experiment=a", "seed=0"], ["+experiment=a", "seed=1"], ["+experiment=b", "seed=0"]]
    assert drop_seed_repeats(batch) == batch[1:]


def test_what_may_be_a_mistake_is_checked():
    batch = [["a=1", "seed=x"], ["a=1", "seed=-1"], ["a=1", "split.seed=0"], ["a=1", "seed=99"]]
    assert drop_seed_repeats(batch) == batch
