"""The words of the command line, in the order and form that Hydra takes them."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_lab.config.overrides import quote_override_text
from melanoma_lab.config.schema import Task
from melanoma_lab.core.errors import UserError, suggest_choice
from melanoma_lab.core.formatting import truncate

#: Tasks that take names of files as they were typed, and those keys.
FILE_TASKS = frozenset({Task.card, Task.demo, Task.evaluate, Task.export, Task.predict})
FILE_KEYS = frozenset({"images", "model", "output"})
#: Tasks that write where they are told to and need no working folder from Hydra.
FOLDERLESS_TASKS = frozenset(
    {
        *(Task.audit, Task.card, Task.compare, Task.demo, Task.download, Task.ensemble),
        *(Task.evaluate, Task.export, Task.predict, Task.leaky_protocol, Task.sync, Task.tune),
    }
)


def normalise_arguments(arguments: Sequence[str]) -> list[str]:
    """Turn a leading task word into ``task=``, put ``--multirun`` first, keep folders clean.

    Hydra's parser takes ``a=1 -m b=1,2`` for a mistake; a user should not have to know.

    Args:
        arguments: what was typed after ``python -m melanoma_lab``.

    Returns:
        The same, as Hydra takes it.

    Raises:
        UserError: the first word is neither a task, an override nor an option.
    """
    words = [_quote_patterns(word) for word in arguments]
    if words and "=" not in words[0] and not words[0].startswith(("-", "~")):
        if words[0] not in list(Task):
            raise UserError(
                f"{truncate(words[0])}: no such task. {suggest_choice(words[0], list(Task))}"
            )
        words[0] = f"task={words[0]}"
    if "hydra/launcher=joblib" in words:
        # joblib hands out several jobs at once when the first are short, as those are that are
        # skipped: one process would then train them all, while another idles.
        words.insert(0, "hydra.launcher.batch_size=1")  # what was typed comes later and counts
    # Of several evaluations, the names are told apart by commas.
    several = f"task={Task.evaluate}" in words and {"-m", "--multirun"} & {*words}
    if any(f"task={task}" in words for task in FILE_TASKS) and not several:
        words = [_quote_formats(_quote_file_name(word)) for word in words]
    if any(f"task={task}" in words for task in FOLDERLESS_TASKS):
        words += ["hydra.output_subdir=null", "hydra.run.dir=."]
    multirun = [word for word in words if word in {"-m", "--multirun"}]
    return [*multirun[:1], *(word for word in words if word not in {"-m", "--multirun"})]


def _quote_file_name(word: str) -> str:
    """An override of a file's name in Hydra's quotes: ``images=ISIC_1(1).jpg``, ``images=[ab]*``.

    Hydra would take brackets, commas and blanks for more than letters of a name.
    """
    key, equals, value = word.partition("=")
    if key not in FILE_KEYS or not value or value[0] in "'\"":
        return word
    return f"{key}{equals}{quote_override_text(value)}"


def _quote_formats(word: str) -> str:
    """``formats=onnx,litert`` as the list that is meant; Hydra would take it for a sweep."""
    key, _, value = word.partition("=")
    return f"{key}=[{value}]" if key == "formats" and value and value[0] != "[" else word


def _quote_patterns(word: str) -> str:
    """``dataset.exclude=!*_lesion.jpg`` as a list of one pattern, in Hydra's quotes."""
    key, _, value = word.partition("=")
    if key != "dataset.exclude" or not value or value[0] in "['\"":
        return word
    return f"{key}=[{','.join(map(quote_override_text, value.split(',')))}]"
