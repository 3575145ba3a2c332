"""The reference leaves out no command, group, preset, metric or function."""

import sys

import pytest

import melanoma_lab
from melanoma_lab.config.descriptions import list_options
from melanoma_lab.evaluation import metrics
from melanoma_lab.evaluation.predictions import Predictions
from tests.support.documentation import REPOSITORY
from tests.support.evaluation_cases import random_case, table_of

pytestmark = pytest.mark.unit

DOCS = REPOSITORY / "docs"


@pytest.fixture(scope="module")
def reference():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DOCS / "_ext")
        import reference

        yield reference
        del sys.modules["reference"]


def test_every_group_has_a_page():
    index = (DOCS / "reference" / "index.md").read_text()
    for group in list_options():
        page = f"group-{group.replace('/', '-')}"
        assert f"]({page}.md)" in index
        assert f"\n{page}\n" in index


def test_every_preset_opens_with_its_question(reference):
    presets = reference.list_presets()
    assert len(presets) == len(list((REPOSITORY / "conf" / "experiment").glob("*.yaml")))
    for name, (question, rest) in presets.items():
        assert question.endswith(("?", ".")), name
        assert f"+experiment={name}" in rest


def test_every_metric_of_a_split_is_described(reference):
    told = reference.list_metrics()
    table = Predictions(table_of(random_case(60, 3, seed=0), "test"))
    logged = metrics.compute_split_metrics(table.split("test"), "class_1")
    names = {n.removeprefix("test/").partition("/")[0].removeprefix("class_1_") for n in logged}
    assert names == set(told)
    assert all(text.endswith((".", ")")) for text in told.values())


def test_every_public_name_is_on_the_page_of_python():
    page = (DOCS / "reference" / "python.md").read_text()
    for name in melanoma_lab.__all__:
        assert f":: {name}\n" in page, name
