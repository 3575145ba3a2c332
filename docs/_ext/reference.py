"""Pages of the reference, made from the code and from ``conf/`` when the site is built.

Git ignores them: ``reference/commands``, ``sections``, ``presets``, ``metrics``, and a page for
each group of options.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable
from typing import Any

from pages import write_page
from sphinx.application import Sphinx

from melanoma_lab.cli.help import COMMANDS, GROUPS, SECTIONS, list_keys
from melanoma_lab.config.compose import CONF_DIR
from melanoma_lab.config.descriptions import (
    KeyDescription,
    describe_option,
    list_options,
    read_head,
)
from melanoma_lab.evaluation import metrics

COMMANDS_HEAD = """\
A command line is `python -m melanoma_lab COMMAND KEY=VALUE ...`; `train` may be left out.
`GROUP=OPTION` chooses an [option](index.md#groups-of-options), and `+experiment=NAME` a
[preset](presets.md). `-m` (multirun) runs every combination of values that are listed with commas.

Exit status: 0 if all went well; 1 if the work failed (training diverged, a disk is full); 2 if what
was typed, or the data, cannot be used; 130 if it was interrupted."""
PRESETS_HEAD = """\
`+experiment=NAME` chooses one. Each changes one thing of its reference, unless it says otherwise.
A result without an interval describes one study and is no verdict."""
METRICS_HEAD = """\
Of every split (`train/`, `val/`, `test/`), from the saved weights in inference mode on original
images. `generalisation_gap` is `train/accuracy` minus `val/accuracy`. Metrics of the positive class
are named by it: `test/melanoma_sensitivity`. Those of every class are `test/sensitivity/<class>`
and `test/specificity/<class>`."""


def list_presets() -> dict[str, tuple[str, str]]:
    """Return the question of each preset, and what else the head of its file says."""
    found = {}
    for path in sorted((CONF_DIR / "experiment").glob("*.yaml")):
        question, _, rest = read_head(path).partition("\n")
        found[path.stem] = (question, rest)
    return found


def list_metrics() -> dict[str, str]:
    """Return what each metric is, by its name, from the docstring of its function."""
    functions = {**metrics.SPLIT_METRICS, **metrics.CLASS_METRICS, "auroc": metrics.auroc}
    found = {}
    for name, function in functions.items():
        text = (inspect.getdoc(function) or "").replace("; shape (K,)", "")
        text = re.sub(r"^Return(, for each class,)? ", "", text)
        found[name] = text[:1].upper() + text[1:]
    return found


def write_pages(_app: Sphinx) -> None:
    """Write all pages of the reference."""
    write_page("reference/commands", _format_commands())
    write_page("reference/sections", _format_sections())
    write_page("reference/presets", _format_presets())
    write_page("reference/metrics", _format_metrics())
    for group, options in list_options().items():
        write_page(f"reference/group-{group.replace('/', '-')}", _format_group(group, options))


def _format_commands() -> str:
    parts = ["# Commands", "", COMMANDS_HEAD, ""]
    for task, command in COMMANDS.items():
        parts += [f"## {task}", "", command.purpose, ""]
        if command.groups:
            links = [f"[{name}]({_group_link(name)})" for name in command.groups]
            parts += [f"Groups: {', '.join(links)}.", ""]
        if sections := command.shared_sections:
            links = [f"[{name}](sections.md#{name})" for name in sections]
            parts += [f"Sections: {', '.join(links)}.", ""]
        parts += _format_keys(command.list_own_keys())
    return "\n".join(parts)


def _format_sections() -> str:
    parts = ["# Sections", "", "Keys that belong to no group of options.", ""]
    for name, purpose in SECTIONS.items():
        parts += [f"## {name}", "", purpose, "", *_format_keys(list_keys([name]))]
    return "\n".join(parts)


def _group_link(group: str) -> str:
    return "index.md#groups-of-options" if group == "mapping" else f"group-{group}.md"


def _format_group(group: str, options: Iterable[str]) -> str:
    parts = [f"# {group}", "", GROUPS[group], ""]
    for name in options:
        schema, keys = describe_option(group, name)
        # The file's comment and the class's docstring say the same, one in more words.
        told = (read_head(CONF_DIR / group / f"{name}.yaml"), inspect.getdoc(schema) or "")
        parts += [f"## {group}={name}", "", _to_markdown(max(told, key=len)), ""]
        parts += _format_keys(keys)
    return "\n".join(parts)


def _format_presets() -> str:
    parts = ["# Presets", "", PRESETS_HEAD, ""]
    for name, (question, rest) in list_presets().items():
        told = re.sub(r"(?m)^ {2,}(.+)$", r"\n```bash\n\1\n```\n", rest)
        told = told.replace("\n```\n\n\n```bash\n", "\n")
        told = re.sub(r"experiments/([\w-]+)(?=[,.);\s])", r"[\1](../results/\1.md)", told)
        told = re.sub(r'(\.venv/bin/python -m pip install -e "\S+?")', r"`\1`", told)
        if "experiments/" not in rest:
            told += "\nNo kept study trained this preset as it stands."
        parts += [f"## {name}", "", f"**{question}**", "", _to_markdown(told), ""]
    return "\n".join(parts)


def _format_metrics() -> str:
    parts = ["# Metrics", "", METRICS_HEAD, ""]
    for name, text in list_metrics().items():
        parts += [f"## {name}", "", _to_markdown(text), ""]
    return "\n".join([*parts, _to_markdown(_undefined_metrics()), ""])


def _undefined_metrics() -> str:
    """Return what the module says of undefined metrics and of the ISIC challenges."""
    _, *paragraphs = (inspect.getdoc(metrics) or "").split("\n\n")
    return "## Undefined values\n\n" + "\n\n".join(paragraphs[1:3])


def _format_keys(keys: Iterable[KeyDescription]) -> list[str]:
    lines = []
    for key in keys:
        default = f", default `{key.default}`" if key.default else ""
        lines += [f"`{key.key}`", f": {_to_markdown(key.text)}", "", f"  *{key.type}*{default}", ""]
    return lines


def _to_markdown(text: str) -> str:
    """Turn the marks of a docstring into Markdown's."""
    text = re.sub(r":(?:func|class|meth):`~?([^`]+)`", r"`\1`", text)
    text = re.sub(r"(?<!`)``([^`]+)``(?!`)", r"`\1`", text)
    # Asterisks and angle brackets outside code would be marks.
    parts = re.split(r"(```.*?```|`[^`]*`)", text, flags=re.DOTALL)
    return "".join(
        part if i % 2 else part.replace("*", "\\*").replace("<", "&lt;")
        for i, part in enumerate(parts)
    )


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
