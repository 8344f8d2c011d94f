"""A student's job that is killed after a step; run by test_distilled.py in a process of its own.

Arguments: those of the command. $SSLTRANSFER_TEST_DIE_AT: the step.
"""

import os
import signal
import sys

from ssltransfer.cli import main
from ssltransfer.training.fit import Training

step = Training.step


def killing(training, batch, number, lr):  # type: ignore[no-untyped-def]
    if number == int(os.environ["SSLTRANSFER_TEST_DIE_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(training, batch, number, lr)


Training.step = killing  # type: ignore[method-assign]
sys.exit(main())
