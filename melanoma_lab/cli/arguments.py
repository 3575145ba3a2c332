"""The words of the command line: their conversion for Hydra."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_lab.config.overrides import quote_override_text
from melanoma_lab.config.schema import Task
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import truncate

#: Tasks whose names of files are taken literally, and the keys that hold them.
FILE_TASKS = frozenset({Task.card, Task.demo, Task.evaluate, Task.export, Task.predict})
FILE_KEYS = frozenset({"images", "model", "output"})
#: Tasks that write to given folders, so that Hydra must not create a working folder.
FOLDERLESS_TASKS = frozenset(Task) - {Task.train}


def normalise_arguments(arguments: Sequence[str]) -> list[str]:
    """Convert a leading command to ``task=``, put ``--multirun`` first, and quote names of files.

    Hydra's parser refuses ``a=1 -m b=1,2``; users should not need to know that. For tasks in
    ``FOLDERLESS_TASKS``, overrides are added so that Hydra creates no folder.

    Raises:
        UserError: the first word is not a task, an override or a flag.
    """
    words = [_quote_patterns(word) for word in arguments]
    if words and "=" not in words[0] and not words[0].startswith(("-", "~")):
        if words[0] not in list(Task):
            raise UserError(
                f"{truncate(words[0])}: no such task. {suggest_choice(words[0], list(Task))}"
            )
        words[0] = f"task={words[0]}"
    if "hydra/launcher=joblib" in words:
        # joblib gives several jobs at once to a process if the first ones are short, as skipped
        # jobs are: one process would then train them all, while another has nothing to do.
        words.insert(0, "hydra.launcher.batch_size=1")  # first, so that the user can override it
    # In a multirun of evaluations, commas separate several names.
    several = f"task={Task.evaluate}" in words and {"-m", "--multirun"} & {*words}
    if any(f"task={task}" in words for task in FILE_TASKS) and not several:
        words = [_quote_formats(_quote_file_name(word)) for word in words]
    if any(f"task={task}" in words for task in FOLDERLESS_TASKS):
        words += ["hydra.output_subdir=null", "hydra.run.dir=."]
    multirun = [word for word in words if word in {"-m", "--multirun"}]
    return [*multirun[:1], *(word for word in words if word not in {"-m", "--multirun"})]


def _quote_file_name(word: str) -> str:
    """Quote a file's name for Hydra, as in ``images=ISIC_1(1).jpg`` or ``images=[ab]*``.

    Without quotes, Hydra would parse brackets, commas and blanks as its own syntax.
    """
    key, equals, value = word.partition("=")
    if key not in FILE_KEYS or not value or value[0] in "'\"":
        return word
    return f"{key}{equals}{quote_override_text(value)}"


def _quote_formats(word: str) -> str:
    """Write ``formats=onnx,litert`` as a list; Hydra would take it for a sweep."""
    key, _, value = word.partition("=")
    return f"{key}=[{value}]" if key == "formats" and value and value[0] != "[" else word


def _quote_patterns(word: str) -> str:
    """Write ``dataset.exclude=!*_lesion.jpg`` as a list of quoted patterns."""
    key, _, value = word.partition("=")
    if key != "dataset.exclude" or not value or value[0] in "['\"":
        return word
    return f"{key}=[{','.join(map(quote_override_text, value.split(',')))}]"
