import os
import signal

import pytest

from fa_jax.training.interrupts import Interrupts


def send_and_end(number, problem=None):
    """Sends a signal to this process while interrupts are noted, and checks for none before the end."""
    with Interrupts() as interrupts:
        os.kill(os.getpid(), number)
        assert interrupts.noted
        if problem is not None:
            raise problem


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_check_still_interrupts(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt):
        send_and_end(number)
    assert signal.getsignal(number) is before


def test_a_problem_is_not_hidden_by_a_signal():
    with pytest.raises(ValueError, match="problem"):
        send_and_end(signal.SIGINT, ValueError("problem"))
