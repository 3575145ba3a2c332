"""Whatever is typed ends as a checked configuration or as a short message, never in a traceback.

``python -m pytest tests/config/test_any_command.py --hypothesis-profile thorough`` tries 5,000.
"""

import contextlib
import importlib
import io
import signal
import sys
from pathlib import Path

import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hypothesis import HealthCheck, example, given, settings

from melanoma_lab import __main__, commands
from melanoma_lab.config.schema import Config
from tests.support.command_lines import command_lines

pytestmark = [pytest.mark.integration, pytest.mark.slow]

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The real entry point, in this process, with tasks that do nothing."""
    seen = []
    monkeypatch.setattr(commands, "run_command", lambda config, arm: seen.append(config))
    compare = importlib.import_module("melanoma_lab.comparison.study_report")
    monkeypatch.setattr(compare, "report_study", lambda *args, **more: None)
    monkeypatch.setattr(signal, "signal", lambda *args: None)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)

    def run(arguments):
        seen.clear()
        monkeypatch.setattr(sys, "argv", ["melanoma_lab", *arguments])
        out, err = io.StringIO(), io.StringIO()
        before, hydra_config = GlobalHydra.get_state(), HydraConfig.get_state()
        GlobalHydra.instance().clear()
        HydraConfig.instance().cfg = None
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                __main__.main()
            status = 0
        except SystemExit as end:
            status = end.code or 0
        finally:
            GlobalHydra.set_state(before)
            HydraConfig.set_state(hydra_config)
        return status, out.getvalue(), err.getvalue(), list(seen)

    return run


@settings(
    max_examples=max(150, settings.default.max_examples),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(command_lines)
@example(["study=${nothing}"])
@example(["study=../../elsewhere"])
@example([f"study={'n' * 300}"])
@example(["~architecture"])
@example(["audit", "~split", "-m"])
@example(["tracking.uri=${nothing}", "-m"])
@example(["architecture=0"])
@example(["1" * 5000])
@example(["seed=1" + "1" * 5000])
@example(["dataset.positive_class=" + "1" * 5000])
@example(["seed=1", "--multirun", "--cfg=all"])
@example(["dataset.columns.imge=x", "dataset=csv"])
def test_any_command_ends_well(lab, arguments):
    status, out, err, configs = lab(arguments)
    assert status in {0, 2}, (status, err)
    assert "Traceback" not in out + err
    assert all(isinstance(config, Config) for config in configs)
    if status == 2 and "usage:" not in err:
        said = err.partition("melanoma_lab: ")[2]  # what Hydra says before is out of our hands
        assert said
        assert len(said) < 1500
