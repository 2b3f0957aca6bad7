"""The errors that a user can mend; everything else is a fault of ours and keeps its traceback."""


class UserError(ValueError):
    """Something the user can mend: the command line prints it as one line and exits with code 2.

    The message says what is wrong, the value got, what is accepted and what to do.
    """


class InputFileError(UserError):
    """One input file cannot be used. Stages with several inputs name it, skip it and go on."""


class TooFewEventsError(UserError):
    """Not enough images are left (after cuts, in a split, in a class) for what was asked."""
