"""Pages of the reference, made from the code and from ``conf/`` when the site is built.

Git ignores them: ``reference/commands``, ``sections``, ``presets``, ``metrics``, and a page for
each group of options. What a command is for, and which keys it uses, stands here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from melanoma_lab.config.compose import CONF_DIR
from melanoma_lab.config.descriptions import (
    KeyDescription,
    describe_keys,
    describe_option,
    list_options,
)
from melanoma_lab.config.schema import Config, Task
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

REFERENCE = Path(__file__).resolve().parent.parent / "reference"


@dataclass(frozen=True)
class Command:
    """What a command is for, and the keys and groups that it uses."""

    purpose: str
    keys: tuple[str, ...]
    groups: tuple[str, ...] = ()


ARM = (
    *("architecture", "regularisation", "balancing", "augmentation", "loss", "optimizer"),
    *("schedule", "finetuning", "metadata", "dataset", "split"),
)
STUDY = ("study", "reference", "metric", "seed", "cache")
COMMANDS: Mapping[Task, Command] = {
    Task.train: Command(
        "Train, evaluate and record one arm; with `-m`, every arm and seed, and compare them.",
        (*STUDY, "training", "evaluation", "tracking"),
        ARM,
    ),
    Task.tune: Command(
        "Search better values for one arm, without the test split.",
        (*STUDY, "training", "evaluation", "tracking"),
        (*ARM, "tuner"),
    ),
    Task.compare: Command(
        "Compare what has been trained in a study.", ("study", "reference", "metric", "tracking")
    ),
    Task.ensemble: Command(
        "Average the networks of several seeds.", ("study", "arm", "members", "tracking")
    ),
    Task.audit: Command(
        "Find copies, leaks and other problems of a dataset.",
        ("against", "audit", "output", "cache", "training.threads"),
        ("dataset", "split", "metadata"),
    ),
    Task.download: Command("Download a published dataset.", (), ("dataset",)),
    Task.leaky_protocol: Command(
        "Prepare the course project's leaky dataset, to measure what leaks do.",
        ("output", "seed", "cache", "training.threads"),
        ("dataset",),
    ),
    Task.predict: Command(
        "Predict images with a trained network. Research use only: not a medical device.",
        (
            *("model", "images", "output", "grad_cam", "seed"),
            *("training.batch_size", "training.threads", "tracking"),
        ),
    ),
    Task.evaluate: Command(
        "Evaluate a trained network on a dataset that it was not trained on.",
        (
            *("model", "study", "evaluation", "seed", "cache"),
            *("training.batch_size", "training.threads", "tracking"),
        ),
        ("dataset", "mapping"),
    ),
    Task.demo: Command(
        "Try a trained network on a page in the browser. Research use only.",
        ("model", "demo", "dataset.root", "cache", "seed", "training.threads", "tracking"),
    ),
    Task.export: Command(
        "Write a trained network in formats that other programs read.",
        ("model", "formats", "images", "output", "seed", "training.threads", "tracking"),
    ),
    Task.card: Command("Write the model card of a run.", ("model", "output", "tracking")),
    Task.sync: Command("Send the runs that were saved on disk to the server.", ("tracking",)),
}
GROUPS: Mapping[str, str] = {
    "architecture": "The network, or a trivial classifier that a network should beat.",
    "augmentation": "Random changes of training images, anew in every step.",
    "augmentation/before": "Augmentation before `augmentation=mixup` or `cutmix` mixes images.",
    "balancing": "What is done about rare classes in the training images.",
    "dataset": "Where images, labels and groups come from.",
    "finetuning": "Which parts of a pretrained network are trained, and when.",
    "loss": "What training minimises.",
    "metadata": "Whether the network sees age, sex and body site beside the image.",
    "optimizer": "How a step follows from the gradient of the loss.",
    "regularisation": "What keeps the network from learning its training images by heart.",
    "schedule": "How the learning rate changes during training.",
    "split": "How images are divided into train, val and test; a group stays together.",
    "tuner": "How `tune` chooses values.",
}


#: Keys that several commands share.
SECTIONS: Mapping[str, str] = {
    "training": "Length and hardware of a training, and which of its epochs is kept.",
    "evaluation": "What is measured, and how.",
    "tracking": "Where and how runs are recorded.",
    "audit": "Of `audit` alone.",
    "demo": "Of `demo` alone.",
}


def list_keys(names: Iterable[str]) -> list[KeyDescription]:
    """Describe the keys of these names, and those of the sections of these names."""
    known = [*describe_keys(Config), *describe_option("dataset", "folder")[1]]
    return [
        key
        for name in names
        for key in known
        if key.key == name or (name in SECTIONS and key.key.startswith(f"{name}."))
    ]


def list_presets() -> dict[str, tuple[str, str]]:
    """Return the question of each preset, and what else the head of its file says."""
    found = {}
    for path in sorted((CONF_DIR / "experiment").glob("*.yaml")):
        lines = [
            line.removeprefix("#")
            for line in path.read_text(encoding="utf-8").splitlines()
            if line.startswith("#") and not line.startswith("# @package")
        ]
        question, *rest = lines
        found[path.stem] = (question.strip(), "\n".join(rest))
    return found


def list_metrics() -> dict[str, str]:
    """Return what each metric is, by its name, from the docstring of its function."""
    functions = {**metrics.SPLIT_METRICS, **metrics.CLASS_METRICS, "auroc": metrics.auroc}
    found = {}
    for name, function in functions.items():
        text = (inspect.getdoc(function) or "").removeprefix("Return ").replace("; shape (K,)", "")
        found[name] = text[:1].upper() + text[1:]
    return found


def write_pages(_app: Sphinx) -> None:
    """Write all pages of the reference."""
    _write("commands", _format_commands())
    _write("sections", _format_sections())
    _write("presets", _format_presets())
    _write("metrics", _format_metrics())
    for group, options in list_options().items():
        _write(f"group-{group.replace('/', '-')}", _format_group(group, options))


def _format_commands() -> str:
    parts = [
        "# Commands",
        "",
        COMMANDS_HEAD,
        "",
    ]
    for task, command in COMMANDS.items():
        parts += [f"## {task}", "", command.purpose, ""]
        if command.groups:
            links = [f"[{name}]({_group_link(name)})" for name in command.groups]
            parts += [f"Groups: {', '.join(links)}.", ""]
        if sections := [name for name in command.keys if name in SECTIONS]:
            links = [f"[{name}](sections.md#{name})" for name in sections]
            parts += [f"Sections: {', '.join(links)}.", ""]
        parts += _format_keys(list_keys(name for name in command.keys if name not in SECTIONS))
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
        told = (_read_head(CONF_DIR / group / f"{name}.yaml"), inspect.getdoc(schema) or "")
        parts += [f"## {group}={name}", "", _to_markdown(max(told, key=len)), ""]
        parts += _format_keys(keys)
    return "\n".join(parts)


def _format_presets() -> str:
    parts = [
        "# Presets",
        "",
        PRESETS_HEAD,
        "",
    ]
    for name, (question, rest) in list_presets().items():
        told = re.sub(r"(?m)^ {2,}(.+)$", r"\n```bash\n\1\n```\n", rest)
        told = told.replace("\n```\n\n\n```bash\n", "\n")
        told = re.sub(r"experiments/([\w-]+)(?=[,.);\s])", r"[\1](../results/\1.md)", told)
        if not re.search(r"\d %|points", rest):
            told += "\nResult and time: not measured in a kept study."
        parts += [f"## {name}", "", f"**{question}**", "", _to_markdown(told), ""]
    return "\n".join(parts)


def _format_metrics() -> str:
    parts = [
        "# Metrics",
        "",
        METRICS_HEAD,
        "",
    ]
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


def _read_head(path: Path) -> str:
    """Return the comment that a file begins with."""
    lines = path.read_text(encoding="utf-8").splitlines()
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line.removeprefix("#").strip())
    return "\n".join(head)


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


def _write(name: str, text: str) -> None:
    path = REFERENCE / f"{name}.md"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:  # else it is built anew
        path.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("builder-inited", write_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
