"""A report's files: rendered from its package's templates, self-contained, replaced as a whole."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from melanoma_lab.core.atomic_files import replace_file
from melanoma_lab.reports.line_breaking import join_with_no_break_spaces, mark_line_breaks

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 180
COLOURS = 256  # of a chart: a PNG palette's; no eye sees that it had more, at 40 % of the size


@dataclass(frozen=True)
class ReportFigure:
    """A figure as it stands in the reports.

    Attributes:
        name: of its file, without the ending.
        section: of the report.
        alt: what it shows, for who cannot see it.
        png: the file's bytes.
    """

    name: str
    section: str
    alt: str
    png: bytes

    @property
    def uri(self) -> str:
        """The picture itself as an address, for a page that is one file."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def encode_png(figure: Figure) -> bytes:
    """A chart as a small PNG file, the same bytes whenever it is drawn."""
    from PIL import Image

    drawn, buffer = BytesIO(), BytesIO()
    figure.savefig(drawn, dpi=DPI)
    with Image.open(drawn) as image:
        few = image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3)
    few.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def render_template(package: str, name: str, content: Mapping[str, Any]) -> str:
    """Fill a template; what is HTML is escaped.

    Args:
        package: whose ``templates`` folder has it; those of this package are at hand too:
            ``style.css``, ``parts.html.j2`` and ``parts.md.j2``.
        name: of the report, such as ``report.html``; the template's, without ``.j2``.
        content: what it says.
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
    environment.filters["cell"] = lambda text: str(text).replace("|", "\\|")
    return environment.get_template(f"{name}.j2").render(content)


def write_report_figures(folder: Path, pictures: Iterable[ReportFigure]) -> None:
    """Write figures into ``figures/`` of a report's folder and remove those of older reports."""
    drawn = {f"{picture.name}.png": picture.png for picture in pictures}
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for old in (folder / "figures").glob("*.png"):  # of what is no longer there
        if old.name not in drawn:
            old.unlink(missing_ok=True)  # another process may write the same report
    for name, png in drawn.items():
        replace_file(folder / "figures" / name, png)
