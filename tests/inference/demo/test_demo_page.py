"""The page as it is started from a terminal and used in a browser."""

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

import melanoma_lab as lab
from melanoma_lab.inference.demo.messages import format_percent
from tests.support.pages import pale, too_wide

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).resolve().parent.parent.parent.parent
NOTICE = "Research use only: not a medical device; no diagnosis."


def start(folder, *arguments, port=0):
    return subprocess.Popen(
        [sys.executable, "-m", "melanoma_lab", "demo", f"demo.port={port}", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def serving(folder, *arguments):
    """The address of a page that is ended as by Ctrl-C."""
    process = start(folder, *arguments)
    told = ""
    for line in process.stdout:
        told += line
        if found := re.search(r"Open (http://\S+) in a browser", line):
            told += process.stdout.readline()
            break
    else:
        pytest.fail(told + process.stderr.read())
    try:
        yield found[1]
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert NOTICE in told


@pytest.fixture(scope="module")
def address(trained, session_cache):
    folder, run = trained
    with serving(folder, f"model={run.run_id}", f"cache={session_cache}") as address:
        yield address


@pytest.fixture
def page(browser, address):
    """A window of the page; nothing in it may go elsewhere, and nothing may go wrong."""
    with browser.new_page() as page:
        asked, wrong = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.goto(address)
        yield page
        assert not [url for url in asked if not url.startswith((f"{address}/", "data:"))]
        assert not [what for what in wrong if "status of 422" not in what]


def headline(page):
    heading = page.get_by_role("heading", name=re.compile("^Most probable"))
    heading.wait_for()
    return heading.inner_text()


@pytest.fixture(scope="module")
def predicted(trained, tree):
    """What ``predict`` says of the images."""
    return lab.predict(trained[1], tree, verbose=False).set_index("image_id")


def test_an_image_is_given_and_the_answer_read(page, tree, predicted):
    assert page.get_by_role("note").inner_text() == NOTICE
    page.get_by_label("Image of a lesion").set_input_files(tree / "nevus" / "1.png")
    row = predicted.loc["nevus/1.png"]
    name = {"vascular_lesion": "Vascular lesion"}.get(row["predicted"], row["predicted"])
    expected = format_percent(row[f"calibrated/{row['predicted']}"])
    assert headline(page) == f"Most probable: {name}, {expected}"
    assert f"1.png: {name}, {expected}." in page.get_by_role("status").text_content()
    shares = page.locator(".bars .share").all_inner_texts()
    calibrated = row.filter(like="calibrated/").astype(float)
    assert shares == [format_percent(value) for value in sorted(calibrated, reverse=True)]
    word = "counts" if row["operating_point"] else "does not count"
    assert page.get_by_text(f"it {word} as melanoma").is_visible()
    assert page.locator(".near figure").count() == 6
    assert page.get_by_text("Limitations of this model").is_visible()
    assert page.get_by_role("note").is_visible()


def test_the_class_that_is_explained_can_be_chosen_by_keyboard(page, tree):
    page.get_by_label("Image of a lesion").set_input_files(tree / "nevus" / "1.png")
    headline(page)
    shown = page.locator("[data-explains]:visible")
    first = shown.get_by_role("img").get_attribute("alt")
    page.get_by_role("combobox", name="Grad-CAM of").focus()
    page.keyboard.press("ArrowDown")
    assert shown.count() == 1
    assert shown.get_by_role("img").get_attribute("alt") != first


def test_what_is_no_image_gets_a_message_and_the_next_one_an_answer(page, tree, tmp_path):
    (tmp_path / "letter.jpg").write_text("Dear colleague")
    field = page.get_by_label("Image of a lesion")
    field.set_input_files(tmp_path / "letter.jpg")
    page.get_by_role("heading", name="No answer").wait_for()
    assert "letter.jpg cannot be read: not an image." in page.get_by_role("status").text_content()
    field.set_input_files(tree / "melanoma" / "0.png")
    headline(page)
    assert not page.get_by_role("heading", name="No answer").count()
    with (tmp_path / "huge.tif").open("wb") as file:
        file.truncate(50_000_001)
    field.set_input_files(tmp_path / "huge.tif")
    page.get_by_text("This file is too large; at most 50 MB are accepted.").first.wait_for()


def test_a_file_is_dropped(page, tree):
    content = list((tree / "nevus" / "2.png").read_bytes())
    page.evaluate(
        """bytes => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], "dropped.png"));
          document.body.dispatchEvent(
            new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
        }""",
        content,
    )
    headline(page)
    assert page.get_by_text("dropped.png").first.is_visible()


def test_it_works_without_scripts(browser, address, tree):
    with browser.new_context(java_script_enabled=False) as context, context.new_page() as page:
        page.goto(address)
        page.get_by_label("Image of a lesion").set_input_files(tree / "nevus" / "1.png")
        page.get_by_role("button", name="Predict").click()
        assert headline(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_every_screen_has_room_and_every_word_can_be_read(browser, address, tree, width, scheme):
    size = {"width": width, "height": 800}
    with browser.new_page(viewport=size, color_scheme=scheme) as page:
        page.goto(address)
        page.get_by_label("Image of a lesion").set_input_files(tree / "nevus" / "1.png")
        headline(page)
        assert too_wide(page) == []
        assert pale(page) == []
        page.mouse.wheel(0, 1e5)  # the notice stays in view
        box = page.get_by_role("note").bounding_box()
        assert box["y"] >= 0
        assert box["y"] + box["height"] < 800


def test_a_port_in_use_is_told_before_anything_is_loaded(address, trained):
    port = address.rpartition(":")[2]
    process = start(trained[0], "model=nothing", port=port)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert f"demo.port={port}: in use on 127.0.0.1" in err
    assert "Traceback" not in err
