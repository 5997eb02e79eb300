"""What a page says of files: names. A page is sent around; home folders, and with them the names of users, stay at home."""

import re
from pathlib import Path, PureWindowsPath

_ELSEWHERE = re.compile(r"[/~\\]|\.\.(?:[/\\]|$)|[A-Za-z]:[/\\]|file:")
"""How a path begins that does not lie below the working directory; what else there is are names and relative paths."""
_KIND = re.compile(r"(?:local|verdict|lm-eval|inspect):")
_WRITTEN = "model"
"""What the commands of mneme call a folder that they write; on a page the folder above names it."""
_HOMES = ("home", "Users", "root")


def place(text: str) -> str:
    """A model, a file or a judge as a page names it: the last part of an absolute path, everything else as it is.

    `/home/ann/models/tuned` is `tuned`, `/home/ann/runs/law/model` is `law/model`, `local:/srv/judge` is `local:judge`; hub
    names, addresses and relative paths stay. Where a name says too little, report.json has the whole path.
    """
    kind = _KIND.match(text)
    before, path = (kind[0], text[kind.end() :]) if kind else ("", text)
    if not _ELSEWHERE.match(path):
        return text
    parts = [part for part in re.split(r"[/\\]+", path) if part not in ("", ".", "..")]
    if not parts:
        return f"{before}…"
    above = parts[-2] if len(parts) > 3 and parts[-3] not in _HOMES and parts[-2] not in _HOMES else None
    return before + (f"{above}/{parts[-1]}" if parts[-1] == _WRITTEN and above else _last(parts))


def _last(parts: list[str]) -> str:
    """The last part, unless that is a home folder itself."""
    is_home = parts[-1] == "root" or (len(parts) > 1 and parts[-2] in ("home", "Users")) or parts[-1].startswith("~")
    return "…" if is_home else parts[-1]


def without_home(text: str) -> str:
    """`text` with every path below the home folder of whoever runs this shortened to its last part."""
    if "/" not in text and "\\" not in text:  # a page has thousands of words, and looking up who runs this takes as long
        return text
    home = str(Path.home())
    if not home.strip("/\\.") or home not in text:  # the home of some services is /
        return text
    found = re.compile(rf"(?<![\w.\-/\\]){re.escape(home)}(?P<rest>[/\\][^\s'\"<>|:;,()]*)?(?![\w\-])")
    return found.sub(lambda path: PureWindowsPath((path["rest"] or "").rstrip("/\\.")).name or "…", text)
