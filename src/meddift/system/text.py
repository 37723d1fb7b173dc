"""Text of files and headers, made fit to be shown."""

from __future__ import annotations

import unicodedata

#: Control and format characters, surrogates (bytes of a file name that are no text), private and unassigned ones, and
#: the separators of lines and paragraphs, by their Unicode category.
_UNSHOWN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def printable(text: str) -> str:
    r"""Text without characters that a terminal obeys or that cannot be seen, each written as an escape.

    Text from files reaches people only through this: an escape sequence in a label or in a series description could
    otherwise clear the screen, hide a line, or type into some terminals.

    Args:
        text: Anything. Line breaks and tabs stay.

    Returns:
        The text with `\x1b`, `\u202e`, `\udcff` and their like in the place of such characters.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter in "\n\t" or not _unshown(letter) else _escaped(letter) for letter in text)


def _unshown(letter: str) -> bool:
    # Zero-width joiners belong to the spelling of Persian and of several Indian languages.
    return unicodedata.category(letter) in _UNSHOWN and letter not in "\u200c\u200d"


def _escaped(letter: str) -> str:
    return letter.encode("unicode_escape", errors="surrogatepass").decode("ascii")


def one_line(text: str) -> str:
    r"""Printable text in which line breaks are written as `\n`: a value must not look like several."""
    return printable(text).replace("\n", "\\n").replace("\t", " ")


def printable_json(text: str) -> str:
    r"""JSON whose strings hold such characters as `\u` escapes, which mean the same to whoever parses it.

    Args:
        text: JSON.
    """
    if text.isascii() and "\x7f" not in text:
        return text
    return "".join(letter if letter == "\n" or not _unshown(letter) else _json_escape(letter) for letter in text)


def _json_escape(letter: str) -> str:
    raw = letter.encode("utf-16-be", errors="surrogatepass")
    return "".join(f"\\u{raw[i]:02x}{raw[i + 1]:02x}" for i in range(0, len(raw), 2))
