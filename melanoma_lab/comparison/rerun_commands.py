"""The commands that make a study and its comparison again."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_lab.comparison.compare import PRIMARY_METRIC, ArmSummary, Comparison
from melanoma_lab.comparison.pairing import list_covered_repetitions
from melanoma_lab.config.arm import CUSTOM_PRESET
from melanoma_lab.config.arm_labels import split_arm_name
from melanoma_lab.config.compose import load_preset_reference
from melanoma_lab.config.overrides import format_override_value
from melanoma_lab.config.schema.tracking import DEFAULT_TRACKING_URI, mask_password
from melanoma_lab.core.shell_commands import format_portable_command
from melanoma_lab.tracking.provenance import UNKNOWN_COMMIT, shorten_commit


def build_compare_command(study: str, *, reference: str | None, metric: str, uri: str) -> str:
    """The command that compares a study's tracked runs.

    Args:
        study: its name.
        reference: as given, None where each arm is compared with the one that it names.
        metric: the one that gives the verdicts.
        uri: MLflow's tracking URI.
    """
    words = [f"study={study}"]
    words += [f"reference={format_override_value(reference)}"] if reference else []
    words += [f"metric={metric}"] if metric != PRIMARY_METRIC else []
    words += [f"tracking.uri={mask_password(uri)}"] if uri != DEFAULT_TRACKING_URI else []
    return format_portable_command("compare", *words)


def build_training_commands(comparison: Comparison, root: str | None) -> list[str]:
    """The commands that train the arms of a study, as few as say it all, and make its ensembles.

    Args:
        comparison: of the study.
        root: ``dataset.root`` of its runs, None where the dataset needs none.
    """
    shared = [f"study={comparison.study}"] if comparison.study != "ablation" else []
    shared += [f"dataset.root={root}"] if root else []
    together: dict[tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for arm in comparison.arms.values():
        if arm.is_ensemble:
            continue
        preset, overrides = split_arm_name(arm.name)
        overrides = (*overrides, *_reference_words(arm, preset))
        for seeds, folds in _grids(arm):
            together.setdefault((overrides, seeds, folds), []).append(preset)
    commands = []
    for (overrides, seeds, folds), presets in together.items():
        words = [f"+experiment={','.join(presets)}"] if presets != [CUSTOM_PRESET] else []
        words += [f"seed={_listed(seeds)}"]
        words += [f"split.fold={_listed(folds)}"] if folds != (0,) else []
        many = len(presets) * len(seeds) * len(folds) > 1
        multirun = ["-m"] if many else []
        commands.append(format_portable_command(*multirun, *words, *overrides, *shared))
    return commands + [
        format_portable_command("ensemble", *_ensemble_words(comparison, arm))
        for arm in comparison.arms.values()
        if arm.is_ensemble
    ]


def describe_lab_versions(comparison: Comparison) -> str:
    """Which lab trained the arms of a study: versions and commits, as its runs say."""
    runs = [run for arm in comparison.arms.values() if not arm.is_ensemble for run in arm.runs]
    versions = {run.tags.get("melanoma_lab", "") for run in runs} - {""}
    commits = {shorten_commit(run.tags.get("git_commit", UNKNOWN_COMMIT), 7) for run in runs} - {
        UNKNOWN_COMMIT
    }
    lab = f"melanoma_lab {' and '.join(sorted(versions))}".strip()
    return f"{lab} at commit {' and '.join(sorted(commits))}" if commits else lab


def _grids(arm: ArmSummary) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Seeds and folds whose combinations are an arm's runs: all at once, or fold by fold."""
    there = list_covered_repetitions(arm.runs)
    if len(there) == len(arm.seeds) * len(arm.folds):
        return [(arm.seeds, arm.folds)]
    return [
        (tuple(sorted(seed for seed, of in there if of == fold)), (fold,)) for fold in arm.folds
    ]


def _reference_words(arm: ArmSummary, preset: str) -> list[str]:
    """What tells an arm's runs their reference, where it is not the one that their preset names."""
    named = arm.runs[0].tags.get("reference", "")
    if named == (load_preset_reference(preset) or ""):
        return []
    return [f"reference={format_override_value(named)}" if named else "reference=null"]


def _ensemble_words(comparison: Comparison, arm: ArmSummary) -> list[str]:
    """What makes an arm of ensembles, after the arm that it is made of has been trained."""
    of = arm.runs[0].tags.get("reference", "")
    members = len({seed for seed, _ in arm.runs[0].covers})
    return [
        f"study={comparison.study}",
        f"arm={format_override_value(comparison.short.get(of, of))}",
        f"members={members}",
    ]


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
