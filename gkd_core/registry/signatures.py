"""Signatures of logged models, by Sigstore's `model-signing` with keys of your own: who holds the private key has logged it.

The digests in the registry (`model_files`) hold as long as nobody else may write MLflow's database; a signature holds even then.
"""

from __future__ import annotations

from pathlib import Path

from gkd_core.errors import PlatformError, WeightsError
from gkd_core.messages import one_line

SIGNATURE = "model.sig"


def sign(folder: Path, private_key: Path) -> None:
    """Write `model.sig` into a model's folder: the digests of all of its files, signed.

    Raises:
        PlatformError: `model-signing` is not installed, or the key cannot be used.
    """
    hashing, signing, _ = _library()
    try:
        config = signing.Config().use_elliptic_key_signer(private_key=private_key)
        config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[folder / SIGNATURE], ignore_git_paths=False))
        config.sign(folder, folder / SIGNATURE)
    except (OSError, ValueError, TypeError) as error:
        raise PlatformError(f"registry.private_key: {private_key}: cannot sign with it ({one_line(error)})") from None


def verify(folder: Path, public_key: Path, label: str, ignored: tuple[str, ...] = ()) -> None:
    """Hold a model's folder against its signature.

    Args:
        ignored: files that are put beside a model later, and are not signed.

    Raises:
        WeightsError: there is no signature, or it does not fit the files or the key.
        PlatformError: `model-signing` is not installed, or the key cannot be read.
    """
    hashing, _, verifying = _library()
    if not public_key.is_file():
        raise PlatformError(f"registry.public_key: {public_key}: no such file; expected a public key in PEM")
    if not (folder / SIGNATURE).is_file():
        raise WeightsError(f"{label}: not signed, and registry.public_key asks for a signature; log it with registry.private_key")
    paths = [folder / name for name in (SIGNATURE, *ignored)]
    try:
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        config.set_hashing_config(hashing.Config().set_ignored_paths(paths=paths, ignore_git_paths=False))
        config.verify(folder, folder / SIGNATURE)
    except Exception as error:  # the library raises what its parsers raise, and all of it means: not proven
        raise WeightsError(f"{label}: its signature does not fit ({one_line(error)}); do not use it, find who wrote it") from None


def _library():  # type: ignore[no-untyped-def]
    try:
        from model_signing import hashing, signing, verifying
    except ImportError:
        raise PlatformError(
            "registry: signatures need the package model-signing; install gkd[signing], or unset the keys"
        ) from None
    return hashing, signing, verifying
