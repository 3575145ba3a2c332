"""The audit's page as a browser shows it."""

import pytest

from melanoma_lab.api import audit_dataset
from tests.support.pages import opened, pale, too_wide

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def page_file(planted, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("audited")
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        root = f"dataset.root={planted.root}"
        audit_dataset("dataset=isic9", root, verbose=False)
        return folder / "experiments" / "audit-isic9" / "audit.html"


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_sticks_out_of_any_screen(browser, page_file, width):
    with opened(browser, page_file, width) as page:
        assert too_wide(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read(browser, page_file, scheme):
    with opened(browser, page_file, 800, scheme) as page:
        assert pale(page) == []
