"""The base class of errors that a user caused and can fix."""


class UserError(Exception):
    """Something that the user can fix: the message is one sentence that says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with 1. Anything else is a bug of this package.
    """
