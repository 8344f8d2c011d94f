"""A student's job that is killed before a step; run by test_distilled.py in a process of its own.

Arguments: those of the command. $SSLTRANSFER_TEST_DIE_AT: the step.
"""

import os
import signal
import sys

from ssltransfer.cli import main
from ssltransfer.training import fit

seed_step = fit.seed_step


def killing(seed: int, step: int, rank: int) -> None:
    if step == int(os.environ["SSLTRANSFER_TEST_DIE_AT"]):
        os.kill(os.getpid(), signal.SIGKILL)
    seed_step(seed, step, rank)


fit.seed_step = killing
sys.exit(main())
