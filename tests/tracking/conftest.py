"""The toy recipe of the tests of versions: a flow run is a workspace of it."""

from tests.versioning.conftest import project, toys, workspace

__all__ = ["project", "toys", "workspace"]
