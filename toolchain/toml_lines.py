"""On which line a TOML file sets a key. ``tomllib`` gives values only; an error message wants the line too."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from typing import Final

Key = tuple[str, ...]

_KEY_PART: Final = re.compile(r"""[A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*'""")
_STRINGS: Final = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (r'"""(?:[^\\]|\\.)*?"""+', r"'''.*?'''+", r'"(?:[^"\\\n]|\\.)*"', r"'[^'\n]*'")
)  # fmt: skip
"""A string of each kind, longest delimiter first. A multi-line string may end in up to five quotes, hence the last plus."""


def line_of_keys(text: str) -> dict[Key, int]:
    """Line (from 1) where each table or key first stands, by its path of names.

    ``text`` must be valid TOML: parse it with ``tomllib`` first. Keys inside an inline table or an array are not listed; the
    key that holds them is. Elements of an array of tables share one path.
    """
    scanner = _Scanner(text)
    scanner.scan()
    return scanner.lines


@dataclass
class _Scanner:
    text: str
    position: int = 0
    table: Key = ()
    lines: dict[Key, int] = field(default_factory=dict)

    def scan(self) -> None:
        while self._skip_blank():
            line = self.text.count("\n", 0, self.position) + 1
            if self.text[self.position] == "[":
                self.position += 2 if self.text.startswith("[[", self.position) else 1
                self.table = self._key()
                self._note(self.table, line)
                self._skip_line()
            else:
                self._note((*self.table, *self._key()), line)
                self._skip_value()

    def _note(self, path: Key, line: int) -> None:
        for length in range(1, len(path) + 1):
            self.lines.setdefault(path[:length], line)

    def _skip_blank(self) -> bool:
        """Go to the next statement; False at the end."""
        while self.position < len(self.text):
            if self.text[self.position] == "#":
                self._skip_line()
            elif self.text[self.position].isspace():
                self.position += 1
            else:
                return True
        return False

    def _key(self) -> Key:
        """A dotted key up to ``=`` or ``]``, which is left behind."""
        parts: list[str] = []
        while self.text[self.position] not in "=]":
            found = _KEY_PART.match(self.text, self.position)
            if found is None:  # a dot or white space
                self.position += 1
                continue
            part = found.group()
            parts.append(tomllib.loads(f"key = {part}")["key"] if part[0] in "\"'" else part)
            self.position = found.end()
        self.position += 1
        return tuple(parts)

    def _skip_value(self) -> None:
        """Go to the end of the line on which the value ends."""
        depth = 0
        while self.position < len(self.text):
            character = self.text[self.position]
            if character == "\n" and depth == 0:
                return
            if character == "#":
                self._skip_line()
            elif character in "\"'":
                self.position = self._end_of_string()
            else:
                depth += (character in "[{") - (character in "]}")
                self.position += 1

    def _end_of_string(self) -> int:
        ends = (pattern.match(self.text, self.position) for pattern in _STRINGS)
        return next((found.end() for found in ends if found is not None), self.position + 1)

    def _skip_line(self) -> None:
        end = self.text.find("\n", self.position)
        self.position = len(self.text) if end < 0 else end
