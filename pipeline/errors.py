"""Errors that the user can fix; any other error is a bug in lightpool and keeps its traceback."""


class UserError(ValueError):
    """Something the user can fix: the command line prints it as one line and exits with code 2.

    The message says what is wrong, the value got, what is accepted and what to do.
    """


class InputFileError(UserError):
    """One input file cannot be used. Stages with several inputs report it and continue with the others."""


class TooFewEventsError(UserError):
    """Not enough images are left (after cuts, in a split, in a class) for the requested step."""


class OutputError(UserError):
    """A product cannot be written: the disk is full, a quota or a permission. Never the fault of an input."""


class Terminated(SystemExit):
    """The process was asked to end, by SIGTERM or because its terminal went away. Its code is that of a shell."""
