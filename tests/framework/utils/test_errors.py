"""Errors that are told become one message and an exit status."""

import pytest

from utils.errors import CheckpointError, ConfigError, RunError, clean_exit


@pytest.mark.parametrize(("kind", "status"), [(ConfigError, 2), (CheckpointError, 1),
                                              (RunError, 1)])
def test_error_becomes_a_message_and_a_status(capsys: pytest.CaptureFixture[str],
                                              kind: type[Exception], status: int) -> None:
    with pytest.raises(SystemExit) as stop, clean_exit():
        raise kind("what to mend")
    assert stop.value.code == status
    assert capsys.readouterr().err == "error: what to mend\n"


def test_interruption_becomes_the_shells_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop, clean_exit():
        raise KeyboardInterrupt
    assert (stop.value.code, capsys.readouterr().err) == (130, "")


@pytest.mark.parametrize("kind", [ValueError, RuntimeError, KeyError])
def test_errors_of_the_users_code_keep_their_traceback(kind: type[Exception]) -> None:
    with pytest.raises(kind, match="mine"), clean_exit():
        raise kind("mine")


def test_without_an_error_nothing_happens(capsys: pytest.CaptureFixture[str]) -> None:
    with clean_exit():
        pass
    assert capsys.readouterr() == ("", "")


def test_mistakes_of_the_config_are_value_errors() -> None:
    assert issubclass(ConfigError, ValueError)
