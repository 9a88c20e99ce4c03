"""The one error a user can fix."""


class MeshrecError(Exception):
    """Advice in one sentence: what is wrong, what was found, where it was looked for, and what to do.

    The command line prints it without a traceback and exits with code 1.
    """
