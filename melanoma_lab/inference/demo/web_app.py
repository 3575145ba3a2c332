"""The page: one address that takes an image and answers with the page, filled.

Nothing is kept: an upload lies in a temporary folder while it is looked at, what is shown of it is
within the page itself, and a browser is told not to store that. Nothing is loaded from elsewhere,
and browsers are told to refuse it (Content-Security-Policy). Other sites that are open in the same
browser can neither send images here nor, by a name that they point at this machine, read answers.
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
from melanoma_lab.tracking.model_info import NOTICE

#: The header by which the page's script asks for the answer without what is around it.
PART = "X-Answer-Only"
#: Unreadable images, by what HTTP calls what cannot be processed.
UNPROCESSABLE = 422

AnswerFunction = Callable[[str, str], ImageAnswer | str]


@dataclass(frozen=True)
class ModelIntroduction:
    """What the page says before it is given anything.

    Attributes:
        facts: which model this is, in a line.
        limits: what it must not be taken for.
        max_megabytes: of the largest file that is taken.
    """

    facts: str
    limits: Sequence[str]
    max_megabytes: int


def create_app(
    look: AnswerFunction, about: ModelIntroduction, *, open_to_others: bool = False
) -> Flask:
    """The page as a WSGI application.

    Args:
        look: from a file and its name to what is shown of it, or why it cannot be read.
        about: what the page says.
        open_to_others: whether other machines are meant to reach it, by whatever name.
    """
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = about.max_megabytes * 10**6 + 10**4  # the form's own words

    @app.get("/")
    def empty() -> Response:
        return _page(about)

    @app.post("/")
    def answer() -> Response:
        given = request.files.get("image")
        if given is None or not given.filename:
            raise BadRequest("No image was chosen.")
        name = truncate(given.filename, 80)
        with tempfile.TemporaryDirectory(prefix="melanoma_lab-") as folder:
            path = Path(folder) / "image"
            given.save(path)
            shown = look(str(path), name)
        if isinstance(shown, str):
            return _page(about, problem=f"{name} cannot be read: {shown}.", status=UNPROCESSABLE)
        return _page(about, shown)

    _guard(app, open_to_others)
    _explain_failures(app, about)
    return app


def _page(
    about: ModelIntroduction,
    shown: ImageAnswer | None = None,
    *,
    problem: str = "",
    status: int = 200,
) -> Response:
    """The page, with what is shown of an image or why nothing is; or that part of it alone."""
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
    """Answer to this page alone, and leave nothing behind."""

    @app.before_request
    def refuse_others() -> None:
        name = urlsplit(f"//{request.host}").hostname or ""
        if not open_to_others and not is_loopback(name):
            raise Forbidden("This page is for this machine alone.")
        from_where = request.headers.get("Sec-Fetch-Site", "same-origin")
        if request.method == "POST" and from_where != "same-origin":
            raise Forbidden("Images are taken from this page alone.")

    @app.after_request
    def keep_to_yourself(response: Response) -> Response:
        response.headers["Cache-Control"] = "no-store"
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response


def _explain_failures(app: Flask, about: ModelIntroduction) -> None:
    """Say on the page what failed; the server lives on."""

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> Response:
        said = error.description or error.name
        if isinstance(error, RequestEntityTooLarge):
            said = f"This file is too large; at most {about.max_megabytes} MB are taken."
        return _page(about, problem=said, status=error.code or 500)

    @app.errorhandler(Exception)
    def broken(error: Exception) -> Response:
        app.logger.exception("melanoma_lab: an image was not answered.")
        said = f"The model failed on this image ({type(error).__name__}); the terminal says more."
        return _page(about, problem=said, status=500)
