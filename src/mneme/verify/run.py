"""`mneme verify`: every hash of a finished audit and every figure of it once more."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mneme.audit.options import AuditOptions
from mneme.audit.recomputing import figures_that_differ, recomputed
from mneme.audit.stored import evidence_from
from mneme.errors import BadOption, BadRun, MnemeError, one_line
from mneme.options import deciding, restored, taking
from mneme.predict.areas import Area
from mneme.report.audit import render_html
from mneme.report.reading import read_report, read_timings
from mneme.results import Report
from mneme.results.verify import Held, Verification, VerifyCheck
from mneme.runs import add_file, key_of, read_finished
from mneme.runs.manifest import MANIFEST, Manifest, model_digests, read_manifest, whole_digest
from mneme.verify.options import VerifyOptions
from mneme.verify.signing import SIGNATURE, check_keys, signature_of, signer_of
from mneme.version import __version__

EVIDENCE = "evidence.npz"
_SHOWN = 3
"""Differences that are told; the rest is counted."""


def run_verify(options: VerifyOptions) -> Verification:
    """Hash files, models, text and options of the finished audit in `run` again, compute every effect and the verdict once
    more from its evidence, and compare. Offline and without torch; only `sign` writes.

    `base`, `tuned`, `corpus`: where they lie here. What a run names itself is opened only where the run is this user's own;
    models and text that are not there are *not checked*, everything else is. `key`: who has to have signed it. `sign`: sign
    the manifest where everything that was looked at holds.

    Errors: BadRun where there is no run or no manifest, BadOption for what was named and is not there.
    """
    folder = Path(options.run)
    report_there = (folder / "report.json").is_file()
    if not report_there:
        raise BadRun(f"No finished audit in {folder}. Name the folder that `mneme audit --out` wrote, with its report.json.")
    if not (folder / MANIFEST).is_file():
        read_manifest(folder / MANIFEST)  # says what to do
    content = (folder / MANIFEST).read_bytes()
    check_keys(options.key, options.sign)
    checks: list[VerifyCheck] = []
    try:
        manifest = read_manifest(folder / MANIFEST)
        checks.append(_check("manifest", True, "It is as mneme wrote it."))
        checks += _parts(folder, manifest, options)
    except BadRun as error:
        checks.append(_check("manifest", False, str(error)))
    signed_by, told = _signature(folder, content, options)
    checks += told
    verified = all(check.outcome != "changed" for check in checks)
    if options.sign is not None and verified:
        add_file(folder, SIGNATURE, signature_of(content, Path(options.sign)))
        signed_by, told = _signature(folder, content, options)
        checks = [check for check in checks if check.what != "signature"] + told
    return Verification(
        run=str(folder),
        manifest_sha256=hashlib.sha256(content).hexdigest(),
        signed_by=signed_by,
        verified=verified,
        checks=checks,
    )


verify = taking(VerifyOptions, run_verify)


def _check(what: str, holds: bool | None, detail: str) -> VerifyCheck:
    outcome: Held = "not checked" if holds is None else "holds" if holds else "changed"
    return VerifyCheck(what=what, outcome=outcome, detail=detail)


def _parts(folder: Path, manifest: Manifest, options: VerifyOptions) -> Iterator[VerifyCheck]:
    yield from _files(folder, manifest)
    asked = _asked(folder)
    yield _options(asked, manifest)
    own = read_finished(folder, "audit", "report.json") is not None
    stored = asked.get("options") if own and isinstance(asked, dict) else None
    here: Mapping[str, Any] = stored if isinstance(stored, dict) else {}
    for side, given in (("base", options.base), ("tuned", options.tuned)):
        yield _model(side, given, here.get(side), manifest)
    yield _text(options.corpus, here.get("corpus"), manifest)
    yield from _figures(folder, manifest, asked)


def _files(folder: Path, manifest: Manifest) -> Iterator[VerifyCheck]:
    for name in ("report.json", "run.json", *(name for name in manifest.files if name not in ("report.json", "run.json"))):
        path, digest = folder / name, manifest.files.get(name)
        if Path(name).name != name or digest is None:
            yield _check(name, False, "The manifest does not list it as a file of the run.")
        elif path.is_symlink() or not path.is_file():
            yield _check(name, False, "It is gone.")
        else:
            same = whole_digest(path) == digest
            yield _check(name, same, "SHA-256 as listed." if same else "It was changed: its SHA-256 is another.")


def _asked(folder: Path) -> Any:
    try:
        return json.loads((folder / "run.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _options(asked: Any, manifest: Manifest) -> VerifyCheck:
    """The key is the hash of everything that decided the result, and the options are those that it was made of."""
    if not isinstance(asked, dict) or not isinstance(asked.get("options"), dict):
        return _check("options", False, "run.json does not hold the options of an audit.")
    command = {name: value for name, value in asked.items() if name not in ("key", "options")}
    if key_of(command) != manifest.key or asked.get("key") != manifest.key:
        return _check("options", False, "They were changed: their hash is not the key of the run.")
    try:
        decided = deciding(restored(AuditOptions, asked["options"]))
    except BadRun as error:
        return _check("options", False, str(error))
    other = [name for name in decided if name in command and name != "chat_template" and command[name] != decided[name]]
    if other and command.get("version") == __version__:
        return _check("options", False, f"{', '.join(other)}: what was asked is not what the run was made with.")
    return _check("options", True, "Their hash is the key of the run.")


def _model(side: str, given: str | Path | None, stored: Any, manifest: Manifest) -> VerifyCheck:
    path = _where(given, stored, f"--{side}", folder=True)
    if path is None:
        return _check(side, None, f"The model is not here: name its folder with --{side}.")
    found, listed = model_digests(path), dict(manifest.models.get(side, {}))
    other = [name for name in sorted({*found, *listed}) if found.get(name) != listed.get(name)]
    if other:
        return _check(side, False, f"Changed, missing or added: {_few(other)}.")
    return _check(side, True, f"SHA-256 of {len(listed)} files as listed.")


def _text(given: str | Path | None, stored: Any, manifest: Manifest) -> VerifyCheck:
    path, listed = _where(given, stored, "--corpus", folder=False), manifest.text.get("file")
    if listed is None:
        return _check("text", None, "It was no file: written by the models, or of a dataset's name.")
    if path is None:
        return _check("text", None, "The text is not here: name its file with --corpus.")
    same = whole_digest(path) == listed
    return _check("text", same, "SHA-256 as listed." if same else "It was changed: its SHA-256 is another.")


def _where(given: str | Path | None, stored: Any, flag: str, *, folder: bool) -> Path | None:
    if given is not None:
        path = Path(given).expanduser()
        if not (path.is_file() or (folder and path.is_dir())):
            raise BadOption(f"{flag} {path} is not there. Name where it lies here, or leave it out.")
        return path
    if not isinstance(stored, str):
        return None
    path = Path(stored)
    return path if path.is_absolute() and (path.is_file() or (folder and path.is_dir())) else None


def _figures(folder: Path, manifest: Manifest, asked: Any) -> Iterator[VerifyCheck]:
    what = "effects and verdict"
    try:
        report = read_report(folder)
    except BadRun as error:
        yield _check(what, False, one_line(error))
        return
    if report.corpus.sha256 != manifest.text.get("texts"):
        yield _check("text", False, "The report is of another text than the manifest.")
    try:
        yield _again(folder, report, manifest, asked)
    except (MnemeError, ValueError, LookupError, TypeError, ArithmeticError, AttributeError) as error:
        yield _check(what, False, f"They cannot be computed from the evidence ({one_line(error)})")
    yield _page(folder, report)


def _again(folder: Path, report: Report, manifest: Manifest, asked: Any) -> VerifyCheck:
    what = "effects and verdict"
    if EVIDENCE not in manifest.files:
        same = report.pair.changed_tensors == 0 and all(effect.magnitude.value == 0.0 for effect in report.effects)
        said = "No tensor differs, so every effect is exactly 0." if same else "There is no evidence to compute them from."
        return _check(what, same, said)
    evidence = evidence_from((folder / EVIDENCE).read_bytes(), EVIDENCE)
    told, known = (asked.get(name) if isinstance(asked, dict) else None for name in ("options", "areas"))
    areas = tuple(Area.model_validate(area) for area in (known if isinstance(known, list) else ()))
    named = isinstance(told, dict) and bool(told.get("areas"))
    found = figures_that_differ(report, recomputed(report, evidence, areas, named=named))
    version = "" if manifest.mneme == __version__ else f" (by mneme {__version__}, of a run of {manifest.mneme})"
    if found:
        return _check(what, False, f"{_few(found)}{version}.")
    return _check(what, True, f"{len(report.effects)} effects and the verdict computed again, all equal{version}.")


def _page(folder: Path, report: Report) -> VerifyCheck:
    path = folder / "report.html"
    if path.is_symlink() or not path.is_file():
        return _check("page", None, "There is no report.html.")
    if report.environment.mneme != __version__:
        return _check("page", None, f"It was made by mneme {report.environment.mneme}, this is {__version__}.")
    same = render_html(report, read_timings(folder)).encode() == path.read_bytes()
    return _check("page", same, "It is the page of report.json." if same else "It is not the page that report.json makes.")


def _signature(folder: Path, manifest: bytes, options: VerifyOptions) -> tuple[str, list[VerifyCheck]]:
    path, key = folder / SIGNATURE, None if options.key is None else Path(options.key)
    if not path.is_file():
        if key is not None:
            return "", [_check("signature", False, "The run is not signed.")]
        return "", [_check("signature", None, "The run is not signed.")]
    try:
        signer = signer_of(manifest, path, key)
    except BadRun as error:
        return "", [_check("signature", False, str(error))]
    except BadOption as error:
        if key is not None:
            raise
        return "", [_check("signature", None, str(error))]
    whose = "the key that was given" if key is not None else f"the key {signer}; --key says whose that has to be"
    return signer, [_check("signature", True, f"By {whose}.")]


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more
