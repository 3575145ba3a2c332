"""Composing without a command line: Hydra's own words, and its state left as it was."""

import shlex

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.version import VersionBase

from melanoma_lab.config.compose import compose_config, expand_multirun
from melanoma_lab.core.errors import UserError
from melanoma_lab.core.shell_commands import format_lab_command


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["seed=1"],
        ["+experiment=baseline,dropout", "seed=0,1,2"],
        ["seed=range(3)", "optimizer.learning_rate=choice(1e-3,3e-4)", "study=x"],
        ["architecture.filters=[4,8],[8,16]", "dataset.positive_class=null"],
        ["study='a,b'", "seed=0,1"],
    ],
)
def test_jobs_are_those_of_hydras_own_sweeper(overrides):
    parsed = OverridesParser.create().parse_overrides(overrides)
    (expected,) = BasicSweeper.split_arguments(parsed, None)
    assert expand_multirun(overrides) == expected


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=interval(0,1)"], "interval(0,1): expected values"),
        (["seed"], "seed"),
        (["+experiment=dropuot"], "Did you mean dropout?"),
        (["regularisation.droput=1"], "Did you mean regularisation.rate?"),
        (["dataset=folder"], "dataset.root is not set"),
        (["seed=0,1"], "seed=0,1"),
        (
            ["seed=0", "compare"],
            f"compare: expected KEY=VALUE. A task comes first: {format_lab_command('compare')}",
        ),
        (["study=séance é"], "quotes within quotes: 'study=\"séance é\"'"),
        (["dataset.root=pictures (1)"], "quotes within quotes: 'dataset.root=\"pictures "),
        (["dataset.root=DIR"], "dataset=synthetic is drawn by the program and has no folder"),
        (["architecture=0"], "must be a string"),
    ],
)
def test_mistakes_are_the_users(overrides, message):
    def ask():
        expand_multirun(overrides)
        compose_config(overrides)

    with pytest.raises(UserError) as caught:
        ask()
    assert message in str(caught.value)


@pytest.mark.parametrize("value", ["séance é", "pictures (1)", "a=b,c", 'say "yes"', "br[1]"])
def test_the_quotes_that_are_told_are_right(value):
    with pytest.raises(UserError) as caught:
        compose_config([f"cache={value}"])
    _, _, told = str(caught.value).partition("quotes within quotes: ")
    config, _ = compose_config(shlex.split(told))
    assert config.cache == value


def test_the_arm_is_that_of_the_command_line():
    config, arm = compose_config(["+experiment=dropout", "seed=3", "training.epochs=2"])
    assert (config.seed, config.regularisation.name) == (3, "dropout")
    assert arm.name == "dropout,training.epochs=2"


def test_a_folder_of_ones_own_presets(tmp_path):
    folder = tmp_path / "my, conf"
    (folder / "experiment").mkdir(parents=True)
    (folder / "experiment" / "mine.yaml").write_text("# @package _global_\nseed: 7\n")
    config, arm = compose_config(["+experiment=mine"], folder)
    assert (config.seed, arm.name) == (7, "mine")
    with pytest.raises(UserError, match="config_dir=nowhere: no such folder"):
        compose_config([], "nowhere")


@pytest.mark.parametrize("fails", [False, True])
def test_a_notebooks_own_hydra_goes_on(tmp_path, fails):
    (tmp_path / "own.yaml").write_text("answer: 42\n")
    hydra, base = GlobalHydra.instance().hydra, VersionBase.instance().getbase()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(tmp_path), version_base="1.2"):
            if fails:
                with pytest.raises(UserError):
                    compose_config(["sed=1"])
            else:
                compose_config(["seed=1"])
            assert str(VersionBase.instance().getbase()) == "1.2"
            assert compose("own")["answer"] == 42
        assert not GlobalHydra.instance().is_initialized()
        compose_config(["seed=1"])
        assert not GlobalHydra.instance().is_initialized()
    finally:
        GlobalHydra.instance().hydra, VersionBase.instance().version_base = hydra, base
