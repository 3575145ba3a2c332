"""The page without a network behind it: what it takes, refuses and keeps to itself."""

import io
from pathlib import Path

import pytest

from melanoma_lab.inference.demo.image_answer import (
    AnswerText,
    ClassProbability,
    Explanation,
    ImageAnswer,
    Neighbour,
)
from melanoma_lab.inference.demo.messages import PART
from melanoma_lab.inference.demo.web_app import ModelIntroduction, create_app

pytestmark = pytest.mark.unit

NOTICE = "Research use only: not a medical device; no diagnosis."
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


def shown(**changed):
    parts = {
        "name": "<b>.png",
        "said": AnswerText(
            "Nevus, 70 %",
            (ClassProbability("Nevus", 0.7), ClassProbability("Melanoma", 0.3, 0.25)),
            "",
            "Called.",
            "",
            (),
        ),
        "picture": PIXEL,
        "explanations": (Explanation("Nevus", PIXEL), Explanation("Melanoma", PIXEL)),
        "no_explanations": "",
        "neighbours": (Neighbour("Wart", "0.93", PIXEL), Neighbour("Nevus", "0.90", "")),
        "no_neighbours": "",
    }
    return ImageAnswer(**parts | changed)


@pytest.fixture
def client_of():
    def make(look=lambda path, name: shown(), **options):
        app = create_app(look, ModelIntroduction("run 1", ["It knows little."], 1), **options)
        return app.test_client()

    return make


def send(client, content=b"x", name="a.png", **options):
    data = {"image": (io.BytesIO(content), name)}
    return client.post("/", data=data, **options)


def test_the_page_says_what_it_is_before_anything_is_given(client_of):
    response = client_of().get("/")
    assert response.status_code == 200
    assert response.text.count(NOTICE) == 2
    assert "run 1" in response.text
    assert "<li>It knows little.</li>" in response.text


def test_an_answer_is_shown_and_names_are_no_markup(client_of):
    text = send(client_of()).text
    for words in ("Most probable: Nevus, 70 %", "Called.", "threshold 25.0", NOTICE):
        assert words in text
    assert "&lt;b&gt;.png" in text
    assert "<b>.png" not in text
    assert "<b>Wart</b> 0.93" in text
    assert "its file has changed since" in text
    assert "network does not see the rest" not in text
    cut = send(client_of(lambda path, name: shown(part=PART))).text
    assert f"&lt;b&gt;.png: {PART}</figcaption>" in cut


def test_the_pages_own_script_gets_the_answer_alone(client_of):
    text = send(client_of(), headers={"X-Answer-Only": "yes"}).text
    assert text.lstrip().startswith('<p id="status"')
    assert "Most probable: Nevus, 70 %" in text
    assert "<style" not in text  # it would be refused by the page around it


def test_what_is_missing_is_said(client_of):
    less = shown(
        explanations=(), no_explanations="no convolution.", neighbours=(), no_neighbours="gone"
    )
    text = send(client_of(lambda path, name: less)).text
    assert "Not shown: no convolution." in text
    assert "Not shown: gone." in text


def test_nothing_is_loaded_from_elsewhere_or_kept(client_of):
    response = send(client_of())
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; img-src data:; ")
    assert "http" not in response.text.replace("http-equiv", "")
    assert "unsafe" not in policy
    assert response.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in response.headers


def test_the_file_is_gone_when_the_answer_comes(client_of):
    seen = []

    def look(path, name):
        seen.append((Path(path), Path(path).read_bytes(), name))
        return "not an image"

    response = send(client_of(look), b"12345", "../../etc/a.png")
    ((path, content, name),) = seen
    assert (content, name) == (b"12345", "../../etc/a.png")
    assert path.name == "image"
    assert not path.exists()
    assert response.status_code == 422
    assert "cannot be read: not an image." in response.text


def test_no_file_and_a_large_one_are_refused_on_the_page(client_of):
    client = client_of()
    assert "No image was chosen." in client.post("/", data={}).text
    assert "No image was chosen." in send(client, name="").text
    form = "multipart/form-data; boundary=here"
    response = client.post("/", data=b"x" * 2_000_000, content_type=form)
    assert response.status_code == 413
    assert "This file is too large; at most 1 MB are accepted." in response.text
    assert send(client).status_code == 200
    assert client.get("/elsewhere").status_code == 404


def test_a_network_that_fails_is_said_and_the_page_lives_on(client_of):
    given = iter([ZeroDivisionError("secret")])

    def look(path, name):
        for error in given:
            raise error
        return shown()

    client = client_of(look)
    response = send(client)
    assert response.status_code == 500
    assert "The model failed on this image (ZeroDivisionError)" in response.text
    assert "secret" not in response.text
    assert send(client).status_code == 200


def test_other_sites_can_neither_send_nor_ask(client_of):
    client = client_of()
    for site in ("cross-site", "same-site"):
        assert send(client, headers={"Sec-Fetch-Site": site}).status_code == 403
    assert client.get("/", headers={"Host": "evil.example:8910"}).status_code == 403
    for own in ("127.0.0.1:8910", "localhost:8910", "[::1]:8910"):
        assert client.get("/", headers={"Host": own}).status_code == 200
    others = client_of(open_to_others=True)
    assert others.get("/", headers={"Host": "clinic.example:8910"}).status_code == 200
