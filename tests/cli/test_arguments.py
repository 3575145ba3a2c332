import pytest

from melanoma_lab.cli.arguments import normalise_arguments
from melanoma_lab.core.errors import UserError

pytestmark = pytest.mark.unit

NO_FOLDER = ("hydra.output_subdir=null", "hydra.run.dir=.")


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        ([], []),
        (["train", "seed=1"], ["task=train", "seed=1"]),
        # Tasks that are no runs leave no working folder behind.
        (
            ["audit", "dataset=isic9"],
            ["task=audit", "dataset=isic9", "hydra.output_subdir=null", "hydra.run.dir=."],
        ),
        (["sync"], ["task=sync", "hydra.output_subdir=null", "hydra.run.dir=."]),
        (
            ["ensemble", "arm=best"],
            ["task=ensemble", "arm=best", "hydra.output_subdir=null", "hydra.run.dir=."],
        ),
        (["+experiment=baseline", "-m", "seed=1,2"], ["-m", "+experiment=baseline", "seed=1,2"]),
        (["a=1", "--multirun", "b=1,2"], ["--multirun", "a=1", "b=1,2"]),
        # Jobs are handed out one by one, unless somebody says otherwise.
        (
            ["-m", "hydra/launcher=joblib", "seed=1,2"],
            ["-m", "hydra.launcher.batch_size=1", "hydra/launcher=joblib", "seed=1,2"],
        ),
        (
            ["predict", "images=a b/[0-9](1)*.jpg", "model='m,n'"],
            ["task=predict", 'images="a b/[0-9](1)*.jpg"', "model='m,n'", *NO_FOLDER],
        ),
        (
            ["evaluate", "model=m,n"],
            ["task=evaluate", 'model="m,n"', *NO_FOLDER],
        ),
        # Several models, one evaluation each.
        (["evaluate", "-m", "model=m,n"], ["-m", "task=evaluate", "model=m,n", *NO_FOLDER]),
        (["demo", "model=a,b"], ["task=demo", 'model="a,b"', *NO_FOLDER]),
        (
            ["export", "model=m", "formats=onnx,litert", "output=a b"],
            ["task=export", 'model="m"', "formats=[onnx,litert]", 'output="a b"', *NO_FOLDER],
        ),
        (["card", "model=m"], ["task=card", 'model="m"', *NO_FOLDER]),
        (["--help"], ["--help"]),
        (["~dataset"], ["~dataset"]),
    ],
)
def test_words_come_in_the_order_that_hydra_takes(typed, taken):
    assert normalise_arguments(typed) == taken


def test_a_word_that_is_no_task_is_refused():
    with pytest.raises(UserError, match=r"trian: no such task\. Did you mean train\?"):
        normalise_arguments(["trian"])


@pytest.mark.parametrize(
    "name",
    ["ISIC_1(1).jpg", "a b", "it's", "a\\b", "ends\\", "\\'", "[!a]*.png", "a,b", "é{1}", "1e5"],
)
def test_predict_takes_names_of_files_as_they_are(composed, name):
    (_, word, *_) = normalise_arguments(["predict", f"images={name}"])
    assert composed("task=predict", word).images == name
