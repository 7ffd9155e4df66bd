"""What goes wrong, in one line."""

from __future__ import annotations

import re

_ARGUMENT = re.compile(r"`([a-z][a-z_0-9]*)=([^`\n]*)`")


class XaikitError(Exception):
    """A run failed. The message is one line that says what to do.

    Attributes
    ----------
    exit_code : int
        What the command line returns.
    """

    exit_code = 1


class UsageError(XaikitError):
    """An option or an input is wrong: it names it, what was expected and what to do."""

    exit_code = 2


class XaikitWarning(UserWarning):
    """Something was not known and was decided: the message says how, and what changes it."""


class OptionError(UsageError):
    """An option's value is out of range.

    Attributes
    ----------
    name : str
        The argument of the Python call.
    value : object
        What was given.
    expected : str
        What would have been right.
    flag : str
        The same option on the command line.
    """

    def __init__(self, name: str, value: object, expected: str, *, flag: str | None = None) -> None:
        self.name, self.value, self.expected = name, value, expected
        self.flag = flag or "--" + name.replace("_", "-")
        super().__init__(f"{name}={value}: expected {expected}")


class UnknownOptionError(UsageError, TypeError):
    """A stage was called with a keyword that is none of its options."""


def as_typed(error: BaseException) -> str:
    """An error's message in the words of the command line: flags in place of arguments.

    Messages below the command line name an argument as name=value between backticks, or name=
    where there is no value to give.
    """
    if isinstance(error, OptionError):
        value = error.value
        shown = ",".join(map(str, value)) if isinstance(value, list | tuple) else value
        return f"{error.flag} {shown}: expected {error.expected}"
    return _ARGUMENT.sub(_as_flag, str(error))


def _as_flag(found: re.Match[str]) -> str:
    name, value = found.groups()
    flag = "--" + name.replace("_", "-")
    return flag if value in ("", "True") else f"{flag} {value}"
