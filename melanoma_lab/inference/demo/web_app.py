"""The web page: one URL, to which an image is posted and which returns the page with the answer.

Nothing is stored: an upload lies in a temporary folder while it is answered, all pictures are
inside the page itself, and the browser must not store it (Cache-Control). Nothing is loaded from
other sites, which the browser enforces (Content-Security-Policy). Other sites that are open in the
same browser cannot post images here, nor read answers through a host name of their own that points
to this machine (DNS rebinding).
"""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, Forbidden, HTTPException, RequestEntityTooLarge

from melanoma_lab.core.formatting import truncate
from melanoma_lab.core.version import __version__
from melanoma_lab.data.decoding import FORMATS
from melanoma_lab.inference.demo.image_answer import ImageAnswer
from melanoma_lab.inference.demo.server import is_loopback
from melanoma_lab.reports.rendering import render_template
from melanoma_lab.tracking.logged_model import NOTICE

#: The header with which the page's script requests the answer without the rest of the page.
PART = "X-Answer-Only"
#: The HTTP status for images that cannot be read (unprocessable content).
UNPROCESSABLE = 422

#: From the path and the name of a file to its answer, or to a reason why it cannot be read.
AnswerFunction = Callable[[str, str], ImageAnswer | str]


@dataclass(frozen=True)
class ModelIntroduction:
    """The texts that the page shows about the model.

    ``max_megabytes`` is the size of the largest accepted file, in MB (10^6 bytes).
    """

    facts: str
    limits: Sequence[str]
    max_megabytes: int


def create_app(
    answer_image: AnswerFunction, about: ModelIntroduction, *, open_to_others: bool = False
) -> Flask:
    """Create the page as a WSGI application.

    ``answer_image`` gets the path and the name of a file. ``open_to_others`` says whether other
    machines may reach the page, under any host name.
    """
    app = Flask(__name__, static_folder=None)
    # The form itself adds some bytes to the image.
    app.config["MAX_CONTENT_LENGTH"] = about.max_megabytes * 10**6 + 10**4

    @app.get("/")
    def empty() -> Response:
        return _render_page(about)

    @app.post("/")
    def answer() -> Response:
        upload = request.files.get("image")
        if upload is None or not upload.filename:
            raise BadRequest("No image was chosen.")
        name = truncate(upload.filename, 80)
        with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as folder:
            path = Path(folder) / "image"
            upload.save(path)
            shown = answer_image(str(path), name)
        if isinstance(shown, str):
            return _render_page(
                about, problem=f"{name} cannot be read: {shown}.", status=UNPROCESSABLE
            )
        return _render_page(about, shown)

    _guard(app, open_to_others)
    _explain_failures(app, about)
    return app


def _render_page(
    about: ModelIntroduction,
    shown: ImageAnswer | None = None,
    *,
    problem: str = "",
    status: int = 200,
) -> Response:
    """Render the page with an answer or a problem, or that part alone if ``PART`` is requested."""
    template = "answer.html" if request.headers.get(PART) else "page.html"
    nonce = secrets.token_urlsafe(16)
    content = {
        "about": about,
        "formats": f"{', '.join(FORMATS[:-1])} or {FORMATS[-1]}",
        "nonce": nonce,
        "notice": NOTICE,
        "problem": problem,
        "shown": shown,
        "version": __version__,
    }
    response = Response(render_template("melanoma_lab.inference.demo", template, content), status)
    response.headers["Content-Security-Policy"] = (
        f"default-src 'none'; img-src data:; style-src 'nonce-{nonce}'; "
        f"script-src 'nonce-{nonce}'; connect-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )
    return response


def _guard(app: Flask, open_to_others: bool) -> None:
    """Refuse requests of other sites, and forbid the browser to store or pass on answers."""

    @app.before_request
    def refuse_others() -> None:
        name = urlsplit(f"//{request.host}").hostname or ""
        if not open_to_others and not is_loopback(name):
            raise Forbidden("This page can be opened on this machine only.")
        site = request.headers.get("Sec-Fetch-Site", "same-origin")
        if request.method == "POST" and site != "same-origin":
            raise Forbidden("Images are accepted from this page only.")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _explain_failures(app: Flask, about: ModelIntroduction) -> None:
    """Show errors on the page; the server keeps running."""

    @app.errorhandler(HTTPException)
    def show_refusal(error: HTTPException) -> Response:
        problem = error.description or error.name
        if isinstance(error, RequestEntityTooLarge):
            problem = f"This file is too large; at most {about.max_megabytes} MB are accepted."
        return _render_page(about, problem=problem, status=error.code or 500)

    @app.errorhandler(Exception)
    def show_failure(error: Exception) -> Response:
        app.logger.exception("melanoma_lab: the prediction for an image failed.")
        name = type(error).__name__
        problem = f"The model failed on this image ({name}); see the terminal for details."
        return _render_page(about, problem=problem, status=500)
