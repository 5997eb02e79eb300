"""Text of strangers in Markdown: no reader of it takes any of it for markup."""

import re

_MARKUP = re.compile(r"[\\`*_{}\[\]()#!|<>&~@$]|(?<=:)/(?=/)|(?i:(?<=www))\.|:(?=[\w+-]+:)")
"""What GitHub reads as markup, a mention, an issue, a formula, an address or an emoji, wherever it stands in a line."""


def in_markdown(text: str) -> str:
    """The text on one line, every sign that could be markup as a character reference."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", " ".join(text.split()))
