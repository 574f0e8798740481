"""HandfulError, for errors that the user can correct. Other exceptions are bugs of handful."""


class HandfulError(ValueError):
    """Raised for input that the user can correct.

    The message says what was given, what would be right and what to do. The command line prints it
    in one line and exits with status 2. Any other exception ends with a traceback and status 1.

    >>> try:
    ...     handful.load("photos/2025")
    ... except handful.HandfulError as error:
    ...     print(error)
    no folder 'photos/2025'; check the path
    """


class BudgetTooShort(HandfulError):
    """Raised where no method fits into the budget; what was kept before it is still there."""
