"""Commands, files, messages, links and figures of the documentation are those of the program."""

import ast
import re
import shutil
from collections.abc import Iterator

import pytest

from melanoma_lab.cli.arguments import normalise_arguments
from melanoma_lab.cli.help import CONFIG_DIR_FLAGS, format_help
from melanoma_lab.config.arm import check_jobs_distinct, parse_arm
from melanoma_lab.config.compatibility import check_required_keys
from melanoma_lab.config.compose import compose_config, expand_multirun
from melanoma_lab.config.schema import Task
from melanoma_lab.tuning.plan import plan_search
from melanoma_lab.tuning.space_validation import TuneCommand
from tests.support.documentation import (
    PAGES,
    REPOSITORY,
    STUDIES,
    find_blocks,
    find_commands,
    list_shown_figures,
    read_comparison,
    read_page,
    write_files,
)

pytestmark = pytest.mark.unit

TRACKED_STUDIES = [study for study in STUDIES if (study / "comparison.json").exists()]
#: Folders that commands name: they are made before.
FOLDERS = ("DIR", "OTHER_DIR", "leaky-isic9", "my images (1)", "my_images", "pictures")
#: Words that a study's command says because a preset has other values by now. The kept report's
#: arms have these values, and names without them.
NO_LONGER_DEFAULT = {
    "ham10000-finetuning": (
        *("dataset.resize=squash", "finetuning.unfreeze_from=block3a", "training.epochs=12"),
    ),
    "ham10000-ingredients": ("dataset.resize=squash", "training.epochs=12"),
}
#: Beginnings of other commands, and the test or step that runs such ones.
RUN_ELSEWHERE = {
    "mlflow ui": "tests/test_mlflow_ui.py",
    "mlflow models serve": "tests/test_serving.py",
    "mlflow server": "tests/support/tracking_server.py",
    "python my_lab.py": "tests/test_documented_code.py",
    "python my_loss.py": "tests/test_documented_code.py",
    "python3 install.py": ".ci/run",
    ".venv/bin/python -m pip install": ".ci/run",
    ".venv/bin/python -m pytest": ".ci/run",
    ".venv/bin/poe docs": ".ci/run",
    "python benchmarks/": "benchmarks",
    "git clone": ".ci/run",
}
#: Commands of the shell and of uv that need no test of ours.
PLAIN = ("cd melanoma_lab", "source .venv/bin/activate", ".venv/bin/uv cache clean", "rm -rf")


def name_of(path):
    return str(path.relative_to(REPOSITORY))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with all that commands name, where they are composed."""
    for name in FOLDERS:
        (tmp_path / name).mkdir()
    for conf in (REPOSITORY / "experiments").glob("*/conf"):
        shutil.copytree(conf, tmp_path / conf.relative_to(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def split_jobs(words) -> Iterator[tuple[list[str], str | None]]:
    """The overrides of each job of a command of the lab, and its folder of configuration."""
    if "--help" in words:
        (subject,) = [word for word in words if word != "--help"] or ["python -m melanoma_lab"]
        assert subject in format_help(words)
        return
    words = normalise_arguments(words)
    config_dir = None
    for flag in {*CONFIG_DIR_FLAGS} & {*words}:
        at = words.index(flag)
        config_dir = words[at + 1]
        del words[at : at + 2]
    words = [word for word in words if not word.lstrip("+").startswith("hydra")]
    if words[:1] == ["-m"]:
        jobs = expand_multirun(words[1:])
        check_jobs_distinct(jobs)
        yield from ((job, config_dir) for job in jobs)
    else:
        yield words, config_dir


def check_command(words):
    seen = set()
    for job, config_dir in split_jobs(words):
        arm = parse_arm(job)
        if arm in seen:  # another seed or fold
            continue
        seen.add(arm)
        config, arm = compose_config(job, config_dir)
        check_required_keys(config)
        if config.task is Task.tune:
            plan_search(config, arm, TuneCommand.from_overrides(job, config_dir))


@pytest.mark.integration
@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_composed_or_run_by_a_test(page, folder):
    write_files(page, folder)
    for words in find_commands(page, folder):
        line = " ".join(words)
        if words[1:3] == ["-m", "melanoma_lab"]:
            check_command(words[3:])
        elif not line.startswith(PLAIN):
            places = [where for start, where in RUN_ELSEWHERE.items() if line.startswith(start)]
            assert places, f"no test is known to run this: {line}"
            assert (REPOSITORY / places[0]).exists()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_the_lab_stand_where_they_are_checked(page):
    """In blocks of bash: not in blocks of other languages, indented ones or prose."""
    text = read_page(page)
    checked = "".join(find_blocks(page, "bash", ""))
    elsewhere = "".join(find_blocks(page, "text", "console", "sh", "shell"))
    assert "-m melanoma_lab -m" not in elsewhere
    assert text.count("\n```\n\n    python") == 0
    assert checked.count("pip install") == len(
        re.findall(r"^\.venv/bin/python -m pip install", checked, flags=re.MULTILINE)
    )


@pytest.mark.integration
@pytest.mark.parametrize("study", TRACKED_STUDIES, ids=name_of)
def test_the_command_of_a_kept_study_trains_the_arms_of_its_report(study, folder):
    made = set()
    for words in find_commands(study / "README.md", folder):
        for job, _ in split_jobs(words[3:]):
            if f"study={study.name}" in job and not any(w.startswith("task=") for w in job):
                made.add(parse_arm(job).name)
    kept = {arm for arm in read_comparison(study)["arms"] if ",ensemble=" not in arm}
    words = NO_LONGER_DEFAULT.get(study.name, ())
    if words:
        page = (study / "README.md").read_text()
        assert "**This command has not been run.**" in page
        assert all(f"`{word}`" in page for word in words)
    made = {",".join(part for part in arm.split(",") if part not in words) for arm in made}
    assert made == kept


#: A difference or a level with its interval, with or without words between them.
INTERVAL = re.compile(
    r"([+-]?\d+\.\d(?: %)?)(?: points[^(.]*| balanced accuracy[^(.]*)? "
    r"\((?:95 % interval[a-z ]*)?([+-]?\d+\.\d to [+-]?\d+\.\d)"
)
LEVEL = re.compile(r"\d+\.\d %|\b0\.\d{3}\b")


def find_figures(text: str) -> tuple[set[str], set[str]]:
    """The figures with intervals, and those without, that a text shows outside of its code."""
    text = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.DOTALL)
    # p values, and figures of the course project, are no metrics of the study.
    text = re.sub(r"p = 0\.\d+", "", " ".join(text.split()))
    return {f"{point} ({ends})" for point, ends in INTERVAL.findall(text)}, {*LEVEL.findall(text)}


@pytest.mark.parametrize("study", TRACKED_STUDIES, ids=name_of)
def test_figures_of_a_kept_study_are_those_of_its_comparison(study):
    single, intervals = list_shown_figures(read_comparison(study))
    shown, levels = find_figures((study / "README.md").read_text())
    assert shown
    assert shown <= intervals
    assert levels - {"14.3 %"} <= single  # chance: one of seven classes


def test_figures_elsewhere_are_those_of_the_study_that_they_link_to():
    """In README and docs, a paragraph or row with an interval links to the study that has it."""
    n = 0
    for page in PAGES:
        if "experiments" in page.parts:
            continue
        for paragraph in re.split(r"\n\n|\n(?=[|*] )", read_page(page)):
            shown, levels = find_figures(paragraph)
            if not shown:
                continue
            studies = re.findall(r"experiments/([\w-]+)/README\.md", paragraph)
            assert len(studies) == 1, (name_of(page), paragraph)
            comparison = read_comparison(REPOSITORY / "experiments" / studies[0])
            single, intervals = list_shown_figures(comparison)
            assert shown <= intervals, (name_of(page), paragraph)
            assert levels <= single, (name_of(page), paragraph)
            n += len(shown)
    assert n >= 8


PRESETS = sorted((REPOSITORY / "conf" / "experiment").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS, ids=name_of)
def test_figures_of_a_preset_are_those_of_the_studies_that_it_names(preset):
    head = "\n".join(re.findall(r"^# (.*)$", preset.read_text(), flags=re.MULTILINE))
    shown, levels = find_figures(re.sub(r"^  .*$", "", head, flags=re.MULTILINE))
    for name in re.findall(r"experiments/([\w-]+)", head):
        if (REPOSITORY / "experiments" / name / "comparison.json").exists():
            single, intervals = list_shown_figures(
                read_comparison(REPOSITORY / "experiments" / name)
            )
            shown, levels = shown - intervals, levels - single
    assert not shown
    assert levels <= {"14.3 %"}  # chance: one of seven classes


@pytest.mark.parametrize("study", STUDIES, ids=name_of)
def test_a_kept_study_names_the_version_that_made_it(study):
    text = (study / "README.md").read_text()
    assert re.search(r"\*\*Made by\*\* version \d+\.\d+\.\d+ of the lab, \d{4}-\d\d-\d\d", text)
    assert re.search(r"commit `[0-9a-f]{7}`", text)
    assert "**What it does not say**" in text


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", read_page(page), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, heading = target.partition("#")
        path = (page.parent / name).resolve() if name else page
        assert path.exists(), f"{name_of(page)}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.*)$", read_page(path), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in slugs, f"{name_of(page)}: {target}"


def find_message_patterns() -> list[re.Pattern[str]]:
    """All texts of the program, as patterns in which any text may stand for a value."""
    patterns = []
    for path in (REPOSITORY / "melanoma_lab").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [
                    re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".*?"
                    for part in node.values
                ]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [re.escape(node.value)]
            else:
                continue
            literal = "".join(part for part in parts if part != ".*?")
            if len(literal) >= 20:
                patterns.append(re.compile("".join(parts)))
    return patterns


def test_messages_of_the_page_are_those_of_the_program():
    """Every word of a message is of a text of the program, or stands for a value in it."""
    messages = find_blocks(REPOSITORY / "docs" / "troubleshooting.md", "text")
    assert len(messages) >= 20
    patterns = find_message_patterns()
    for message in messages:
        text = message.strip()
        found = [match for pattern in patterns for match in pattern.finditer(text)]
        covered = {i for match in found for i in range(*match.span())}
        # What is left are values: the message's first and last words.
        assert len(covered) > 0.4 * len(text), text
