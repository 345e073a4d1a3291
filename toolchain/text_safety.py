"""Text from outside made safe to print."""

from __future__ import annotations

import unicodedata


def printable(text: str) -> str:
    """``text`` with control and format characters but the newline escaped, so that a name cannot steer the terminal."""
    return "".join(
        character if character == "\n" or unicodedata.category(character) not in {"Cc", "Cf", "Cs"} else _escaped(character)
        for character in text
    )


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
