"""HandfulError: what a user can mend. Every other exception is a fault of ours."""


class HandfulError(ValueError):
    """Raised for input that the user can correct.

    The message says what was given, what would be right and what to do. The command line prints it
    in one line and exits with status 2. Any other exception ends with a traceback and status 1.
    """
