"""The command from outside: a folder with planted problems, the files it writes."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from tests.support.processes import run_command, run_python

pytestmark = pytest.mark.integration


def audit(folder, *overrides):
    words = ("audit", *overrides, f"cache={folder}/cache")
    return run_command(*words, folder=folder, COLUMNS="200")


@pytest.fixture(scope="module")
def audited(planted, tmp_path_factory):
    """The working folder of an audit of the planted folder."""
    folder = tmp_path_factory.mktemp("audited")
    done = audit(folder, "dataset=isic9", f"dataset.root={planted.root}")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return folder, done.stdout


@pytest.fixture(scope="module")
def found(audited):
    return json.loads((audited[0] / "experiments" / "audit-isic9" / "audit.json").read_text())


@pytest.fixture(scope="module")
def page(audited):
    return (audited[0] / "experiments" / "audit-isic9" / "audit.html").read_text()


@pytest.mark.parametrize(
    ("key", "attribute"),
    [
        ("exact_duplicate_groups", "exact"),
        ("pixel_duplicate_groups", "pixels"),
        ("near_duplicate_groups", "near"),
        ("label_conflicts", "conflicts"),
        ("metadata_conflicts", "metadata_conflicts"),
        ("test_images_leaking", "test_leaking"),
    ],
)
def test_what_was_planted_is_found_and_nothing_else(found, planted, key, attribute):
    assert found[key] == getattr(planted, attribute)


def test_groups_are_all_that_belongs_together(found, planted):
    together = sorted([*planted.exact, *planted.near, *planted.lesions])
    assert found["groups"] == together
    crossing = [group for group in together if len({i.split("/")[0] for i in group}) == 2]
    assert found["cross_split_groups"] == crossing


def test_files_are_counted_and_named_with_reasons(found, planted):
    files = [path for path in planted.root.rglob("*") if path.suffix in {".jpg", ".png"}]
    assert found["n_images"] == len(files)
    assert sum(n for part in found["class_counts"].values() for n in part.values()) == len(files)
    reasons = {row["image_id"]: row["reason"] for row in found["unreadable"]}
    assert sorted(reasons) == planted.unreadable
    assert reasons["Train/nevus/empty.jpg"] == "an empty file"
    assert "truncated" in reasons["Train/nevus/cut.jpg"]
    odd = {row["image_id"]: row["reason"] for row in found["suspicious"]}
    assert sorted(odd) == planted.suspicious
    assert odd["Train/nevus/wrong.jpg"] == "holds PNG, not what .jpg says"
    assert odd["Train/nevus/tiny.png"] == "tiny: 8x8 pixels"


def test_every_list_has_its_number(found):
    lists = {key: value for key, value in found.items() if isinstance(value, list)}
    assert {f"n_{key}" for key in lists} == {k for k in found if k.startswith("n_")} - {"n_images"}
    assert all(found[f"n_{key}"] == len(value) for key, value in lists.items())


def test_classes_and_sources_are_told(found):
    assert found["classes_left_out"] == ["spitz nevus"]
    assert "vascular lesion" in found["classes_without_images"]
    assert found["class_counts"]["train"]["spitz nevus"] == 1
    assert found["source_by_class"]["melanoma"]["clinic"] == 2
    assert found["judged_split"] == "published"
    assert found["missing_images"] == ["ISIC_0000009"]


def test_the_summary_says_what_is_wrong_and_what_resolves_it(audited, found):
    text = audited[1]
    n, of = found["n_test_images_leaking"], sum(found["class_counts"]["test"].values())
    assert f"The published split leaks: {n} of {of} test images" in text
    for line in ("split.leaking_test=drop", "dataset.conflicts=drop", "dataset.on_unreadable=skip"):
        assert line in text
    assert "not a medical device" in text
    assert "experiments/audit-isic9/audit.html" in text


def test_the_page_needs_nothing_but_itself(page):
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r'base64,[^"]+', "", page))
    assert "data:image/jpeg;base64," in page
    assert "prefers-color-scheme: dark" in page
    assert "not a medical device" in page


def test_the_page_is_well_formed(page):
    class Balance(HTMLParser):
        open_tags: list[str] = []  # noqa: RUF012 - one parser only

        def handle_starttag(self, tag, attrs):
            if tag not in {"meta", "img", "br"}:
                self.open_tags.append(tag)

        def handle_endtag(self, tag):
            assert self.open_tags.pop() == tag

    parser = Balance()
    parser.feed(page)
    assert parser.open_tags == []


def test_names_are_escaped(tmp_path):
    rng = np.random.default_rng(0)
    for label in ("a", "<b>&x"):
        path = tmp_path / "root" / label / "[red]x'\"<i>.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(path)
        path.with_name("copy.png").write_bytes(path.read_bytes())
    done = audit(tmp_path, "dataset=folder", f"dataset.root={tmp_path / 'root'}")
    assert done.returncode == 0, done.stderr
    assert "[red]x" in done.stdout
    page = (tmp_path / "experiments" / "audit-folder" / "audit.html").read_text()
    assert "<b>&x" not in page
    assert "&lt;b&gt;&amp;x" in page


def test_strict_exits_with_one_where_something_leaks(planted, tmp_path):
    done = audit(tmp_path, "dataset=isic9", f"dataset.root={planted.root}", "audit.strict=true")
    assert done.returncode == 1
    assert "audit.strict=true" in done.stderr
    assert (tmp_path / "experiments" / "audit-isic9" / "audit.json").is_file()


def test_strict_exits_with_zero_where_nothing_leaks(tree, tmp_path):
    done = audit(tmp_path, "dataset=folder", f"dataset.root={tree}", "audit.strict=true")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "experiments" / "audit-folder" / "audit.json").read_text())
    assert (found["n_groups"], found["judged_split"]) == (0, "random")
    assert "No leak was found" in (tmp_path / "experiments/audit-folder/audit.html").read_text()


def test_neither_tensorflow_nor_mlflow_is_loaded(tree, tmp_path):
    program = (
        "import sys\n"
        "from melanoma_lab.__main__ import main\n"
        f"sys.argv = ['melanoma_lab', 'audit', 'dataset=folder', 'dataset.root={tree}',"
        " 'cache=cache']\n"
        "main()\n"
        "loaded = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not loaded & {'tensorflow', 'keras', 'mlflow', 'Augmentor', 'matplotlib'}, loaded\n"
    )
    done = run_python("-c", program, folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_nothing_else_is_left_behind(audited):
    left = sorted(p.relative_to(audited[0]).as_posix() for p in audited[0].rglob("*.*"))
    assert [path for path in left if not path.startswith("cache/")] == [
        "experiments/audit-isic9/audit.html",
        "experiments/audit-isic9/audit.json",
    ]


def test_a_mistake_is_told_in_a_line(tmp_path):
    done = audit(tmp_path, "dataset=folder", "dataset.root=nowhere")
    assert done.returncode == 2
    assert done.stderr.endswith("melanoma_lab: dataset.root=nowhere: no such folder.\n")
    assert "Traceback" not in done.stderr
