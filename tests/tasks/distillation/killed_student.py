"""A student's job that is killed before a step; run by test_distilled.py in a process of its own.

Arguments: those of the command. $SSLTRANSFER_TEST_DIE_AT: the step.
"""

import os
import signal
import sys

from ssltransfer.cli import main
from ssltransfer.training.train_step import Trainer

a_round = Trainer.round


def killing(training, batches, turns, first):  # type: ignore[no-untyped-def]
    if first == int(os.environ["SSLTRANSFER_TEST_DIE_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    return a_round(training, batches, turns, first)


Trainer.round = killing  # type: ignore[method-assign]
sys.exit(main())
