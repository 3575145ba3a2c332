from concurrent.futures import ThreadPoolExecutor

import pytest

from melanoma_lab.data.cache import load_or_compute_json

pytestmark = pytest.mark.unit


def test_a_question_is_answered_once(tmp_path):
    asked = []

    def find():
        asked.append(1)
        return {"a": [1, "x"]}

    answers = [load_or_compute_json(tmp_path / "kept", ["q", 1], find) for _ in range(3)]
    assert answers == [{"a": [1, "x"]}] * 3
    assert len(asked) == 1
    load_or_compute_json(tmp_path / "kept", ["q", 2], find)
    assert len(asked) == 2


def test_of_several_at_once_one_finds_it(tmp_path):
    asked = []

    def find():
        asked.append(1)
        return 7

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: load_or_compute_json(tmp_path, "q", find), range(8)))
    assert answers == [7] * 8
    assert len(asked) == 1


def test_what_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(TypeError, match="not JSON serializable"):
        load_or_compute_json(tmp_path, "q", object)
    assert list(tmp_path.iterdir()) == []
    assert load_or_compute_json(tmp_path, "q", lambda: 1) == 1
