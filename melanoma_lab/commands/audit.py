"""Audit a dataset: read and inspect it, write a report and print the problems."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from melanoma_lab.audit.dataset_audit import audit_images
from melanoma_lab.audit.findings import Findings
from melanoma_lab.audit.inspection import find_shared_images, inspect_files
from melanoma_lab.audit.problems import find_problems, show_findings
from melanoma_lab.config.arm import Arm
from melanoma_lab.config.schema import Config
from melanoma_lab.config.schema.data import CsvDataset
from melanoma_lab.core.console import show_progress
from melanoma_lab.core.errors import RunError
from melanoma_lab.core.files import get_cache_folder
from melanoma_lab.data.cache import compute_file_digests
from melanoma_lab.data.image_files import describe_ignored_files, describe_outside_links
from melanoma_lab.data.readers import read_listing
from melanoma_lab.reports.audit_page import write_audit_page
from melanoma_lab.training.hardware import count_available_threads


def run(config: Config, _arm: Arm) -> None:
    """Find what is wrong with a dataset."""
    audit_dataset(config)


def audit_dataset(config: Config) -> Findings:
    """Find problems of a dataset before training.

    The function writes ``experiments/audit-<dataset>/audit.json`` and ``audit.html`` below the
    current folder.

    Raises:
        UserError: the dataset's folder or a table in it cannot be used.
        RunError: the report cannot be written, or there are leaks and ``audit.strict`` is true.
    """
    dataset = config.dataset
    folder = Path("experiments") / f"audit-{dataset.name}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(
            f"{folder.absolute()}: cannot be created ({error.strerror}); run the command in a "
            "folder that you may write to."
        ) from error
    cache = get_cache_folder(config.cache)
    threads = config.training.threads or count_available_threads()
    with show_progress("reading the images") as report:
        listing = read_listing(dataset, cache, report)
        manifest = listing.images
        manifest["digest"] = compute_file_digests(list(manifest["path"]), threads)
        inspection = inspect_files(
            list(manifest["path"]),
            list(manifest["digest"]),
            cache=cache,
            threads=threads,
            progress=report,
        )
    findings, images = audit_images(
        listing,
        inspection,
        name=dataset.name,
        classes=dataset.classes,
    )
    if config.against:
        with show_progress("comparing with the other folder") as report:
            shared = find_shared_images(
                manifest,
                config.against,
                cache=cache,
                threads=threads,
                outside_root=dataset.outside_root,
                progress=report,
            )
        findings = dataclasses.replace(findings, against=config.against, shared_images=shared)
    # The table of a CsvDataset lists its images; other files in the folder do not matter.
    if dataset.root and not isinstance(dataset, CsvDataset):
        root = Path(dataset.root).expanduser()
        ignored = describe_ignored_files(root)
        if not dataset.outside_root:
            ignored += describe_outside_links(root)
        findings = dataclasses.replace(findings, unknown=[*findings.unknown, *ignored])
    problems = find_problems(findings)
    findings.write(folder / "audit.json")
    write_audit_page(folder / "audit.html", findings, problems, images, root=dataset.root or "")
    show_findings(findings, problems, folder)
    if config.audit.strict and findings.leaks:
        raise RunError(
            "audit.strict=true: images that belong together are separated by "
            + (
                "the published split."
                if findings.judged_split == "published"
                else "a random split."
            )
        )
    return findings
