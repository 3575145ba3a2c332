"""Honest ablations of skin-lesion classifiers: did this change really help?

From Python::

    import melanoma_lab as lab

    run = lab.train("+experiment=dropout", "seed=1")
    result = lab.study("+experiment=baseline,dropout", "seed=0,1,2")
    together = lab.ensemble("ablation", arm="dropout")
    tuned = lab.tune("+experiment=dropout", "tuner=hyperband")
    findings = lab.audit_dataset("dataset=isic9", "dataset.root=isic9")
    table = lab.predict(run, "pictures")
    elsewhere = lab.evaluate(run, "dataset=folder", "dataset.root=others")
    exported = lab.export(run, "exported", formats=["onnx"])

``train``, ``study``, ``tune``, ``compare``, ``ensemble``, ``audit_dataset``, ``predict``,
``evaluate`` and ``export`` are described in :mod:`melanoma_lab.api`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from melanoma_lab.core.version import __version__ as __version__

if TYPE_CHECKING:
    from melanoma_lab.api import (
        Run,
        audit_dataset,
        compare,
        ensemble,
        evaluate,
        export,
        predict,
        study,
        train,
        tune,
    )
    from melanoma_lab.comparison.study_report import ComparedStudy
    from melanoma_lab.core.errors import RunError, UserError
    from melanoma_lab.inference.export.export_network import ExportResult
    from melanoma_lab.tuning.sweep import TuningResult

__all__ = [
    "ComparedStudy",
    "ExportResult",
    "Run",
    "RunError",
    "TuningResult",
    "UserError",
    "audit_dataset",
    "compare",
    "ensemble",
    "evaluate",
    "export",
    "predict",
    "study",
    "train",
    "tune",
]

_MODULES = {
    "ComparedStudy": "comparison.study_report",
    "ExportResult": "inference.export.export_network",
    "RunError": "core.errors",
    "TuningResult": "tuning.sweep",
    "UserError": "core.errors",
}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used: importing the package must cost nothing."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
