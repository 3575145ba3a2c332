"""The report as a browser shows it: on a phone, in the dark, on paper, to a colour-blind reader."""

from io import BytesIO
from itertools import combinations

import numpy as np
import pytest
from PIL import Image, ImageCms

from melanoma_lab.comparison.compare import compare_study
from melanoma_lab.comparison.report import write_comparison_report
from melanoma_lab.comparison.warnings import find_warnings
from melanoma_lab.plots.style import BLUE, CYCLE, VERMILLION
from tests.support.pages import SCROLLING, opened, pale, too_wide

pytestmark = pytest.mark.unit

LONG = "baseline,architecture.blocks=[1,2,2,2],architecture.batch_norm=false,balancing=oversample"


@pytest.fixture(scope="module")
def report(tracked, tmp_path_factory):
    """A report with everything in it, long names too."""
    name = tracked.fill(
        {
            "baseline": (1.0, ""),
            "dropout": (2.5, "baseline"),
            "dropout_sgd": (0.4, "dropout"),
            LONG: (1.1, "baseline"),
        },
        notes="12 images are left out.",
    )
    study = tracked.load(name)
    comparison = compare_study(study)
    folder = tmp_path_factory.mktemp("report")
    warnings = find_warnings(study, comparison)
    return write_comparison_report(
        folder, study, comparison, warnings, again="python -m melanoma_lab"
    )


@pytest.mark.parametrize("width", [360, 800, 1400])
def test_nothing_sticks_out_of_any_screen(browser, report, width):
    with opened(browser, report, width) as page:
        assert too_wide(page) == []
        assert page.evaluate(SCROLLING) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read(browser, report, scheme):
    with opened(browser, report, 800, scheme) as page:
        assert pale(page) == []


def test_a_phone_names_every_figure_of_a_table(browser, report):
    with opened(browser, report, 360) as page:
        cell = page.locator("td[data-label='melanoma sensitivity']").first
        shown = cell.evaluate("cell => getComputedStyle(cell, '::before').content")
        assert shown == '"melanoma sensitivity"'
        assert cell.bounding_box()["x"] < 40


def test_figures_are_dark_in_the_dark(browser, report):
    for scheme, paper in (("light", 255), ("dark", 23)):
        with opened(browser, report, 800, scheme) as page:
            figure = page.locator("figure img").first.screenshot()
            pixels = np.asarray(Image.open(BytesIO(figure)).convert("L"))
        assert abs(float(np.median(pixels)) - paper) <= 4
        assert np.ptp(pixels) > 200  # the words stand out as much as on paper


def test_paper_has_what_only_a_click_shows_on_a_screen(browser, report):
    page = browser.new_page(viewport={"width": 800, "height": 800})
    page.goto(report.as_uri())
    hidden = page.locator("td", has_text="+").last
    assert not hidden.is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert hidden.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert pale(page) == []
    assert page.locator("figure img").first.evaluate("e => getComputedStyle(e).filter") == "none"
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.close()


@pytest.mark.parametrize("deficiency", ["deuteranopia", "protanopia", "tritanopia"])
def test_colours_are_told_apart_by_the_colour_blind(browser, deficiency):
    page = browser.new_page(viewport={"width": 400, "height": 50})
    colours = (*CYCLE, VERMILLION)
    page.set_content("".join(f"<i style='background:{c};padding:20px'></i>" for c in colours))
    page.add_style_tag(content="body { margin: 0; font-size: 0 }")
    session = page.context.new_cdp_session(page)
    session.send("Emulation.setEmulatedVisionDeficiency", {"type": deficiency})
    lab = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    seen = Image.open(BytesIO(page.screenshot())).convert("RGB")
    page.close()
    swatches = np.asarray(ImageCms.applyTransform(seen, lab))[10, 20 : 40 * len(colours) : 40]
    as_lab = dict(zip(colours, swatches.astype(float) * [100 / 255, 1, 1], strict=True))
    distance = {
        pair: float(np.linalg.norm(as_lab[pair[0]] - as_lab[pair[1]]))
        for pair in combinations(colours, 2)
    }
    # Arms differ in their markers and dashes as well; a verdict's two colours stand far apart.
    assert min(distance.values()) > 8, distance
    assert distance[BLUE, VERMILLION] > 40
