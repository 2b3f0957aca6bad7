"""What a signal asked for, where the exception that it raised may get lost.

An exception raised by a signal appears wherever Python happens to be. Compiled code of numba turns it into a
`SystemError`, and code that reads foreign files takes that for damage: a product must not be made of what was read so.
"""

_asked: list[BaseException] = []


def ask(end: BaseException) -> BaseException | None:
    """Note that the process shall end; `end` is to be raised, unless one was before."""
    if _asked:
        return None  # a second signal does not break off the removal of what is half made
    _asked.append(end)
    return end


def asked() -> BaseException | None:
    """What shall end the process, if anything."""
    return _asked[0] if _asked else None


def reached() -> BaseException | None:
    """The same, at the end: programs that call the command line go on."""
    end = asked()
    _asked.clear()
    return end
