"""An interruption is not lost while objects are being deleted."""

import signal
import threading

import pytest

from melanoma_lab.core.interrupts import check_interrupt, defer_interrupts

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def as_python_has_it():
    """Ctrl-C raises, whatever handler an earlier test has left."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Interrupted:
    """Ctrl-C comes while it is being deleted."""

    def __del__(self):
        signal.raise_signal(signal.SIGINT)


def delete_one():
    """Delete an object; what is left of the list that held it."""
    held = [Interrupted()]
    del held[0]
    return held


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_python_drops_an_interruption_and_the_block_keeps_it():
    assert delete_one() == []  # nothing was raised
    left = []
    with pytest.raises(KeyboardInterrupt), defer_interrupts():
        left.append(delete_one())
    assert left == [[]]  # the block went on to its end


def test_nothing_is_left_changed():
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with defer_interrupts():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_threads_leave_signals_alone():
    found = []

    def work():
        with defer_interrupts():
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def test_what_was_dropped_is_heeded_later():
    class Handler:
        asked = False

        def __call__(self, *_):
            self.asked = True

    before = signal.signal(signal.SIGTERM, Handler())
    try:
        check_interrupt()
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            check_interrupt()
    finally:
        signal.signal(signal.SIGTERM, before)
    check_interrupt()
