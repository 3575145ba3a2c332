import pytest
from hydra.errors import HydraException

from melanoma_lab.__main__ import CONF_DIR
from melanoma_lab.cli.arguments import format_help
from melanoma_lab.core.errors import UserError

pytestmark = pytest.mark.unit


def test_every_group_with_its_options_and_no_internal_ones():
    lines = format_help(["--help"]).splitlines()
    for folder in CONF_DIR.rglob("*"):
        if folder.is_dir():
            names = ", ".join(sorted(path.stem for path in folder.glob("*.yaml")))
            assert f"{folder.relative_to(CONF_DIR).as_posix()}: {names}" in lines
    assert not any(line.startswith(("schema", "hydra")) for line in lines)
    assert "Research use only: not a medical device." in lines


def test_keys_are_as_the_overrides_leave_them():
    assert "\nseed: 0\n" in format_help(["--help"])
    text = format_help(["-h", "+experiment=dropout", "seed=7"])
    assert "\nseed: 7\n" in text
    assert "\n  rates:\n" in text


@pytest.mark.parametrize("words", [["--config-dir", "{}"], ["--config-dir={}"], ["-cd", "{}"]])
def test_a_users_own_presets_are_listed(tmp_path, words):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 9\n")
    words = [word.format(tmp_path) for word in words]
    text = format_help([*words, "--help", "+experiment=mine"])
    assert "metadata_only, mine, mixup" in text
    assert "\nseed: 9\n" in text


def test_mistakes_are_told():
    with pytest.raises(HydraException, match="drpout"):
        format_help(["--help", "+experiment=drpout"])
    with pytest.raises(UserError, match="no such folder"):
        format_help(["--help", "--config-dir", "nowhere"])
