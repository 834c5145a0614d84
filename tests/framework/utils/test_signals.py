import io
import logging
import os
import signal
import threading

import pytest

from utils.signals import STOP_SIGNALS, StopSignals, ignore_stop_signals


@pytest.fixture(autouse=True)
def handlers_restored():
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_signal_is_noted_and_told(number, capfd):
    with StopSignals() as signals:
        os.kill(os.getpid(), number)
        assert signals.received == number
    assert f"{signal.Signals(number).name}: finishing the step" in capfd.readouterr().err


class SignalledWhileWriting(io.RawIOBase):
    """A file at which a signal comes in the middle of a write."""

    text = b""

    def writable(self):
        return True

    def write(self, data):
        if not self.text:
            os.kill(os.getpid(), signal.SIGTERM)
        self.text += bytes(data)
        return len(data)


def test_signal_while_a_log_line_is_written_is_no_error(capfd):
    file = SignalledWhileWriting()
    handler = logging.StreamHandler(io.TextIOWrapper(io.BufferedWriter(file)))
    logging.getLogger().addHandler(handler)
    try:
        with StopSignals() as signals:
            logging.getLogger().warning("a line")
            assert signals.received == signal.SIGTERM
    finally:
        logging.getLogger().removeHandler(handler)
    assert file.text == b"a line\n" and "Traceback" not in capfd.readouterr().err


def test_first_signal_counts(capfd):
    with StopSignals() as signals:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.received == signal.SIGUSR1
    assert capfd.readouterr().err.count("finishing") == 1


@pytest.mark.parametrize("before", [[], [signal.SIGTERM]])
def test_second_interrupt_quits_at_once(before):
    with pytest.raises(KeyboardInterrupt), StopSignals():
        for number in (*before, signal.SIGINT):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGINT)


def test_handlers_are_back_afterwards():
    mine = signal.signal(signal.SIGUSR1, lambda *_: None), signal.getsignal(signal.SIGUSR1)
    with pytest.raises(KeyError), StopSignals():
        raise KeyError
    assert signal.getsignal(signal.SIGUSR1) is mine[1]


def test_handler_that_was_not_set_from_python_becomes_the_default(monkeypatch):
    with StopSignals() as signals:
        signals._previous[signal.SIGUSR1] = None
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_signals_are_noted_anew_at_each_use():
    signals = StopSignals()
    for _ in range(2):
        with signals:
            assert signals.received is None
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.received == signal.SIGINT


def test_other_threads_change_no_handlers():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    during = []

    def run():
        with StopSignals():
            during.extend(signal.getsignal(number) for number in STOP_SIGNALS)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert during == before


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_ignored_signals_do_nothing(number):
    ignore_stop_signals()
    os.kill(os.getpid(), number)
    assert signal.getsignal(number) == signal.SIG_IGN
