"""Answers that take long to find and fit on a page, kept as JSON under a digest of the question."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock


def kept_answer(folder: Path, question: object, find: Callable[[], Any]) -> Any:
    """The answer to a question, found first where the folder does not have it.

    Of several processes with the same question one finds the answer and the others wait.

    Args:
        folder: where answers are kept; made if it is not there.
        question: all that the answer depends on, as JSON can write it.
        find: gives the answer, as JSON can write it.
    """
    key = hashlib.sha256(json.dumps(question).encode()).hexdigest()[:32]
    path = folder / f"{key}.json"
    answer = _load(path)
    if answer is None:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            answer = _load(path)
            if answer is None:
                answer = find()
                _save(path, answer)
    return answer


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # not there, or not whole: it is found again
        return None


def _save(path: Path, answer: Any) -> None:
    partial = path.with_name(f"{path.stem}.{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(json.dumps(answer, separators=(",", ":")))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
