"""Measuring: in turn, by the clock that is given, FLOPs and parameters as counted otherwise, memory as it was taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gkd_core.errors import DataError, GkdError, SettingsError
from gkd_core.models.build import build_encoder, parameter_count
from gkd_core.models.decoders import DECODERS
from gkd_core.models.flops import recorded_cost
from gkd_core.models.segmentor import build_segmentor
from gkd_core.predict import memory, timing
from gkd_core.predict.memory import MemoryJob, forward, peak_bytes, random_images, resident_growth
from gkd_core.predict.timing import (
    WARM_UP,
    Conditions,
    Subject,
    in_turn,
    latency_device,
    measure_latency,
    processor,
    with_encoder,
)
from gkd_core.records import MANIFEST, SegmentorCheckpoint
from gkd_core.settings import EncoderSettings
from tests.conftest import TINY_VIT
from tests.predict.conftest import CLASSES, CNN, network_of, segmentor_folder

CPU = torch.device("cpu")
CONDITIONS = Conditions(size=(32, 64), batch=2, threads=1, repeats=4, device=CPU)
WIDER = EncoderSettings.model_validate(TINY_VIT | {"options": {"embed_dim": 32, "depth": 3, "num_heads": 2}})


def segmentor(folder: Path, decoder: str = "linear", family: str = "vit") -> Subject:
    record = SegmentorCheckpoint.read(segmentor_folder(folder / f"{decoder}-{family}", decoder, family) / MANIFEST)
    return Subject("student.gkd", record, network_of(decoder, family), "fp32", record.sha256)


def teacher_of(model: Subject, settings: EncoderSettings = WIDER) -> Subject:
    return with_encoder(model, settings, "teacher")


@pytest.fixture
def no_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts no process to measure memory."""
    monkeypatch.setattr(timing, "peak_bytes", lambda job, network, device: 1000)


def test_works_are_done_in_turn_and_the_first_rounds_do_not_count() -> None:
    done: list[str] = []
    told: list[int] = []
    now = 0.0

    def work(name: str, seconds: Iterator[float]) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            done.append(name)
            now += next(seconds)

        return run

    passes = [work("a", iter([90, 90, 90, 1, 2, 3])), work("b", iter([70, 70, 70, 10, 20, 30]))]
    times = in_turn(passes, 3, lambda: done.append("."), told.append, clock=lambda: now)
    assert times == [[1, 2, 3], [10, 20, 30]]
    assert "".join(done) == ".a..b." * (WARM_UP + 3), "what was begun before is waited for, and so is what was asked"
    assert told == list(range(1, WARM_UP + 4))


def test_one_pass_has_no_percentile() -> None:
    with pytest.raises(SettingsError, match="repeats: given 1; expected 2 or more"):
        in_turn([lambda: None], 1, lambda: None)


@pytest.mark.parametrize("family", ["vit", "cnn"])
@pytest.mark.parametrize("decoder", DECODERS)
def test_flops_and_parameters_are_those_of_the_network(tmp_path: Path, decoder: str, family: str) -> None:
    subject = segmentor(tmp_path, decoder, family)
    cost = recorded_cost(subject.record, (32, 64))
    assert cost.parameters == sum(tensor.numel() for tensor in subject.network.parameters())
    # Without numbers: a CPU's fused attention is an operator that the counter does not know.
    empty = network_of.__wrapped__(decoder, family).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        empty(torch.zeros(1, 3, 32, 64, device="meta"))
    assert cost.flops == counter.get_total_flops() > 0


def test_a_linear_student_s_flops_are_the_sum_by_hand(tmp_path: Path) -> None:
    dim, depth, patches = 24, 2, 4 * 8
    tokens = patches + 1
    block = 2 * tokens * dim * 12 * dim + 2 * 2 * tokens**2 * dim
    encoder = 2 * patches * dim * 3 * 8 * 8 + depth * block
    assert recorded_cost(segmentor(tmp_path).record, (32, 64)).flops == encoder + 2 * patches * dim * len(CLASSES)


@pytest.mark.parametrize("decoder", DECODERS)
def test_an_encoder_is_put_under_the_model_s_decoder(tmp_path: Path, decoder: str) -> None:
    model = segmentor(tmp_path, decoder)
    other = with_encoder(model, EncoderSettings.model_validate(CNN | {"weights": "hub"}), "teacher")
    assert (other.record.encoder.arch, other.record.encoder.weights) == (CNN["arch"], "random"), "nothing is fetched"
    assert (other.record.decoder, other.precision, other.sha256, other.title) == (decoder, model.precision, None, "teacher")
    assert parameter_count(other.network) == parameter_count(network_of(decoder, "cnn"))
    with torch.inference_mode():
        assert other.network(torch.zeros(1, 3, 32, 64)).shape == (1, len(CLASSES), 32, 64)
    with pytest.raises(SettingsError, match="^teacher: arch: timm .* has no model 'no_such'"):
        with_encoder(model, EncoderSettings(arch="no_such"), "teacher")


def noted(work: Callable[..., Any], order: list[str], title: str) -> Callable[..., Any]:
    """A work that also writes down its title."""

    def run(*given: Any) -> Any:
        order.append(title)
        return work(*given)

    return run


@pytest.mark.usefixtures("no_child")
def test_a_student_and_a_teacher_are_measured_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    student = segmentor(tmp_path)
    teacher = teacher_of(student)
    for subject in (student, teacher):
        monkeypatch.setattr(subject.network, "forward", noted(subject.network.forward, order, subject.title))

    watched: list[int] = []

    @contextmanager
    def watch(rounds: int) -> Iterator[Callable[[int], None]]:
        watched.append(rounds)
        yield watched.append

    found = measure_latency(student, teacher, CONDITIONS, watch)
    assert order == ["student.gkd", "teacher"] * (WARM_UP + 4)
    assert watched == [WARM_UP + 4, *range(1, WARM_UP + 5)]
    assert found.against is not None
    assert (found.model.decoder, found.model.sha256) == ("linear", student.sha256)
    assert (found.against.decoder, found.against.sha256) == ("linear", None)
    assert (found.size, found.batch, found.threads, found.warm_up, found.repeats) == ((32, 64), 2, 1, WARM_UP, 4)
    for each in (found.model, found.against):
        assert each.images_per_second == pytest.approx(2 / each.median_seconds)
        assert 0 < each.median_seconds <= each.p95_seconds
    assert found.model.flops == recorded_cost(student.record, (32, 64)).flops, "of one image, not of the batch"
    assert found.model.parameters < found.against.parameters


@pytest.mark.usefixtures("no_child")
def test_a_size_that_a_model_cannot_see_is_one_line_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "in_turn", lambda *_: pytest.fail("it was timed"))
    sides = Conditions((30, 64), 1, 1, 2, CPU)
    student = segmentor(tmp_path, family="cnn")
    with pytest.raises(DataError, match="^teacher: image of 30 × 64 pixels: both sides must be multiples of the patch, 8$"):
        measure_latency(student, teacher_of(student), sides)


@pytest.mark.usefixtures("no_child")
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")]
)
def test_no_room_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
    def full(*_: object) -> Any:
        raise error

    subject = teacher_of(segmentor(tmp_path))
    monkeypatch.setattr(subject.network, "forward", full)
    with pytest.raises(GkdError, match="^teacher: .* memory.*; give a smaller --batch or --size$"):
        measure_latency(subject, None, CONDITIONS)


def test_a_pass_keeps_nothing_for_a_backward_pass_and_computes_as_it_is_told() -> None:
    network = build_segmentor(build_encoder(WIDER, 0), "linear", 3, 8, 0).eval()
    images = random_images(2, (32, 32), CPU)
    assert torch.equal(images, random_images(2, (32, 32), CPU)) and images.shape == (2, 3, 32, 32)
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        logits: Any = forward(network, precision)(images)
        assert logits.is_inference() and logits.dtype == kind and logits.shape == (2, 3, 32, 32)


def test_devices_that_cannot_be_timed_are_refused() -> None:
    assert latency_device("cpu") == CPU
    with pytest.raises(SettingsError, match="latency is measured on cpu or cuda, given 'meta'"):
        latency_device("meta")
    with pytest.raises(SettingsError, match="device: 'nonsense' cannot be used here"):
        latency_device("nonsense")


def test_a_processor_has_a_name_whatever_the_system_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor : 0\nmodel name\t: A CPU @ 2 GHz | fast\n")
    monkeypatch.setattr(timing, "CPU_FACTS", facts)
    assert processor(CPU) == "A CPU 2 GHz fast"
    facts.unlink()
    assert processor(CPU) == timing.platform.machine()


def test_memory_is_that_of_the_second_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    kept: list[torch.Tensor] = []

    def work() -> None:
        if not kept:
            kept.append(torch.ones(50_000_000))  # what is only once in place does not count
        torch.ones(20_000_000)

    found = resident_growth(work)
    assert found is not None
    assert found == pytest.approx(80_000_000, rel=0.2)
    monkeypatch.setattr(memory, "CLEAR_REFS", tmp_path / "none/clear_refs")
    assert resident_growth(lambda: None) is None, "a system that does not tell is no error"


def test_a_fresh_process_tells_the_peak_of_a_pass(tmp_path: Path) -> None:
    subject = segmentor(tmp_path)
    weights = 4 * sum(tensor.numel() for tensor in [*subject.network.parameters(), *subject.network.buffers()])
    images, logits = 4 * 256 * 3 * 64 * 64, 4 * 256 * len(CLASSES) * 64 * 64
    found = peak_bytes(job_of(subject, 256), subject.network, CPU)
    assert found is not None
    assert weights + images + logits < found < weights + 5 * (images + logits)


def test_a_process_that_fails_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = segmentor(tmp_path)
    for code, words in (
        ("raise SystemExit('no room')", r"its memory could not be measured \(no room\)"),
        ("import os; os.kill(os.getpid(), 9)", r"was killed \(signal 9\)"),
    ):
        monkeypatch.setattr(memory, "_program", lambda code=code: ["-c", code])
        with pytest.raises(GkdError, match=f"{words}; give a smaller --batch or --size"):
            peak_bytes(job_of(subject, 1), subject.network, CPU)


def job_of(subject: Subject, batch: int) -> MemoryJob:
    return MemoryJob(model=subject.record, size=(64, 64), batch=batch, threads=1, precision=subject.precision)
