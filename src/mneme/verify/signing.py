"""Signatures of a manifest: ed25519 (RFC 8032) by the library `cryptography`, keys as PEM files that openssl makes.

openssl genpkey -algorithm ed25519 -out key.pem
openssl pkey -in key.pem -pubout -out key.pub.pem
"""

import base64
import json
from pathlib import Path
from typing import Any

from mneme.errors import BadOption, BadRun
from mneme.runs.ledger import read_small

SIGNATURE = "signature.json"
_SCHEMA = "mneme.signature/1"


def _ed25519() -> Any:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise BadOption("Signatures need the library cryptography. Run: pip install 'mneme-audit[sign]'.") from error
    return ed25519


def _key(path: Path, *, private: bool) -> Any:
    kinds = _ed25519()
    from cryptography.hazmat.primitives import serialization

    what, asked = ("private", "genpkey -algorithm ed25519") if private else ("public", "pkey -pubout")
    try:
        content = path.read_bytes()
        found = serialization.load_pem_private_key(content, None) if private else serialization.load_pem_public_key(content)
    except (OSError, ValueError, TypeError) as error:
        raise BadOption(f"{path} is no {what} key in PEM without a password (`openssl {asked}` writes one).") from error
    if not isinstance(found, kinds.Ed25519PrivateKey if private else kinds.Ed25519PublicKey):
        raise BadOption(f"{path} holds another kind of key. Expected a {what} ed25519 key (`openssl {asked}` writes one).")
    return found


def check_keys(public: str | Path | None, private: str | Path | None) -> None:
    """Raises BadOption where a key that was given cannot be read, whatever else there is to look at."""
    if public is not None:
        _key(Path(public), private=False)
    if private is not None:
        _key(Path(private), private=True)


def signature_of(manifest: bytes, key: Path) -> bytes:
    """The content of signature.json: the manifest signed with the private key in the file. Raises BadOption for the key."""
    private = _key(key, private=True)
    told = {
        "schema": _SCHEMA,
        "public_key": base64.b64encode(private.public_key().public_bytes_raw()).decode(),
        "signature": base64.b64encode(private.sign(manifest)).decode(),
    }
    return (json.dumps(told, indent=2) + "\n").encode()


def signer_of(manifest: bytes, signature: Path, key: Path | None) -> str:
    """The public key (base64) whose signature of the manifest lies in the file. `key`: it has to be this one.

    Raises BadRun where the signature does not hold or is another's, BadOption for the key or where the library is missing.
    """
    kinds = _ed25519()
    from cryptography.exceptions import InvalidSignature

    expected = None if key is None else base64.b64encode(_key(key, private=False).public_bytes_raw()).decode()
    match read_small(signature):
        case {"schema": "mneme.signature/1", "public_key": str(public), "signature": str(signed)}:
            try:
                kinds.Ed25519PublicKey.from_public_bytes(base64.b64decode(public, validate=True)).verify(
                    base64.b64decode(signed, validate=True), manifest
                )
            except (ValueError, InvalidSignature) as error:
                raise BadRun("The signature is not one of this manifest.") from error
        case _:
            raise BadRun(f"{signature.name} is no signature of mneme.")
    if expected is not None and public != expected:
        raise BadRun(f"The signature is by the key {public}, and not by the one that was given.")
    return public
