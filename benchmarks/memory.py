"""Memory over many small runs in one process, as a long multirun has them.

Usage: python benchmarks/memory.py [runs]
"""

from __future__ import annotations

import gc
import sys
import tempfile
from pathlib import Path

from hydra import compose, initialize_config_dir

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.validation import validate_config


def resident() -> float:
    """Memory of this process that is not swapped out, in MB (Linux)."""
    status = Path("/proc/self/status").read_text().split("VmRSS:")[1]
    return int(status.split()[0]) / 1024


def main(runs: int) -> None:
    """Train one-step runs on 16x16 images and print the memory after each."""
    from melanoma_lab.commands.train import train_arm

    with (
        tempfile.TemporaryDirectory() as folder,
        initialize_config_dir(str(CONF_DIR), version_base="1.3"),
    ):
        overrides = [f"cache={folder}/cache", f"tracking.uri=sqlite:///{folder}/mlflow.db"]
        overrides += ["dataset.lesions=110", "dataset.image_size=16", "training.batch_size=256"]
        overrides += ["architecture.filters=[4,8,8]", "training.epochs=1", "tracking.model=false"]
        sizes = []
        for seed in range(runs):
            train_arm(
                validate_config(compose("config", [*overrides, f"seed={seed}"])), Arm("a", "a")
            )
            gc.collect()
            sizes.append(resident())
            print(f"run {seed}: {sizes[-1]:.0f} MB, {len(gc.get_objects())} objects", flush=True)
        later = sizes[len(sizes) // 5 :]
        print(f"{(later[-1] - later[0]) / max(1, len(later) - 1):.2f} MB a run after warm-up")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
