"""What a reader of a frame has to say about it: what was chosen, and what changes the meaning of the result."""

from collections.abc import Sequence


class Remarks:
    """Notes and warnings in the order in which they arise, each once.

    Attributes
    ----------
    notes : list of str
        Where each value came from. For the log.
    warnings : list of str
        What was not believed, or had to be assumed, so that a number means something else than the file says. One
        sentence each, without the name of the file, that says what was assumed and what to do. They go to the screen,
        into the products and into the report.
    """

    def __init__(self, notes: Sequence[str] = (), warnings: Sequence[str] = ()) -> None:
        self.notes, self.warnings = list(notes), list(warnings)

    def note(self, text: str) -> None:
        """Say what was chosen."""
        if text not in self.notes:
            self.notes.append(text)

    def warn(self, text: str) -> None:
        """Say what changes the meaning of the result."""
        if text not in self.warnings:
            self.warnings.append(text)
