"""Build the commands that repeat a study's runs and its comparison."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_lab.comparison.compare import PRIMARY_METRIC, ArmSummary, Comparison
from melanoma_lab.comparison.pairing import list_covered_repetitions
from melanoma_lab.config.arm import CUSTOM_PRESET, split_arm_name
from melanoma_lab.config.compose import load_preset_reference
from melanoma_lab.config.overrides import format_override_value
from melanoma_lab.config.schema.tracking import DEFAULT_TRACKING_URI, mask_password
from melanoma_lab.core.shell_commands import format_portable_command
from melanoma_lab.core.version import UNKNOWN_COMMIT, shorten_commit


def build_compare_command(study: str, *, reference: str | None, metric: str, uri: str) -> str:
    """Build the command that compares a study's tracked runs.

    Args:
        study: the name of the study.
        reference: the arm that all others are compared with; None if each names its own.
        metric: the metric that decides about the verdicts.
        uri: MLflow's tracking URI.
    """
    words = [f"study={study}"]
    words += [f"reference={format_override_value(reference)}"] if reference else []
    words += [f"metric={metric}"] if metric != PRIMARY_METRIC else []
    words += [f"tracking.uri={mask_password(uri)}"] if uri != DEFAULT_TRACKING_URI else []
    return format_portable_command("compare", *words)


def build_training_commands(comparison: Comparison, root: str | None) -> list[str]:
    """Build the commands that train the arms of a study and make its ensembles.

    Arms with the same overrides, seeds and folds share a command.

    Args:
        comparison: the comparison of the study.
        root: ``dataset.root`` of its runs; None if the dataset needs none.
    """
    shared = [f"study={comparison.study}"] if comparison.study != "ablation" else []
    shared += [f"dataset.root={root}"] if root else []
    together: dict[tuple[tuple[str, ...], tuple[int, ...], tuple[int, ...]], list[str]] = {}
    for arm in comparison.arms.values():
        if arm.is_ensemble:
            continue
        preset, overrides = split_arm_name(arm.name)
        overrides = (*overrides, *_list_reference_overrides(arm, preset))
        for seeds, folds in _list_grids(arm):
            together.setdefault((overrides, seeds, folds), []).append(preset)
    commands = []
    for (overrides, seeds, folds), presets in together.items():
        words = [f"+experiment={','.join(presets)}"] if presets != [CUSTOM_PRESET] else []
        words += [f"seed={_join_numbers(seeds)}"]
        words += [f"split.fold={_join_numbers(folds)}"] if folds != (0,) else []
        many = len(presets) * len(seeds) * len(folds) > 1
        multirun = ["-m"] if many else []
        commands.append(format_portable_command(*multirun, *words, *overrides, *shared))
    return commands + [
        format_portable_command("ensemble", *_list_ensemble_overrides(comparison, arm))
        for arm in comparison.arms.values()
        if arm.is_ensemble
    ]


def describe_lab_versions(comparison: Comparison) -> str:
    """Describe the versions and commits of melanoma_lab that trained the arms of a study."""
    runs = [run for arm in comparison.arms.values() if not arm.is_ensemble for run in arm.runs]
    versions = {run.tags.get("melanoma_lab", "") for run in runs} - {""}
    commits = {shorten_commit(run.tags.get("git_commit", UNKNOWN_COMMIT), 7) for run in runs} - {
        UNKNOWN_COMMIT
    }
    lab = f"melanoma_lab {' and '.join(sorted(versions))}".strip()
    return f"{lab} at commit {' and '.join(sorted(commits))}" if commits else lab


def _list_grids(arm: ArmSummary) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """List the grids of seeds and folds that make up an arm's runs.

    It is a single grid if the arm has all combinations, else a grid for each fold.
    """
    repetitions = list_covered_repetitions(arm.runs)
    if len(repetitions) == len(arm.seeds) * len(arm.folds):
        return [(arm.seeds, arm.folds)]
    return [
        (tuple(sorted(seed for seed, other in repetitions if other == fold)), (fold,))
        for fold in arm.folds
    ]


def _list_reference_overrides(arm: ArmSummary, preset: str) -> list[str]:
    """Return the override of ``reference`` if an arm's runs name another one than their preset."""
    named = arm.runs[0].tags.get("reference", "")
    if named == (load_preset_reference(preset) or ""):
        return []
    return [f"reference={format_override_value(named)}" if named else "reference=null"]


def _list_ensemble_overrides(comparison: Comparison, arm: ArmSummary) -> list[str]:
    """Return the overrides that make an arm of ensembles from the runs of another arm."""
    member_arm = arm.runs[0].tags.get("reference", "")
    members = len({seed for seed, _ in arm.runs[0].covers})
    return [
        f"study={comparison.study}",
        f"arm={format_override_value(comparison.short.get(member_arm, member_arm))}",
        f"members={members}",
    ]


def _join_numbers(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
