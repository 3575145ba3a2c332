"""What a study costs around its trainings: skipped runs, a warm process's runs, two at once.

    python benchmarks/multirun.py skipped --root ../shared/data/isic9
    python benchmarks/multirun.py fixed --root ../shared/data/isic9
    python benchmarks/multirun.py parallel --root ../shared/data/isic9 --epochs 20

``skipped`` runs a study of many seeds, then asks for it again: seconds, and processor seconds, that
each further run costs which has finished before, Hydra's own included. ``fixed`` trains two runs in
one process: what the second takes beside its fit and its evaluation, part by part. ``parallel``
trains two runs one after the other with all threads, then both at once with half of them each.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Of the clock, and of the processor.
Seconds = NDArray[np.float64]
HERE = Path(__file__).resolve().parent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["skipped", "fixed", "parallel"])
    parser.add_argument("--root", help="the nine-class ISIC folder; else synthetic images")
    parser.add_argument("--runs", type=int, default=20, help="of the study that is skipped")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--preset", default="baseline", help="that is trained")
    options = parser.parse_args()
    dataset = ["dataset=synthetic"]
    if options.root:
        root = Path(options.root).resolve()
        dataset = ["dataset=isic9", "dataset.conflicts=keep", f"dataset.root={root}"]
    with tempfile.TemporaryDirectory() as folder:
        # The user's cache folder, so that decoding is no part of what is measured.
        {"skipped": skipped, "fixed": fixed, "parallel": parallel}[options.what](
            Path(folder), dataset, options
        )


def skipped(folder: Path, dataset: list[str], options: argparse.Namespace) -> None:
    """Measure the time of a run that is skipped because it has finished before."""
    # Trivial classifiers: trained in no time, and skipped as any other.
    study = ["-m", "+experiment=majority", *dataset]
    command(folder, *study, f"seed=range({options.runs + 1})")
    few = command(folder, *study, "seed=0")
    many = command(folder, *study, f"seed=range({options.runs + 1})")
    wall, processor = ((m - f) / options.runs for f, m in zip(few, many, strict=True))
    print(f"a skipped run: {wall:.3f} s, {processor:.3f} s of the processor")


def fixed(folder: Path, dataset: list[str], options: argparse.Namespace) -> None:
    """Measure the time of the second run of a process, part by part."""
    os.chdir(folder)
    sys.path.insert(0, str(HERE.parent))
    import melanoma_lab as lab

    overrides = [f"+experiment={options.preset}", *dataset, f"training.epochs={options.epochs}"]
    lab.train(*overrides, "seed=0", verbose=False)
    parts: defaultdict[str, Seconds] = defaultdict(lambda: np.zeros(2))
    with timed(parts):
        begun = now()
        lab.train(*overrides, "seed=1", verbose=False)
        whole = now() - begun
    parts["beside fit and evaluation"] = whole - parts["fit"] - parts["evaluation"]
    print("the second run of a process: seconds, and those of the processor, all threads together")
    for name, (wall, processor) in [("whole", whole), *parts.items()]:
        print(f"  {name:26} {wall:7.2f} {processor:7.2f}")


def now() -> Seconds:
    """Return the wall time and the processor time of this process, in seconds."""
    return np.array([time.perf_counter(), time.process_time()])


@contextmanager
def timed(parts: dict[str, Seconds], named: Collection[str] = ()) -> Iterator[None]:
    """Measure the parts of a run in the block.

    Args:
        parts: filled in.
        named: those that are measured; none: all.
    """
    import keras

    from melanoma_lab.tracking import Tracker

    # Modules by their full names: the package has functions called as they are.
    evaluated_run = import_module("melanoma_lab.evaluation.evaluated_run")
    record, train = (import_module(f"melanoma_lab.runs.{name}") for name in ("run_report", "train"))

    def watch(owner: Any, name: str, called: str) -> Callable[[], None]:
        original = getattr(owner, name)
        if named and called not in named:
            return lambda: None

        @wraps(original)
        def measured(*arguments: Any, **more: Any) -> Any:
            begun = now()
            try:
                return original(*arguments, **more)
            finally:
                parts[called] += now() - begun

        setattr(owner, name, measured)
        return lambda: setattr(owner, name, original)

    undo = [
        watch(train, "prepare_data", "prepare data"),
        watch(train, "balance", "balance"),
        watch(train, "_assemble", "build network"),
        watch(keras.Model, "fit", "fit"),
        watch(keras.Model, "predict", "evaluation"),
        watch(evaluated_run, "compute_run_metrics", "metrics"),
        watch(record, "save_run_figures", "plots"),
        watch(Tracker, "log_network", "save model"),
        watch(Tracker, "_begin", "begin run"),
        watch(Tracker, "_end", "send and end run"),
    ]
    try:
        yield
    finally:
        for restore in undo:
            restore()


def parallel(folder: Path, dataset: list[str], options: argparse.Namespace) -> None:
    """Two runs one after the other, and at once."""
    arm = [f"+experiment={options.preset}", *dataset, f"training.epochs={options.epochs}"]
    arm += ["seed=0,1", "tracking.model=false"]
    command(folder, "-m", "+experiment=majority", *dataset)  # the cache is warm from here on
    one, one_processor = command(folder, "-m", *arm, "study=one_by_one")
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    two, two_processor = command(folder, "-m", *launcher, *arm, "study=at_once")
    print(f"one after the other {one:.0f} s ({one_processor:.0f} s of the processor)")
    print(f"both at once        {two:.0f} s ({two_processor:.0f} s of the processor)")
    print(f"ratio               {one / two:.2f}")


def command(folder: Path, *arguments: str) -> tuple[float, float]:
    """Run the lab; its seconds, and those of the processor, its workers' included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begun = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "melanoma_lab", *arguments],
        check=True,
        capture_output=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE.parent)},
    )
    wall = time.perf_counter() - begun
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
