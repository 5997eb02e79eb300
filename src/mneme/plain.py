"""Text of strangers made plain: nothing in it can drive a terminal, turn the reading direction or pass for another line.

Names of models, adapters, areas, files and tasks come from strangers, and so does what an endpoint answers. Whatever is shown
of them passes through here: errors and lines (`mneme.cli`), consoles (`mneme.terminal`), pages (`mneme.report`).
"""

import re
import unicodedata

_WRITTEN = frozenset("\u00ad\u200b\u200c\u200d\u200e\u200f\u061c\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u08e2")
"""Of category Cf, but what words are written with: joiners, breaks and marks of direction (Persian, Khmer, Hebrew), signs
of Arabic and Syriac. They neither override a direction nor hide text."""
_ODD = re.compile(r"[^\x20-\x7e]")


def _is_hostile(character: str) -> bool:
    """Controls (C0, DEL, C1), lone surrogates, separators of lines, and invisible characters that are no part of words."""
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in _WRITTEN)


def _escape(character: str) -> str:
    """As Python writes it: `\\x1b`, `\\u202e`, `\\n`."""
    number = ord(character)
    if character in "\t\n\r":
        return {"\t": "\\t", "\n": "\\n", "\r": "\\r"}[character]
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def plain(text: str, *, lines: bool = False) -> str:
    """`text` with every hostile character shown as an escape such as `\\x1b`; with `lines`, line ends and tabs stay.

    Everything else, letters of any script and signs such as `[` among it, stays as it is; plain text comes back unchanged.
    """
    kept = "\n\t" if lines else ""
    text = text.replace("\r\n", "\n") if lines else text
    return _ODD.sub(lambda found: _escape(found[0]) if found[0] not in kept and _is_hostile(found[0]) else found[0], text)


_SIGNS = {
    "…": "...", "–": "-", "—": "-", "−": "-", "→": "->", "←": "<-", "×": "x", "·": "-", "±": "+-", "≥": ">=", "≤": "<=",
    "≈": "~", "‘": "'", "’": "'", "“": '"', "”": '"', "κ": "kappa", "ν": "nu", "ε": "eps", "σ": "sigma", "\u00a0": " ",
    "\u202f": " ", "\u2009": " ",
}  # fmt: skip
"""Plain signs for those that mneme itself writes."""
_NARROW = {"…": ".", "→": ">", "←": "<", "±": "~", "≥": ">", "≤": "<"}
"""The same where the line is laid out already, and no sign may take more room than it had."""


def in_signs_of(text: str, encoding: str | None, *, same_width: bool = False) -> str:
    """`text` in characters that `encoding` has: others as plain signs (`…` as `...`), letters without their marks, the rest as
    `?`. With `same_width` every sign keeps its one column."""
    if text.isascii() or (encoding or "utf-8").lower().replace("_", "-").startswith("utf"):
        return text
    return "".join(_in_sign_of(character, str(encoding), same_width) for character in text)


def _in_sign_of(character: str, encoding: str, same_width: bool) -> str:
    if character.isascii() or _has(encoding, character):
        return character
    sign = _NARROW.get(character) if same_width else None
    sign = sign or _SIGNS.get(character) or unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
    return sign[:1] if same_width else sign


def _has(encoding: str, character: str) -> bool:
    try:
        character.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def plain_json(text: str, encoding: str = "utf-8") -> str:
    """The same JSON: hostile characters in its strings, and those that `encoding` does not have, written as `\\u` escapes, so
    that it may be printed. Line ends stay."""

    def escape(found: re.Match[str]) -> str:
        character = found[0]
        if character in "\n\t" or (not _is_hostile(character) and _has(encoding, character)):
            return character
        units = character.encode("utf-16-be", "surrogatepass").hex()
        return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))

    return _ODD.sub(escape, text)
