"""What was given comes back in messages short, on one line, as text and without passwords; what is printed obeys nobody."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gkd_core.cli.streams import guarded_output, printable
from gkd_core.messages import given_value, last_words, one_line, shown, without_passwords

ROOT = Path(__file__).parents[2]
SECRET = "S3cr3tW0rd"
ADDRESSES = [
    f"postgresql://gkd:{SECRET}@db/prefect", f"postgresql+psycopg2://gkd:{SECRET}@db:5432/mlflow?sslmode=require",
    f"postgresql+asyncpg://gkd:a/{SECRET}@db/x", f"postgresql://gkd:a@{SECRET}@db/x", f"postgresql://gkd:a#{SECRET}@db/x",
    f"postgresql://gkd:a?{SECRET}@db/x", f"postgresql://gkd:12345{SECRET}@db/x", f"postgresql://:{SECRET}@db/x",
    f"https://gkd:{SECRET}@mlflow.example/", f"https://{SECRET}@github.com/x/y", f"s3://AKIA:{SECRET}@bucket/x",
    f"redis://:{SECRET}@cache:6379/0", f"https://bucket.example/x?X-Amz-Signature={SECRET}&X-Amz-Expires=60",
    f"https://bucket.example/x?X-Amz-Credential={SECRET}%2F2026&x=1", f"https://bucket.example/x?X-Amz-Security-Token={SECRET}",
    f"https://api.example/?api_key={SECRET}", f"host=db user=gkd password={SECRET} dbname=x", f"password = '{SECRET}' host=db",
    f"AWS_SECRET_ACCESS_KEY={SECRET}", f"AWS_SESSION_TOKEN={SECRET} gkd run", f"MLFLOW_TRACKING_PASSWORD={SECRET}",
    f"Authorization: Bearer {SECRET}", f"authorization: basic {SECRET}{SECRET}",
    f"DefaultEndpointsProtocol=https;AccessKey={SECRET};x=1",
    f"{{'password': '{SECRET}', 'user': 'gkd'}}", f'{{"secret_access_key": "{SECRET}"}}', f"X-Api-Key: {SECRET}",
    f"PREFECT_API_AUTH_STRING=gkd:{SECRET}",
]  # fmt: skip
OPEN = [
    "http://host:5000/models/x@champion", "s3://bucket/a/b@c", "postgresql://db/prefect", "https://mlflow.example:5000/#/runs",
    "models:/gkd/3", "distill_source.mask.token_ratio=0.5", "a: 1", "git@github.com:x/y", "token_strides: [16]", "tokens = 3",
]  # fmt: skip
ESCAPES = [
    "\x1b[2J", "\x1b]0;title\x07", "\x1b]52;c;aGk=\x07", "\x9b2J", "\x07", "\x08", "\r",
    "\x7f", "\u202e", "\u2066", "\u2028", "\udc80", "\x00",
]  # fmt: skip


@pytest.mark.parametrize("text", ADDRESSES)
@pytest.mark.parametrize("say", [without_passwords, one_line, last_words, given_value], ids=lambda say: say.__name__)
def test_no_message_repeats_a_password(text: str, say: object) -> None:
    assert callable(say)
    for given_text in (text, f"cannot connect to {text}: refused", f"first line\n{text}\nlast line", [text]):
        assert SECRET not in say(given_text if say is given_value or isinstance(given_text, str) else str(given_text))


def test_a_long_address_is_masked_before_it_is_cut() -> None:
    text = f"postgresql://gkd:{'x' * 60}{SECRET}{'y' * 60}@db/prefect"
    assert "xxx" not in given_value(text) and "xxx" not in one_line(text) and "xxx" not in last_words(text)


@pytest.mark.parametrize("text", OPEN)
def test_what_is_no_password_stays(text: str) -> None:
    assert without_passwords(text) == text


@given(st.text(max_size=400), st.integers(2, 300))
def test_what_is_shown_is_short_and_printable(text: str, longest: int) -> None:
    for said in (shown(text, longest), one_line(text, longest), last_words(text, longest), given_value(text, longest)):
        assert said.isprintable() and len(said) <= longest + 40


@given(
    st.recursive(
        st.text() | st.integers() | st.floats() | st.binary(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_value_is_shown_in_little(value: object) -> None:
    said = given_value(value)
    assert said.isprintable() and len(said) <= 130


@pytest.mark.parametrize("size", [10**5, 10**7])
def test_large_text_is_not_copied_into_messages(size: int) -> None:
    assert len(shown("\x1b" * size)) <= 200 and len(given_value("x" * size)) < 130 and len(given_value(10**4000)) < 130


@pytest.mark.parametrize("escape", ESCAPES, ids=ascii)
@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_printed_moves_no_cursor_and_sets_no_title(monkeypatch: pytest.MonkeyPatch, escape: str, terminal: bool) -> None:
    out = _Stream(terminal)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", out)
    with guarded_output():
        print(f"a{escape}b")
        print(f"a{escape}b", file=sys.stderr)
    drawn = out.getvalue()
    # Tables wipe lines on a terminal themselves; there this one sequence cannot be told from theirs.
    assert escape not in drawn or (terminal and escape == "\x1b[2J")
    assert drawn.count("a") >= 2 and drawn.endswith("b\n")


def test_colours_stay_on_a_terminal() -> None:
    assert printable("\x1b[31mred\x1b[0m", styles=True) == "\x1b[31mred\x1b[0m"
    assert "\x1b" not in printable("\x1b[31mred\x1b[0m")


def test_passwords_reach_neither_the_log_nor_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    error, records = _Stream(False), io.StringIO()
    monkeypatch.setattr(sys, "stderr", error)
    handler = logging.StreamHandler(records)
    logger = logging.getLogger("gkd.test-messages")
    logger.addHandler(handler)
    try:
        with guarded_output():
            for text in ADDRESSES:
                print(text, file=sys.stderr)
                logger.error("cannot connect: %s", text)
    finally:
        logger.removeHandler(handler)
    assert SECRET not in error.getvalue() + records.getvalue()
    assert records.getvalue().count("cannot connect") == len(ADDRESSES)


class _Stream(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2)
from gkd_core.cli import main
main()
"""


@pytest.mark.parametrize(
    ("command", "file"),
    [
        (["recipe", "--profile", "demo", "--write"], "params.yaml"),
        (["data", "show", "own/all", "--set", "data.world=null", "--set", "data.root=.", "--set", "data.catalogs=[own.yaml]",
          "--profile", "demo", "--output", "show.png"], "show.png"),
        (["data", "verify", "own/all", "--set", "data.world=null", "--set", "data.root=.", "--set", "data.catalogs=[own.yaml]",
          "--profile", "demo", "--report", "verify.json"], "verify.json"),
        (["data", "prepare", "own/all", "--set", "data.world=null", "--set", "data.root=.", "--set", "data.catalogs=[own.yaml]",
          "--profile", "demo", "--jobs", "1", "--output", "shards"], "shards"),
        (["run", "prepare-data", "--profile", "demo"], "artifacts"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_write_that_the_disk_refuses_names_its_file_and_leaves_nothing(tmp_path: Path, command: list[str], file: str) -> None:
    """The limit of a file's size stands for a full disk: the write is refused in the middle."""
    from PIL import Image

    (tmp_path / "i").mkdir()
    for index in range(3):
        Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "i" / f"{index}.png")
    (tmp_path / "own.yaml").write_text("datasets: {own: {folder: ., images: i/*.png, splits: {all: {}}}}\n", encoding="ascii")
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    result = subprocess.run(
        [sys.executable, "-c", FULL, "20", *command], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert result.returncode == 2, result.stderr
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("gkd: ") and file in line and "File too large" in line, result.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= 20 and path not in before]
    assert not (tmp_path / file).is_file()
