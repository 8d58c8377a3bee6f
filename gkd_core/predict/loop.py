"""Many images through a student: read ahead in a thread, seen in batches of one size, written in another thread.

What is between the threads has bounds, so that memory does not depend on how many images there are.
"""

from __future__ import annotations

import errno
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TypeVar

import torch

from gkd_core.errors import DataError, GkdError
from gkd_core.predict.ahead import Ahead
from gkd_core.predict.answer import Answer
from gkd_core.predict.geotiff import is_geo, predict_geo
from gkd_core.predict.inputs import Input
from gkd_core.predict.outputs import Outputs, Row, Table
from gkd_core.predict.pictures import Picture, read_picture
from gkd_core.predict.student import Segmentor
from gkd_core.predict.video import frames

AHEAD, MOST_AHEAD = 256 * 2**20, 64  # bytes of pictures, and pictures, that are read ahead
UNWRITTEN = 3  # images that wait to be written
# What a file system says of one name, and not of the disk.
OF_A_NAME = (errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EINVAL, errno.EILSEQ)


Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture of an input; or that it is to be read by strips; or that the input has ended, and what was wrong with it."""

    item: Input
    name: PurePosixPath
    given: str
    picture: Picture | None = None
    by_strips: bool = False
    error: str | None = None

    @property
    def nbytes(self) -> int:
        """Room that it takes."""
        return 0 if self.picture is None else self.picture.nbytes


@dataclass
class Tally:
    """How a run went: images answered, inputs that could not be read or written, seconds."""

    answered: int = 0
    failed: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.answered / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Work:
    """What inputs are answered by, and who is told.

    Attributes:
        batch: images of one size that are seen at once.
        every: of a video, each so many-th frame is.
        advance: is told how many inputs are done.
        say: is told what is wrong with one, in one line.
    """

    segmentor: Segmentor
    outputs: Outputs
    table: Table
    batch: int
    every: int
    advance: Callable[[int], None]
    say: Callable[[str], None]


def predict_inputs(work: Work, inputs: Sequence[Input]) -> Tally:
    """Answer every input, and write what is wanted. One that is damaged is told and skipped; the others go on.

    Raises:
        GkdError: no further image could be answered: nothing that reads videos is installed, the device has no memory left.
        OSError: the disk is full, or the outputs' folder cannot be written to.
    """
    began = time.perf_counter()
    ahead = Ahead(_read(inputs, work), MOST_AHEAD, AHEAD, lambda seen: seen.nbytes)
    with ThreadPoolExecutor(1, "gkd-write") as writer, ahead as found:
        run = _Run(work, writer)
        for seen in found:
            run.take(seen)
        run.finish()
    run.tally.seconds = time.perf_counter() - began
    return run.tally


def _read(inputs: Sequence[Input], work: Work) -> Iterator[Seen]:
    """The pictures of all inputs, each input's followed by its end."""
    for item in inputs:
        error = None
        try:
            if item.is_video:
                for number, picture in frames(item.path, work.every):
                    yield Seen(item, item.name / f"{number:06d}", f"{item.given}#{number}", picture)
            elif is_geo(item, work.say):
                yield Seen(item, item.name, item.given, by_strips=True)
            else:
                yield Seen(item, item.name, item.given, read_picture(item.path))
        except DataError as refused:
            error = str(refused)
        yield Seen(item, item.name, item.given, error=error)


class _Run:
    """Pictures on their way: gathered to batches, answered, handed to the writer, noted in the table."""

    def __init__(self, work: Work, writer: ThreadPoolExecutor) -> None:
        self._work, self._writer = work, writer
        self._group: list[tuple[Seen, Picture]] = []
        self._unwritten: deque[tuple[Seen, Future[Row]]] = deque()
        self._ended = 0
        self.tally = Tally()

    def take(self, seen: Seen) -> None:
        """Go on with what was read."""
        if seen.picture is not None:
            if self._group and not self._joins(seen.picture):
                self._answer_group()
            self._group.append((seen, seen.picture))
            if not self._joins(seen.picture):
                self._answer_group()
        elif seen.by_strips:
            self._answer_group()
            self._answer_by_strips(seen)
        else:
            self._end(seen)

    def finish(self) -> None:
        """Answer and write what is left."""
        self._answer_group()
        self._note(0)

    def _joins(self, picture: Picture) -> bool:
        """Whether a picture could be seen together with those gathered."""
        first, count = self._group[0][1], len(self._group) + 1
        size = picture.height, picture.width
        alike = size == (first.height, first.width)
        return alike and count <= self._work.batch and not self._work.segmentor.is_large(*size, count)

    def _answer_group(self) -> None:
        group, self._group = self._group, []
        if not group:
            return
        answers = _told(lambda: self._work.segmentor.predict_all([picture for _, picture in group]), group[0][0].given)
        for (seen, _), answer in zip(group, answers, strict=True):
            self._note(UNWRITTEN - 1)
            self._unwritten.append((seen, self._writer.submit(_written, self._work.outputs, seen, answer)))

    def _answer_by_strips(self, seen: Seen) -> None:
        work = self._work
        self._note(0)
        try:
            row = _told(lambda: predict_geo(work.segmentor, seen.item, work.outputs), seen.given)
        except DataError as error:
            self._fail(str(error))
        except OSError as error:
            self._fail(_of_its_name(seen, error))
        else:
            self._add(row)

    def _end(self, seen: Seen) -> None:
        self._ended += 1
        if seen.error is not None:
            self._fail(seen.error)
        self._work.advance(self._ended)

    def _note(self, most: int) -> None:
        """Wait until no more than so many images are unwritten, and put those that are written in the table."""
        while len(self._unwritten) > most:
            seen, future = self._unwritten.popleft()
            try:
                row = future.result()
            except OSError as error:
                self._fail(_of_its_name(seen, error))
            else:
                self._add(row)

    def _add(self, row: Row) -> None:
        self._work.table.add(row)
        self.tally.answered += 1

    def _fail(self, line: str) -> None:
        self.tally.failed += 1
        self._work.say(line)


def _written(outputs: Outputs, seen: Seen, answer: Answer) -> Row:
    return Row.of(seen.given, outputs.write(seen.name, answer), answer)


def _of_its_name(seen: Seen, error: OSError) -> str:
    """What is wrong with the names of an image's outputs; raises the error where it is not of them."""
    if error.errno not in OF_A_NAME:
        raise error
    return f"{seen.given}: its outputs cannot be written ({error.strerror}: {error.filename}); rename the image"


def _told(work: Callable[[], Result], given: str) -> Result:
    try:
        return work()
    except torch.OutOfMemoryError:
        raise GkdError(f"{given}: the device has no memory left; give a smaller --batch, or --device cpu") from None
