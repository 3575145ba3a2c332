"""Rendering of reports from templates, their pictures as files or URIs, and long names."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import markupsafe

from melanoma_lab.core.files import replace_file
from melanoma_lab.core.formatting import format_percent

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

DPI = 180
COLOURS = 256  # colours of a PNG palette: charts look the same at 40 % of the size
#: The most lines of an arm's name in a figure.
MAX_NAME_LINES = 5
#: An arm's name with at least this many characters gets a line for each override in a terminal.
LONG_NAME = 25
#: Places for a break: after punctuation in overrides, not after that of a sentence or a number.
BREAKS = r"[,=_](?=[^\s,=_])|(?<=[a-z])\.(?=[a-z])"


@dataclass(frozen=True)
class ReportFigure:
    """A figure of a report.

    Attributes:
        name: name of its file, without the extension.
        section: section of the report that shows it.
        alt: description for readers who cannot see it.
        png: bytes of the PNG file.
    """

    name: str
    section: str
    alt: str
    png: bytes

    @property
    def uri(self) -> str:
        """The PNG file as a data URI, for a page that is a single file."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def encode_png(figure: Figure) -> bytes:
    """Return a chart as a small PNG file; the same chart always gives the same bytes."""
    from PIL import Image

    original, reduced = BytesIO(), BytesIO()
    figure.savefig(original, dpi=DPI)
    with Image.open(original) as image:
        palette = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3)
    palette.save(reduced, "png", optimize=True)
    return reduced.getvalue()


def encode_jpeg_uri(picture: Image.Image, *, quality: int = 68, optimize: bool = True) -> str:
    """Return a picture as a JPEG in a data URI.

    Args:
        picture: an RGB image.
        quality: quality of the JPEG, 1 to 95.
        optimize: whether to make the file smaller, which takes longer.
    """
    stream = BytesIO()
    picture.save(stream, "JPEG", quality=quality, optimize=optimize)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def render_template(package: str, name: str, content: Mapping[str, Any]) -> str:
    """Render a template; values in HTML are escaped.

    Args:
        package: name of the package whose folder ``templates`` has the template. It can include the
            templates of this package: ``style.css``, ``parts.html.j2`` and ``parts.md.j2``.
        name: name of the template without ``.j2``, such as ``report.html``.
        content: the template's variables by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(
            [jinja2.PackageLoader(package), jinja2.PackageLoader("melanoma_lab.reports")]
        ),
        autoescape=jinja2.select_autoescape(["html.j2"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"breakable": mark_line_breaks, "figures": join_with_no_break_spaces}
    environment.filters["percent"] = format_percent
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    return environment.get_template(f"{name}.j2").render(content)


def write_report_figures(folder: Path, pictures: Iterable[ReportFigure]) -> None:
    """Write figures into ``figures/`` of a report's folder and remove those of older reports."""
    files = {f"{picture.name}.png": picture.png for picture in pictures}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for old in (folder / "figures").glob("*.png"):
        if old.name not in files:
            old.unlink(missing_ok=True)  # another process may write the same report
    for name, png in files.items():
        replace_file(folder / "figures" / name, png)


def wrap_arm_name(name: str, width: int = 24) -> str:
    """Wrap an arm's name to a few lines for Matplotlib; leave out the middle of a very long one.

    Args:
        name: the arm's name.
        width: the number of characters that a line should not exceed.
    """
    lines = [""]
    for part in re.findall(rf"[^,=._]{{1,{width}}}[,=._]*|[,=._]+", name):
        if lines[-1] and len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part
    if len(lines) > MAX_NAME_LINES:
        half = MAX_NAME_LINES // 2
        lines = [*lines[:half], "...", *lines[-half:]]
    return "\n".join(lines).replace("$", r"\$")  # a dollar sign would start a formula


def break_arm_name(name: str) -> str:
    """Return an arm's name for a terminal; a long one has a line for each override and note."""
    if len(name) < LONG_NAME:
        return name
    return re.sub(r" (?=\()", "\n ", re.sub(r",(?=[\w./@]+=)", ",\n ", name))


def mark_line_breaks(text: object) -> markupsafe.Markup:
    """Return a text as HTML that allows line breaks in names of arms and keys, not in numbers."""
    escaped = re.sub(BREAKS, r"\g<0><wbr>", str(markupsafe.escape(text)))
    return markupsafe.Markup(escaped)  # noqa: S704 - escaped one line above


def join_with_no_break_spaces(text: object) -> str:
    """Join a value and its interval so that a line can break only between the two."""
    return re.sub(r" (?=%)|(?<=[\d,]) (?=[-+\u2212\d])", "\N{NO-BREAK SPACE}", str(text))
