"""What fuzzing has found, each kind once: refused by an error of ours that says what is wrong."""

from __future__ import annotations

import hashlib
import io
import json
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from gkd_core.cluster.job_log import parse_error, parse_result
from gkd_core.data.catalog.taxonomy import LabelEncoding
from gkd_core.data.files.shards import DIGEST_LENGTH, ShardIndex
from gkd_core.data.preparing.tar import find_tar, write_tar
from gkd_core.documents import DocumentError, parse_json, parse_yaml
from gkd_core.errors import DataError, TrainingError, WeightsError
from gkd_core.models.tensor_files import load_data, read_tensors
from gkd_core.operations.backup.manifest import decode
from gkd_core.training.checkpoint import read_state
from gkd_core.training.metrics import parse_line

WEIGHT = torch.ones(2, 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({0: WEIGHT}, "0: no name of a tensor"),
        ({"a\x1b[2J": WEIGHT}, r"'a\\x1b\[2J': no name of a tensor"),
        ({"w": torch.empty(2, 3, device="meta")}, r"'w': a tensor of another kind \(meta"),
        ({"w": WEIGHT.to_sparse()}, "'w': a tensor of another kind"),
        ({"w": torch.ones(1).expand(2**20, 2**20)}, "'w': 1099511627776 numbers out of 4 bytes"),
    ],
)
def test_what_is_no_plain_tensor_under_a_name_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=rf"w\.pth: {message}"):
        read_tensors(tmp_path / "w.pth")


def test_a_view_of_a_larger_tensor_is_read(tmp_path: Path) -> None:
    torch.save({"w": torch.arange(10.0)[:4], "v": torch.ones(1).expand(5)}, tmp_path / "w.pth")
    found = read_tensors(tmp_path / "w.pth")
    assert found["w"].tolist() == [0, 1, 2, 3] and found["v"].shape == (5,)


def test_a_file_that_unpacks_to_far_more_than_its_size_is_refused_before_it_does(tmp_path: Path) -> None:
    whole, packed = io.BytesIO(), tmp_path / "w.pth"
    torch.save({"w": torch.zeros(25_000_000)}, whole)
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    assert packed.stat().st_size < 2**18
    with pytest.raises(WeightsError, match="bytes that unpack to 1000"):
        read_tensors(packed)


@pytest.mark.parametrize("cut", range(0, 700, 37))
def test_a_damaged_pickle_is_a_value_error_or_refused_whatever_torch_makes_of_it(tmp_path: Path, cut: int) -> None:
    stream = io.BytesIO()
    torch.save({"w": WEIGHT}, stream, _use_new_zipfile_serialization=False)
    content = stream.getvalue()
    (tmp_path / "w.pth").write_bytes(content[:cut] + content[cut + 1 :])
    with suppress(WeightsError):  # a byte less may be no damage
        read_tensors(tmp_path / "w.pth")
    (tmp_path / "t.pt").write_bytes(b"PK" + content[:cut])
    with pytest.raises(TrainingError):
        read_state(tmp_path / "t.pt")


def test_a_stream_is_read_from_where_it_begins() -> None:
    stream = io.BytesIO()
    torch.save({"w": WEIGHT}, stream)
    stream.seek(0)
    assert torch.equal(load_data(stream)["w"], WEIGHT)


@pytest.mark.parametrize("text", ['"\\ud800"', '["a", {"b": "\\uDFFF"}]', '{"\\u0000": 1}', '["x\\u0000"]'])
def test_half_characters_and_zero_bytes_are_no_text(text: str) -> None:
    for form in (parse_json, parse_yaml):
        with pytest.raises(DocumentError, match="half a character"):
            form(text)
    with pytest.raises(DocumentError):
        parse_json(b'"\xed\xa0\x80"')


def test_whole_characters_and_what_only_looks_like_an_escape_are_text() -> None:
    assert parse_json('["\\ud83d\\ude00", "\\\\u0000"]') == ["😀", "\\u0000"]
    assert parse_yaml('"\\U0001F600"') == "😀"


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 50_000, "a: " + "[" * 65])
def test_brackets_within_brackets_are_refused_at_once(text: str) -> None:
    began = time.process_time()
    with pytest.raises(DocumentError, match="line 1: more than 64 groups within each other"):
        parse_yaml(text)
    assert time.process_time() - began < 0.2


@pytest.mark.parametrize("content", [b"x" * 600, b"\x1f\x8b" * 500, b""])
def test_a_shard_under_its_digest_that_is_no_tar_is_removed_and_written_anew(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / f"s-{hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]}.tar"
    path.write_bytes(content)
    assert find_tar(tmp_path, "s") is None or content == b""
    assert write_tar(tmp_path, "s", [("a", b"b")]).places


def test_a_tar_with_names_that_lead_out_is_none_of_ours(tmp_path: Path) -> None:
    write_tar(tmp_path, "s", [("../a", b"b")])
    assert find_tar(tmp_path, "s") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", [b"[]", b"{", b"[" * 9000, b"\xff", b'{"format": "\\u001b[2J"}'])
def test_a_manifest_of_a_backup_that_is_none_is_refused(text: bytes) -> None:
    name = f"20260101T000000.000000Z-{hashlib.sha256(text).hexdigest()[:16]}.json"
    with pytest.raises(Exception, match=r"^place: backup 2026[^\n\x1b]*$") as error:
        decode("place", name, text)
    assert type(error.value).__name__ in ("DataError", "PlatformError")


def test_a_backup_made_before_the_first_year_is_refused() -> None:
    text = json.dumps({"format": 1, "made": "0001-01-01T00:00:00+12:00", "versions": {}, "databases": [], "trees": []}).encode()
    with pytest.raises(DataError, match="made at no time"):
        decode("place", f"20260101T000000.000000Z-{hashlib.sha256(text).hexdigest()[:16]}.json", text)


def test_lines_of_a_log_that_nest_without_end_say_nothing() -> None:
    deep = '{"a": ' + "[" * 9000 + "}"
    assert parse_error(f"gkd-error {deep}") is None
    assert parse_result(f"gkd-result {deep}") is None


def test_a_step_that_no_sum_can_hold_is_none() -> None:
    assert parse_line(b'{"step": 1.7e308, "time": 1}') is None
    assert parse_line(b'{"step": 12, "time": 1.5, "loss": Infinity}') is not None


def test_a_label_id_that_no_pixel_can_hold_is_refused() -> None:
    assert LabelEncoding(taxonomy="t", ids={-1: 255, 2**32 - 1: 0}).ids
    with pytest.raises(ValueError, match="less than 4294967296"):
        LabelEncoding(taxonomy="t", ids={2**70: 0})


def test_a_damaged_index_repeats_no_terminal_codes(tmp_path: Path) -> None:
    for tree in ({"format": "\x1b[2J"}, {"format": "gkd-shards-1", "dataset": "d", "members": {"\x1b[2J": 1}}):
        (tmp_path / "index.json").write_text(json.dumps(tree), encoding="utf-8")
        with pytest.raises(DataError, match=r"index\.json: [^\n\x1b]*$"):
            ShardIndex.read(tmp_path / "index.json")
    (tmp_path / "index.json").unlink()
    (tmp_path / "index.json").mkdir()
    with pytest.raises(DataError, match="a folder and no file"):
        ShardIndex.read(tmp_path / "index.json")
