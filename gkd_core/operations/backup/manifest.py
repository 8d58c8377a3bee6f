"""The manifest of a backup: what it holds, by digest, and the stack that it was made with."""

from __future__ import annotations

import hashlib
import re
from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import Field, ValidationError

from gkd_core.documents import DocumentError, parse_json
from gkd_core.errors import DataError, PlatformError
from gkd_core.messages import given_value
from gkd_core.records import Record

FORMAT: Final = 1  # raised when a reader of this format could not restore what is written
NAME = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-([0-9a-f]{16})\.json")
DatabaseKind = Literal["postgresql", "sqlite"]


class Content(Record):
    """Bytes, by their digest."""

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="In bytes.")


class Dump(Content):
    """One database, as its own tools write it down.

    Attributes:
        revision: of its schema, as Alembic has noted it; empty where there is no schema yet.
        server: PostgreSQL's major version; 0 of SQLite.
    """

    name: str
    kind: DatabaseKind
    revision: str
    server: int


class File(Content):
    """One file or object of a tree.

    Attributes:
        version: what the store called this content (an entity tag), which tells a later backup that it is still the same;
            empty where contents are to be read each time.
    """

    name: str
    version: str


class Tree(Record):
    """All files below an address, `s3://…` or `file://…`."""

    address: str
    files: tuple[File, ...]


class Backup(Record):
    """A whole backup: it is one because its manifest is there."""

    format: Literal[1] = FORMAT
    made: datetime
    versions: dict[str, str]
    databases: tuple[Dump, ...]
    trees: tuple[Tree, ...]

    @property
    def contents(self) -> dict[str, int]:
        """Size of every content that it names, by digest."""
        named = [*self.databases, *(file for tree in self.trees for file in tree.files)]
        return {content.sha256: content.size for content in named}

    def encode(self) -> tuple[str, bytes]:
        """Its name, which has the time and a digest of the manifest itself, and its bytes."""
        text = (self.model_dump_json(indent=1) + "\n").encode()
        return f"{self.moment}-{hashlib.sha256(text).hexdigest()[:16]}.json", text

    @property
    def moment(self) -> str:
        """When it was made, as its name begins."""
        return f"{self.made.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}"


def decode(place: object, name: str, text: bytes) -> Backup:
    """The backup of a manifest's bytes.

    Raises:
        DataError: these are not the bytes that were written under this name.
        PlatformError: a newer version of ours wrote them.
    """
    match = NAME.fullmatch(name)
    if match is None or hashlib.sha256(text).hexdigest()[:16] != match[2]:
        raise DataError(f"{place}: backup {name}: its manifest is damaged; restore another one (gkd infra backups lists them)")
    try:
        tree = parse_json(text, len(text))
    except DocumentError as error:
        raise DataError(f"{place}: backup {name}: its manifest is not JSON ({error}); restore another one") from None
    version = tree.get("format") if isinstance(tree, dict) else None
    if version != FORMAT:
        found = given_value(version)
        raise PlatformError(f"{place}: backup {name}: of format {found}, this version reads {FORMAT}; install the newer gkd")
    try:
        backup = Backup.model_validate_json(text)
    except ValidationError as error:
        fields = error.error_count()
        raise PlatformError(
            f"{place}: backup {name}: {fields} fields are not of this version; install the gkd it names"
        ) from None
    try:
        moment = backup.moment
    except OverflowError:  # before the year 1 or after 9999, once it is in UTC
        moment = "no time"
    if moment != match[1]:  # an old one under a later name would be taken for the newest
        raise DataError(f"{place}: backup {name}: made at {moment}, as it says itself; restore another one")
    return backup
