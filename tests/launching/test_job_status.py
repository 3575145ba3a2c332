"""What jobs note of themselves, and what is left when their launcher gives up."""

import json

import pytest

from melanoma_lab.launching import JobStatus, collect_jobs

pytestmark = pytest.mark.unit


def job(number, **more):
    facts = {"failure": 0, "reason": ""} | more
    return JobStatus(
        number, "arm", "seed 0", "train", "study", "accuracy", "sqlite:///m.db", **facts
    )


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_last_note_of_a_job_counts(tmp_path):
    with collect_jobs() as notes:
        notes.begin(job(1, failure=1, reason="gone"), stoppable=7)
        notes.begin(job(0), stoppable=8)
        assert notes.stoppable() == {7, 8}
        notes.end(job(1))
        assert notes.stoppable() == {8}
    assert notes.jobs == (job(0), job(1))
    assert notes.broken == ""
    assert list(tmp_path.iterdir()) == []


def test_reports_beside_the_notes_stay(tmp_path):
    with collect_jobs() as notes:
        notes.begin(job(0))
        (tmp_path / "experiments" / "study").mkdir()
    assert [path.name for path in (tmp_path / "experiments").iterdir()] == ["study"]


def test_a_job_may_end_after_its_command(tmp_path):
    with collect_jobs() as notes:
        notes.begin(job(0))
    notes.end(job(0))
    assert list(tmp_path.iterdir()) == []


def test_a_command_without_jobs_makes_no_folder(tmp_path):
    with collect_jobs() as notes:
        assert notes.read() == ()
        assert list(tmp_path.iterdir()) == []
    assert notes.jobs == ()


def test_what_a_launcher_raises_before_any_job_is_raised():
    with pytest.raises(ValueError, match="no such sweep"), collect_jobs():
        raise ValueError("no such sweep")


def test_what_a_launcher_raises_later_is_told_with_the_jobs():
    with collect_jobs() as notes:
        notes.begin(job(0))
        raise RuntimeError("A worker was killed.\nThe exit codes are 9.")
    assert notes.jobs == (job(0),)
    assert notes.broken == "RuntimeError: A worker was killed."


def test_notes_are_json_that_is_there_whole_or_not_at_all():
    with collect_jobs() as notes:
        notes.begin(job(3))
        (path,) = notes.folder.iterdir()
        assert json.loads(path.read_text())["job"]["number"] == 3
