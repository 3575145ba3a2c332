"""Schedules: hand-worked rates, warm-ups, and a plateau that goes on where it was left."""

import json
import math

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from melanoma_lab.config.schema.training import Constant, Cosine, Plateau
from melanoma_lab.core.errors import UserError
from melanoma_lab.models.optimizers import ScheduleContext, build_schedule
from melanoma_lab.registry import BUILDERS, OPTIONS

pytestmark = pytest.mark.component

COURSE = ScheduleContext(learning_rate=0.8, steps_per_epoch=10, epochs=4, monitor="val_loss")


def rates(options, steps, course=COURSE):
    schedule = build_schedule(options, course).learning_rate
    return [float(schedule(step)) for step in steps]


def test_constant_is_a_number():
    built = build_schedule(Constant("constant"), COURSE)
    assert built.learning_rate == 0.8
    assert built.callbacks == []
    assert built.state() == {}


def test_constant_after_a_warm_up_by_hand():
    # 0.3 of 10 steps: 1/4, 2/4, 3/4 of the rate, then all of it.
    found = rates(Constant("constant", warmup_epochs=0.3), [0, 1, 2, 3, 4, 39])
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_cosine_by_hand():
    found = rates(Cosine("cosine", final_share=0.25), [0, 10, 20, 30, 40, 41])
    middle, low = 0.8 * (0.25 + 0.75 / 2), 0.2
    quarter = 0.8 * (0.25 + 0.75 * (1 + math.sqrt(0.5)) / 2)
    assert found == pytest.approx([0.8, quarter, middle, 2 * middle - quarter, low, low])


def test_cosine_after_a_warm_up_by_hand():
    # Ten steps up in elevenths, thirty down: half of it is left half-way.
    found = rates(Cosine("cosine", warmup_epochs=1), [0, 4, 9, 10, 25, 40])
    assert found == pytest.approx([0.8 / 11, 0.8 * 5 / 11, 0.8 * 10 / 11, 0.8, 0.4, 0], abs=1e-7)


@pytest.mark.slow
@given(st.floats(0.001, 3), st.integers(1, 30), st.integers(4, 9))
def test_a_warm_up_never_takes_the_whole_course_and_never_overshoots(warmup, steps, epochs):
    course = ScheduleContext(0.8, steps, epochs, "val_loss")
    found = rates(Cosine("cosine", warmup_epochs=warmup), range(steps * epochs), course)
    assert min(found) > 0
    assert max(found) == pytest.approx(0.8)
    assert found[0] < 0.8 or steps * epochs == 1
    top = int(np.argmax(found))
    assert top == max(1, round(warmup * steps))
    assert np.all(np.diff(found[: top + 1]) > 0)
    assert np.all(np.diff(found[top:]) < 0)


@pytest.mark.parametrize("epochs", [4, 9])
def test_a_warm_up_as_long_as_the_course_leaves_the_last_step_by_hand(epochs):
    # 39 of 40 steps, up in fortieths.
    found = rates(Cosine("cosine", warmup_epochs=epochs), [0, 19, 38, 39])
    assert found == pytest.approx([0.02, 0.4, 0.78, 0.8])


def test_a_minimum_that_is_never_reached_is_refused():
    with pytest.raises(UserError, match=r"schedule.minimum=0.8: expected less than optimizer"):
        build_schedule(Plateau("plateau", minimum=0.8), COURSE)


class Fit:
    """A fit of which only the epochs' figures and the optimizer's rate are real."""

    def __init__(self, options, course=COURSE, state=None, learning_rate=None):
        self.course = course
        self.schedule = build_schedule(options, course)
        self.optimizer = keras.optimizers.SGD(learning_rate or self.schedule.learning_rate)
        (self.callback,) = self.schedule.callbacks
        self.callback.set_model(self)
        if state is not None:
            self.schedule.restore(state)
        self.callback.on_train_begin()

    def epoch(self, number, figure):
        """Run an epoch; returns the rates of its steps."""
        self.callback.on_epoch_begin(number)
        found = []
        for step in range(self.course.steps_per_epoch):
            self.callback.on_train_batch_begin(step)
            found.append(float(self.optimizer.learning_rate))
        self.callback.on_epoch_end(number, {self.course.monitor: figure})
        return found

    def rates(self, figures, first=0):
        return [self.epoch(first + i, figure)[-1] for i, figure in enumerate(figures)]


LOSSES = [3.0, 2.0, 2.5, 2.0, 1.9, 1.95, 1.95, 1.95, 1.95, 1.95]
# Two epochs without improvement halve it; never below 0.15.
RATES = [0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.2, 0.2, 0.15]
HALVE = {"factor": 0.5, "patience": 2, "minimum": 0.15}


def test_plateau_by_hand():
    assert Fit(Plateau("plateau", **HALVE)).rates(LOSSES) == pytest.approx(RATES)


def test_plateau_knows_when_more_is_better():
    course = ScheduleContext(0.8, 2, 10, "val_balanced_accuracy")
    found = Fit(Plateau("plateau", **HALVE), course).rates([-x for x in LOSSES])
    assert found == pytest.approx(RATES)


@pytest.mark.parametrize("stop", range(len(LOSSES)))
def test_plateau_goes_on_where_it_was_left(stop):
    """From its state, kept as JSON, and the rate, a variable of the optimizer."""
    options = Plateau("plateau", **HALVE)
    first = Fit(options)
    before = first.rates(LOSSES[:stop])
    kept = json.loads(json.dumps(first.schedule.state()))
    rest = Fit(options, state=kept, learning_rate=float(first.optimizer.learning_rate))
    assert before + rest.rates(LOSSES[stop:], first=stop) == pytest.approx(RATES)


def test_a_state_that_is_not_restored_is_missed():
    options = Plateau("plateau", **HALVE)
    first = Fit(options)
    first.rates(LOSSES[:3])
    forgetful = Fit(options, learning_rate=float(first.optimizer.learning_rate))
    assert forgetful.rates(LOSSES[3:], first=3) != pytest.approx(RATES[3:])


def test_plateau_warms_up_and_does_not_judge_meanwhile():
    fit = Fit(Plateau("plateau", warmup_epochs=1.2, **HALVE))
    ramp = 0.8 * np.arange(1, 14) / 13
    assert fit.epoch(0, 1.0) == pytest.approx(ramp[:10])
    assert fit.schedule.state() == {"wait": 0.0}
    assert fit.epoch(1, 5.0) == pytest.approx([*ramp[10:], *[0.8] * 7])
    assert fit.schedule.state() == {"wait": 0.0, "best": 5.0}
    # The best of the warm-up does not count: two worse than the second epoch's halve it.
    assert fit.rates([5.5, 5.5, 5.5], first=2) == pytest.approx([0.8, 0.8, 0.4])


def test_plateau_does_not_judge_an_epoch_that_the_warm_up_fills():
    fit = Fit(Plateau("plateau", warmup_epochs=1, **HALVE))
    assert fit.epoch(0, 1.0)[-1] == pytest.approx(0.8 * 10 / 11)
    assert fit.schedule.state() == {"wait": 0.0}
    assert fit.epoch(1, 5.0) == pytest.approx([0.8] * 10)
    assert fit.schedule.state() == {"wait": 0.0, "best": 5.0}


def test_every_schedule_of_the_configuration_has_a_builder():
    options = {key for key in OPTIONS if key[0] == "schedule"}
    assert options <= set(BUILDERS)
