"""The one error a user can mend: its message says what was expected, what was found, and what to do."""


class UserError(ValueError):
    """Shown by the command line as one sentence without a traceback; everything else is a bug and keeps its own."""
