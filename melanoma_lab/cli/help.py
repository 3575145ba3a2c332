"""The text of ``--help``: all commands, one command, a group, an option, a section or a preset."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from melanoma_lab.config.compose import CONF_DIR, resolve_config_dir
from melanoma_lab.config.descriptions import (
    KeyDescription,
    describe_keys,
    describe_option,
    list_options,
    read_head,
)
from melanoma_lab.config.schema import Config, Task
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import truncate

PROGRAM = "python -m melanoma_lab"
#: Hydra's flags for the folder of a user's own presets and options.
CONFIG_DIR_FLAGS = ("--config-dir", "-cd")
#: Columns of the lines: those of a narrow terminal.
WIDTH = 80


@dataclass(frozen=True)
class CommandHelp:
    """What a command is for, and what it uses.

    Attributes:
        example: words of a command line after the program.
        purpose: one sentence, in Markdown.
        keys: names of its keys and sections.
        groups: its groups of options.
    """

    example: str
    purpose: str
    keys: tuple[str, ...]
    groups: tuple[str, ...] = ()

    @property
    def shared_sections(self) -> list[str]:
        """Its sections that other commands have too, which have a help of their own."""
        return [name for name in self.keys if name in SECTIONS]

    def list_own_keys(self) -> list[KeyDescription]:
        """Describe all its other keys."""
        return list_keys(name for name in self.keys if name not in SECTIONS)


_ARM = (
    *("architecture", "regularisation", "balancing", "augmentation", "loss", "optimizer"),
    *("schedule", "finetuning", "metadata", "dataset", "split"),
)
_STUDY = ("study", "reference", "metric", "seed", "cache")
COMMANDS: Mapping[Task, CommandHelp] = {
    Task.download: CommandHelp(
        "download dataset=isic9 dataset.root=DIR", "Download a published dataset.", (), ("dataset",)
    ),
    Task.audit: CommandHelp(
        "audit dataset=folder dataset.root=DIR",
        "Find copies, leaks and other problems of a dataset.",
        ("against", "audit", "output", "cache", "training.threads"),
        ("dataset", "split", "metadata"),
    ),
    Task.train: CommandHelp(
        "-m +experiment=baseline,dropout seed=0,1,2",
        "Train, evaluate and record one arm; with `-m`, every arm and seed, and compare them.",
        (*_STUDY, "training", "evaluation", "tracking"),
        _ARM,
    ),
    Task.tune: CommandHelp(
        "tune +experiment=dropout tuner=hyperband",
        "Search better values for one arm, without the test split.",
        (*_STUDY, "training", "evaluation", "tracking"),
        (*_ARM, "tuner"),
    ),
    Task.compare: CommandHelp(
        "compare study=ablation",
        "Compare what has been trained in a study.",
        ("study", "reference", "metric", "tracking"),
    ),
    Task.ensemble: CommandHelp(
        "ensemble study=ablation arm=best members=3",
        "Average the networks of several seeds.",
        ("study", "arm", "members", "tracking"),
    ),
    Task.predict: CommandHelp(
        "predict model=RUN_ID images=DIR",
        "Predict images with a trained network. Research use only: not a medical device.",
        (
            *("model", "images", "output", "grad_cam", "seed"),
            *("training.batch_size", "training.threads", "tracking"),
        ),
    ),
    Task.evaluate: CommandHelp(
        "evaluate model=RUN_ID dataset=csv dataset.root=DIR",
        "Evaluate a trained network on a dataset that it was not trained on.",
        (
            *("model", "study", "evaluation", "seed", "cache"),
            *("training.batch_size", "training.threads", "tracking"),
        ),
        ("dataset", "mapping"),
    ),
    Task.demo: CommandHelp(
        "demo model=RUN_ID",
        "Try a trained network on a page in the browser. Research use only: not a medical device.",
        ("model", "demo", "dataset.root", "cache", "seed", "training.threads", "tracking"),
    ),
    Task.export: CommandHelp(
        "export model=RUN_ID formats=onnx output=DIR",
        "Write a trained network in formats that other programs read.",
        ("model", "formats", "images", "output", "seed", "training.threads", "tracking"),
    ),
    Task.card: CommandHelp(
        "card model=RUN_ID output=DIR",
        "Write the model card of a run.",
        ("model", "output", "tracking"),
    ),
    Task.sync: CommandHelp(
        "sync", "Send the runs that were saved on disk to the tracking server.", ("tracking",)
    ),
    Task.leaky_protocol: CommandHelp(
        "leaky_protocol dataset=isic9 dataset.root=DIR output=DIR",
        "Prepare the course project's leaky dataset, to measure what leaks do.",
        ("output", "seed", "cache", "training.threads"),
        ("dataset",),
    ),
}
GROUPS: Mapping[str, str] = {
    "dataset": "Where images, labels and groups come from.",
    "split": "How images are divided into train, val and test; a group stays together.",
    "architecture": "The network, or a trivial classifier that a network should beat.",
    "regularisation": "What keeps the network from learning its training images by heart.",
    "balancing": "What is done about rare classes in the training images.",
    "augmentation": "Random changes of training images, anew in every step.",
    "augmentation/before": "Augmentation before `augmentation=mixup` or `cutmix` mixes images.",
    "loss": "What training minimises.",
    "optimizer": "How a step follows from the gradient of the loss.",
    "schedule": "How the learning rate changes during training.",
    "finetuning": "Which parts of a pretrained network are trained, and when.",
    "metadata": "Whether the network sees age, sex and site beside the image.",
    "tuner": "How `tune` chooses values.",
    "mapping": "`evaluate`: which classes of the dataset stand for those of the network.",
}
#: Keys that several commands share.
SECTIONS: Mapping[str, str] = {
    "training": "Length and hardware of a training, and which of its epochs is kept.",
    "evaluation": "What is measured, and how.",
    "tracking": "Where and how runs are recorded.",
}
FOOTER = "Research use only: not a medical device."


def list_keys(names: Iterable[str]) -> list[KeyDescription]:
    """Describe the keys of these names, and those of the sections of these names."""
    known = [*describe_keys(Config), *describe_option("dataset", "folder")[1]]
    return [
        key for name in names for key in known if key.key == name or key.key.startswith(f"{name}.")
    ]


def format_help(arguments: Sequence[str]) -> str:
    """Format the help that a command line asks for.

    Args:
        arguments: words of the command line in Hydra's form: ``task=NAME`` for a command; the name
            of a command, group or section, ``GROUP=OPTION`` or ``+experiment=NAME`` for its own
            help; nothing for the general one. Other words are passed over.

    Raises:
        UserError: there is no such option or preset, or the user's folder does not exist.
    """
    folders = (CONF_DIR, *_find_user_folders(arguments))
    for word in arguments:
        name, equals, value = word.lstrip("+").partition("=")
        if name == "task":
            return _format_command(Task(value))
        if not equals and name in list(Task):
            return _format_command(Task(name))
        if not equals and name in SECTIONS:
            return _format_section(name)
        if not equals and name in GROUPS:
            return _format_group(name, folders)
        if equals and name in {*GROUPS, "experiment"}:
            return _format_option(name, value, folders)
    return _format_overview(folders)


def _find_user_folders(arguments: Sequence[str]) -> list[Path]:
    """Return the folder of the user's own presets and options, if a flag names one.

    Raises:
        UserError: there is no such folder.
    """
    words = list(arguments)
    found = [words[i + 1] for i, word in enumerate(words[:-1]) if word in CONFIG_DIR_FLAGS]
    found += [word.partition("=")[2] for word in words if word.startswith("--config-dir=")]
    return [resolve_config_dir(folder) for folder in found]


def _list_names(group: str, folders: Sequence[Path]) -> list[str]:
    """List the options of a group, or the presets of ``experiment``."""
    return sorted({path.stem for folder in folders for path in (folder / group).glob("*.yaml")})


def _format_overview(folders: Sequence[Path]) -> str:
    commands = [
        f"  {task.value.ljust(16)}{_shorten(command.purpose)}" for task, command in COMMANDS.items()
    ]
    groups = {group: ", ".join(_list_names(group, folders)) for group in GROUPS}
    return "\n".join(
        [
            "melanoma_lab: did this change really help?",
            "",
            f"  {PROGRAM} +experiment=augmented         train one arm",
            f"  {PROGRAM} {COMMANDS[Task.train].example}",
            f"  {PROGRAM} COMMAND --help                its keys and an example",
            "  mlflow ui                                              browse the runs",
            "",
            "Commands:",
            *commands,
            "",
            "Presets, +experiment=NAME:",
            *_wrap(", ".join(_list_names("experiment", folders))),
            "",
            "Groups, GROUP=OPTION:",
            *(line for group, names in groups.items() for line in _wrap(f"{group}: {names}")),
            "",
            "More: --help GROUP, --help GROUP=OPTION, --help +experiment=NAME, --help training.",
            "The composed configuration: --cfg job. The version: --version.",
            FOOTER,
        ]
    )


def _shorten(purpose: str) -> str:
    """Return the first sentence of a purpose, up to its first semicolon."""
    first = purpose.partition(";")[0].partition(". ")[0]
    return f"{_to_text(first).removesuffix('.')}."


def _to_text(markdown: str) -> str:
    """Return a sentence without the marks of code."""
    return markdown.replace("`", "")


def _format_command(task: Task) -> str:
    command = COMMANDS[task]
    lines = [f"{PROGRAM} {command.example}", ""]
    lines += textwrap.wrap(_to_text(command.purpose), WIDTH)
    if command.groups:
        lines += ["", "Groups (GROUP=OPTION; more with --help GROUP):"]
        for name in command.groups:
            lines += _wrap(f"{name}: {_to_text(GROUPS[name])}")
    if keys := command.list_own_keys():
        lines += ["", "Keys (KEY=VALUE):", *_format_keys(keys)]
    if sections := command.shared_sections:
        lines += ["", "Sections (more with --help SECTION):"]
        for name in sections:
            own = ", ".join(key.key.partition(".")[2] for key in list_keys([name]))
            lines += _wrap(f"{name}: {own}")
    return "\n".join([*lines, "", FOOTER])


def _format_section(name: str) -> str:
    return "\n".join([f"{name}: {SECTIONS[name]}", "", *_format_keys(list_keys([name]))])


def _format_group(group: str, folders: Sequence[Path]) -> str:
    lines = [f"{group}: {_to_text(GROUPS[group])}", ""]
    for name in _list_names(group, folders):
        first = _read_option_head(group, name, folders).partition("\n")[0]
        lines.append(f"  {group}={name}".ljust(40) + first)
    return "\n".join([*lines, "", f"The keys of an option: --help {group}=OPTION."])


def _format_option(group: str, name: str, folders: Sequence[Path]) -> str:
    names = _list_names(group, folders)
    if name not in names:
        raise UserError(f"{group}={truncate(name)}: no such option. {suggest_choice(name, names)}")
    lines = [f"{'+' if group == 'experiment' else ''}{group}={name}", ""]
    lines += _read_option_head(group, name, folders).splitlines()
    if name in list_options().get(group, []):
        lines += ["", *_format_keys(describe_option(group, name)[1])]
    return "\n".join(lines)


def _read_option_head(group: str, name: str, folders: Sequence[Path]) -> str:
    """Return the comment of an option's file, else its class's docstring."""
    path = next(
        folder / group / f"{name}.yaml"
        for folder in reversed(folders)
        if (folder / group / f"{name}.yaml").is_file()
    )
    head = read_head(path)
    if not head and name in list_options().get(group, []):
        return inspect.getdoc(describe_option(group, name)[0]) or ""
    return head


def _format_keys(keys: Iterable[KeyDescription]) -> list[str]:
    lines = []
    for key in keys:
        lines.append(f"  {key.key}={key.default}  ({key.type})")
        text = _to_text(key.text)
        lines += textwrap.wrap(text, WIDTH, initial_indent="      ", subsequent_indent="      ")
    return lines


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
    )
