"""The base class of errors that a user caused and can fix."""


class UserError(Exception):
    """Something that the user can fix: the message is one sentence that says what is wrong, where, and what to do.

    The command line prints the message without a traceback and exits with 1. Anything else is a bug of this package.
    """


# Errors of torch that a user can fix, by a part of their message.
_ADVICE = {
    "Expected more than 1 value per channel": "a batch norm needs more than one value per channel; raise batch_size, "
    "micro_batch_size or img_size.",
    "CUDA out of memory": "the memory of the GPU is too small; set micro_batch_size, lower batch_size, or end other "
    "processes on this GPU.",
    "DataLoader worker (pid": "a loader worker was killed, probably because the memory was used up; set fewer workers "
    "(SSLTRANSFER_WORKERS) or request more memory, and run the same command again; it resumes.",
}


def advice_on(error: Exception) -> str | None:
    """One sentence on an error that a user can fix; None for a bug of this package."""
    text = str(error)
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename}: {error.strerror}; give this user access to it, or name another path."
    return text if isinstance(error, UserError) else next((_ADVICE[part] for part in _ADVICE if part in text), None)
