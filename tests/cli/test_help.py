import pytest

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.cli.help import COMMANDS, GROUPS, SECTIONS, format_help, list_keys
from melanoma_lab.config.descriptions import describe_keys, list_options
from melanoma_lab.config.schema import Config, Task
from melanoma_lab.core.errors import UserError

pytestmark = pytest.mark.unit

NOTICE = "Research use only: not a medical device."


def joined(text):
    """A text without its line breaks."""
    return " ".join(text.split())


def test_the_overview_has_every_command_group_and_preset():
    text = format_help(["--help"])
    for task in Task:
        assert f"\n  {task.value} " in text
    for folder in CONF_DIR.rglob("*"):
        if folder.is_dir():
            names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            group = folder.relative_to(CONF_DIR).as_posix()
            assert (names if group == "experiment" else f"{group}: {names}") in joined(text)
    assert text.endswith(NOTICE)


def test_every_command_and_group_has_a_purpose_and_keys_that_exist():
    assert set(COMMANDS) == set(Task)
    assert set(GROUPS) == {*list_options(), "mapping"}
    for task, command in COMMANDS.items():
        assert command.purpose.endswith("."), task
        assert set(command.groups) <= set(GROUPS)
        for name in command.keys:
            assert list_keys([name]), f"{task}: {name}"
    used = {key.key for command in COMMANDS.values() for key in list_keys(command.keys)}
    assert {key.key for key in describe_keys(Config)} - used == {"task"}


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("words", [["task={}", "--help"], ["--help", "{}"]])
def test_the_help_of_a_command_fits_on_a_page_and_has_its_keys(task, words):
    text = format_help([word.format(task.value) for word in words])
    lines = text.splitlines()
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    command = COMMANDS[task]
    assert command.example in lines[0]
    for key in list_keys(name for name in command.keys if name not in SECTIONS):
        assert f"  {key.key}={key.default}  ({key.type})" in lines
        assert key.text.replace("`", "") in joined(text)
    for name in {*command.groups} | ({*command.keys} & {*SECTIONS}):
        assert any(line.startswith(f"  {name}") for line in lines)
    assert text.endswith(NOTICE)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_help_of_a_section_has_its_keys(section):
    lines = format_help(["--help", section]).splitlines()
    keys = [key for key in describe_keys(Config) if key.key.startswith(f"{section}.")]
    assert len(keys) > 0
    assert all(any(line.startswith(f"  {key.key}=") for line in lines) for key in keys)


def test_the_help_of_a_group_lists_its_options_and_that_of_an_option_its_keys():
    assert "  optimizer=sgd " in format_help(["--help", "optimizer"])
    text = format_help(["loss=focal", "--help"])
    assert text.startswith("loss=focal\n\nFocal loss: easy images count less")
    assert "  loss.gamma=2.0  (number)\n" in text
    assert format_help(["--help", "+experiment=best"]).startswith("+experiment=best\n\nHow good")


@pytest.mark.parametrize("words", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]])
def test_a_users_own_presets_and_options_are_listed(tmp_path, words):
    for group in ("experiment", "loss"):
        (tmp_path / group).mkdir()
        (tmp_path / group / "mine.yaml").write_text("# Is mine better?\nseed: 9\n")
    words = [word.format(tmp_path) for word in words]
    assert "metadata_only, mine, mixup" in joined(format_help([*words, "--help"]))
    assert "  loss=mine " in format_help([*words, "--help", "loss"])
    assert "Is mine better?" in format_help([*words, "--help", "+experiment=mine"])
    assert "Is mine better?" in format_help([*words, "--help", "loss=mine"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["+experiment=drpout"], r"experiment=drpout: no such option\. Did you mean dropout\?"),
        (["loss=focl"], r"loss=focl: no such option\. Did you mean focal\?"),
        (["--config-dir", "nowhere"], "no such folder"),
    ],
)
def test_mistakes_are_told(words, message):
    with pytest.raises(UserError, match=message):
        format_help(["--help", *words])
