"""Hooks of mkdocs: links that lead out of docs/ (to source, to CONTRIBUTING.md) are plain words on the site, links in the
repository; decisions and pages that nobody named in mkdocs.yml have their place in the navigation all the same."""

import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:\s]+)(#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """The navigation with every page."""
    docs = Path(config["docs_dir"])
    named = str(config["nav"])
    pages = [path.relative_to(docs).as_posix() for path in sorted(docs.rglob("*.md"))]
    others = [page for page in pages if f"'{page}'" not in named]
    decisions = [page for page in others if page.startswith("decisions/")]
    more = [page for page in others if page not in decisions]
    config["nav"] = [*config["nav"], *([{"More": more}] if more else []), {"Decisions": decisions}]
    return config


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with such links unlinked. Links inside docs/ are left for mkdocs to check."""
    docs = Path(config["docs_dir"]).resolve()
    here = (docs / page.file.src_uri).parent
    known = {file.src_uri for file in files}

    def plain(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        if docs in target.parents and (not target.is_dir() or target.relative_to(docs).as_posix() in known):
            return match[0]
        return match[1] if target.exists() else match[0]

    return _LINK.sub(plain, markdown)
