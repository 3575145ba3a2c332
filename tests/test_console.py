from melanoma_lab.console import FitProgress


def test_the_bar_of_a_continued_fit_starts_where_it_was():
    progress = FitProgress(epochs=10, steps_per_epoch=5, done=3)
    (task,) = progress._bar.tasks
    assert (task.completed, task.total, task.description) == (15, 50, "epoch 4")
    progress.step(2, {"train_loss": 0.5})
    assert (task.completed, task.description) == (17, "epoch 4  loss 0.500")
