"""What a study costs around its trainings: runs that are skipped, and two runs at once.

    python benchmarks/multirun.py skipped --root ../shared/data/isic9
    python benchmarks/multirun.py parallel --root ../shared/data/isic9 --epochs 20

``skipped`` runs a study of many seeds, then asks for it again: seconds, and processor seconds, that
each further run costs which has finished before, Hydra's own included. ``parallel`` trains two runs
one after the other with all threads, then both at once with half of them each. What a run costs
beside its fit, part by part: ``fixed_cost.py``.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["skipped", "parallel"])
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
        {"skipped": skipped, "parallel": parallel}[options.what](Path(folder), dataset, options)


def skipped(folder: Path, dataset: list[str], options: argparse.Namespace) -> None:
    """Measure the time of a run that is skipped because it has finished before."""
    # Trivial classifiers: trained in no time, and skipped as any other.
    study = ["-m", "+experiment=majority", *dataset]
    command(folder, *study, f"seed=range({options.runs + 1})")
    few = command(folder, *study, "seed=0")
    many = command(folder, *study, f"seed=range({options.runs + 1})")
    wall, processor = ((m - f) / options.runs for f, m in zip(few, many, strict=True))
    print(f"a skipped run: {wall:.3f} s, {processor:.3f} s of the processor")


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
