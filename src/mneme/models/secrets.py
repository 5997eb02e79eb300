"""What is shown of an address, and how a key is kept out of whatever a server sends back. Ours; no paper.

Keys travel in addresses too (http://host/v1/KEY/chat), and servers repeat what they were sent: in messages, in pages about
errors, in answers, escaped in the ways of the web. No file, page, message or error may hold one.
"""

import base64
import hashlib
import re
from functools import cache
from urllib import parse

LEAST = 8
"""Characters. What is shorter is a placeholder ("none", "EMPTY"; local servers want some key) or a word like any other."""
_WORD = re.compile(r"[a-z]{1,16}|[A-Z][a-z]{0,15}|[A-Z]{1,6}|[a-z]{0,4}\d{1,4}[a-z]{0,4}|\d{1,4}[a-z]{0,2}")
"""Part of a name that a person writes: a word, an abbreviation, a number (v1, 4o, v1beta, 70b). Keys are drawn at random."""
_MOST_PARTS = 3
"""Parts of a name that is shown; a longer one is hidden like a key, which costs nothing but the sight of it."""
_CALLED = re.compile(r"(?i)(?:sk|pk|rk|hf|gh[a-z]|xox[a-z]|key|apikey|token|secret|pass|password|auth|bearer)")
"""How keys begin (OpenAI, Anthropic, Stripe, Hugging Face, GitHub, Slack), and what people call them."""
_HIDDEN = "[key]"
HIDDEN = "[…"
"""How a part begins that was left out of an address."""


def may_be_secret(segment: str) -> bool:
    """Whether one segment of a path may be, or hold, a key: everything that does not look like a name that people write."""
    parts = re.split(r"[-_.~]", parse.unquote(segment))
    called = any(_CALLED.fullmatch(part) for part in parts[:-1])
    return called or len(parts) > _MOST_PARTS or not all(_WORD.fullmatch(part) for part in parts)


def secrets_in(address: str) -> list[str]:
    """The segments of the path that may be keys, as they stand in the address; so is one behind `/key/`, `/token/` …"""
    segments = [segment for segment in parse.urlsplit(address).path.split("/") if segment]
    before = ["", *segments]
    return [
        segment
        for segment, previous in zip(segments, before, strict=False)
        if may_be_secret(segment) or _CALLED.fullmatch(previous)
    ]


def shown_address(address: str) -> str:
    """The address with `[…]` and four digits of its SHA-256 in place of every segment that may be a key.

    User name, password, query and fragment are left out. The digits tell two addresses apart, so that a run does not go on
    with what another address answered. They are 16 bits, too few to find a key by: of a million guesses fifteen fit.
    """
    split = parse.urlsplit(address)
    hidden = set(secrets_in(address))
    path = "/".join(f"{HIDDEN}{_digest(part)}]" if part in hidden else part for part in split.path.split("/"))
    return f"{split.scheme}://{split.netloc.rpartition('@')[2]}{path}"


def shown_option(text: str) -> str:
    """What was given for an option, as it may be written down: in an address (also behind a word, as in `verdict:http://…`)
    every part that may be a key is left out, and of the query all but the model's name."""
    before, mark, rest = text.partition("://")
    if not mark:
        return text
    word, colon, scheme = before.rpartition(":")
    try:
        model = dict(parse.parse_qsl(parse.urlsplit(f"{scheme}{mark}{rest}").query)).get("model", "")
        shown = shown_address(f"{scheme}{mark}{rest}")
    except ValueError:
        return f"{word}{colon}[address]"
    return f"{word}{colon}{shown}{f'?model={parse.quote(model, safe=str())}' if model else ''}"


def shown_value(text: str) -> str:
    """What was given for an option, to stand in an error: as it is where it holds names only, else `[…]`."""
    names = [name for name in re.split(r"[:/ ]", text) if name]
    return "[…]" if len(text) > 80 or "?" in text or any(map(may_be_secret, names)) else text


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:4]


def without(text: str, secrets: tuple[str, ...]) -> str:
    """`text` with `[key]` wherever it repeats one of `secrets`: as it is, in other case, escaped for addresses, JSON or HTML
    (each character or some of them), in base64 (whatever stands around it) or as hexadecimal digits."""
    for secret in secrets:
        if len(secret) >= LEAST:
            text = _repeats(secret).sub(_HIDDEN, text)
    return text


@cache
def _repeats(secret: str) -> re.Pattern[str]:
    forms = ["".join(_written(character) for character in secret)]
    raw = secret.encode()
    for skipped in range(3):
        # Base64 takes three bytes at a time: digits that depend on what stands before or behind are left out here.
        digits = base64.b64encode(bytes(skipped) + raw).decode().rstrip("=")
        first, last = (0, 2, 3)[skipped], len(digits) - ((skipped + len(raw)) % 3 > 0)
        inner = "".join(_BASE64.get(digit, digit) for digit in digits[first:last])
        forms.append(f"[A-Za-z0-9+/_-]{{0,2}}{inner}[A-Za-z0-9+/_-]?=*")
    return re.compile("|".join([*forms, raw.hex()]), re.IGNORECASE)


_BASE64 = {"+": "(?:[+-]|%2B)", "/": "(?:[/_]|%2F)"}
"""The two digits that the alphabet for addresses writes otherwise."""


def _written(character: str) -> str:
    """A pattern of the ways in which the web writes one character."""
    number = ord(character)
    ways = [re.escape(character), f"%{number:02x}", f"%25{number:02x}", f"\\\\u{number:04x}", f"\\\\x{number:02x}"]
    ways += [f"&#0*{number};", f"&#x0*{number:x};", f"\\\\{re.escape(character)}"]
    return f"(?:{'|'.join(ways)})"
