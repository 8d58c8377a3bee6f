"""The platform's worker: the prefect command, with temporary files where nobody else's are.

Prefect's workers keep what they fetch in one folder of the system's temporary one, `runner_storage`, which belongs to whoever
started a worker first: no second user of a machine could start any, and the first could change what the second's run.
"""

import os
import tempfile
from pathlib import Path

from gkd_core.system.server_keys import make_private_folder


def main() -> None:
    """Run the command, with this process's arguments, below PREFECT_HOME."""
    folder = Path(os.environ["PREFECT_HOME"]) / "temporary"
    make_private_folder(folder)
    # Of this process alone: by TMPDIR flow runs would get the folder too, and their sockets need a short path.
    tempfile.tempdir = str(folder)

    from prefect.cli import app

    app()


if __name__ == "__main__":
    main()
