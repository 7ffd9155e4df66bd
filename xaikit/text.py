"""Names of files, prompts and classes are untrusted text: shown as nothing but themselves."""

from __future__ import annotations

import codecs
import re
import shlex
import unicodedata
from collections.abc import Iterable

# Joiners inside a word are part of how several languages are written.
_HARMLESS_FORMAT = frozenset("\u200c\u200d")
_PLAIN = re.compile(r"[ -~]*")
_ORNAMENTS = {
    "→": "->",
    "×": "x",
    "−": "-",
    "–": "-",
    "…": "...",
    "·": "-",
    "²": "2",
    "≤": "<=",
    "≥": ">=",
    "’": "'",
}
ENCODING_ERRORS = "xaikit-readable"
"""For ``errors=`` of a stream: what its encoding lacks is spelt out, never a failure."""


def printable(text: object, *, keep: str = "") -> str:
    r"""Text on one line that moves no cursor, sets no colour and turns no direction.

    Control characters, line separators, invisible format characters (bidirectional marks among
    them) and halves of surrogate pairs are written as ``\x1b``, ``\u202e`` and the like.

    Parameters
    ----------
    text : object
        Taken as ``str(text)``.
    keep : str
        Characters that stay though they would be escaped, such as a newline.
    """
    given = str(text)
    if _PLAIN.fullmatch(given):
        return given
    return "".join(
        each if each in keep or not _is_unsafe(each) else escaped(each) for each in given
    )


def escaped(character: str) -> str:
    r"""A character as Python would write it: ``\n``, ``\x1b``, ``\u202e``."""
    return character.encode("unicode_escape").decode("ascii")


def _is_unsafe(character: str) -> bool:
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or (
        category == "Cf" and character not in _HARMLESS_FORMAT
    )


def shell_line(words: Iterable[str]) -> str:
    """Words as a shell takes them, each as nothing but itself.

    What `printable` escapes is spelt as bytes in ``$'…'``, which bash, zsh and POSIX.1-2024 know.
    """
    return " ".join(
        shlex.quote(word) if printable(word) == word else _spelt_as_bytes(word) for word in words
    )


def _spelt_as_bytes(word: str) -> str:
    return "$'" + "".join(map(_shell_character, word)) + "'"


def _shell_character(character: str) -> str:
    if _is_unsafe(character):
        # A byte of a file name that is no UTF-8 is half of a pair here.
        lone = "\udc80" <= character <= "\udcff"
        data = character.encode("utf-8", "surrogateescape" if lone else "surrogatepass")
        return "".join(f"\\x{byte:02x}" for byte in data)
    return f"\\{character}" if character in "\\'" else character


def json_printable(text: str) -> str:
    """JSON text in which what `printable` escapes is escaped; it means the same."""
    if _PLAIN.fullmatch(text):
        return text
    return "".join(
        _json_escape(each) if each != "\n" and _is_unsafe(each) else each for each in text
    )


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _spell_out(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    spelt = "".join(_ORNAMENTS.get(each) or escaped(each) for each in lacking)
    return spelt, error.end


codecs.register_error(ENCODING_ERRORS, _spell_out)
