"""A student for programs: `Segmentor.open("student.gkd").predict(image)`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from gkd_core.errors import SettingsError
from gkd_core.evaluate.inference import batch_logits, resized_batch, windows_by_pass
from gkd_core.messages import one_line, shown
from gkd_core.models.segmentor import load_segmentor
from gkd_core.predict.answer import Answer, Colors, Strip, judged
from gkd_core.predict.bundle import open_bundle, open_known
from gkd_core.predict.known import Distance, Known, PartName
from gkd_core.predict.manifest import Bundle
from gkd_core.predict.pictures import Picture, picture_of
from gkd_core.predict.watch import Noting, Watch, network_with_tokens, nothing, pooled_dim
from gkd_core.predict.windows import Rows, logit_rows
from gkd_core.settings import EvaluateSettings
from gkd_core.untrusted import given_path

MOST_WHOLE = 512 * 2**20  # bytes of an image's logits; a larger one is seen strip by strip
STRIP = 64 * 2**20  # bytes of the logits of one strip
ADDITIVE = ("mask2former",)  # decoders whose scores are sums of probabilities


class Segmentor:
    """A student in use. It sees an image as its scores were measured, and answers at the image's own size.

    Attributes:
        bundle: what is known of it.
        device: where it computes.
        known: statistics of the images that it knows; None where there are none.
    """

    def __init__(self, bundle: Bundle, network: nn.Module, device: torch.device, known: Known | None = None) -> None:
        self.bundle, self.device, self.known = bundle, device, known
        self._network = network.eval().to(device)
        self._additive = bundle.model.decoder in ADDITIVE

    @classmethod
    def open(cls, path: str | Path, device: str = "auto") -> Self:
        """Open a bundle. Nothing in it is run.

        Args:
            path: the folder that `gkd bundle` wrote.
            device: as torch calls it, such as cuda:1; auto takes a GPU where there is one.

        Raises:
            GkdError: it is no bundle, or is damaged; or there is no such device.
        """
        place, folder = device_named(device), given_path(path)
        bundle, network = open_bundle(folder)
        return cls(bundle, network, place, open_known(folder, bundle, network))

    @classmethod
    def of_segmentor(cls, bundle: Bundle, folder: Path, device: torch.device) -> Self:
        """A student as stage two left it in a folder, and what a bundle would say of it."""
        return cls(bundle, load_segmentor(folder), device)

    @property
    def classes(self) -> tuple[str, ...]:
        """What the classes are called, in the order of their train ids."""
        return self.bundle.classes

    @property
    def colors(self) -> Colors:
        """The colour of each class, (red, green, blue)."""
        return self.bundle.colors

    @property
    def additive(self) -> bool:
        """Whether its scores are sums of probabilities."""
        return self._additive

    def predict(self, image: object) -> Answer:
        """The classes of one image.

        Args:
            image: a path, a PIL image, an array (H, W) or (H, W, C), or a tensor (C, H, W); of uint8, uint16, or floats in 0..1.

        Raises:
            DataError: it is damaged, or is no image.
        """
        return self.predict_all([image])[0]

    def predict_all(self, images: Sequence[object]) -> list[Answer]:
        """The classes of several images, which are seen at once where they are of one size.

        Their answers are those of `predict` but for the last bit of a score.
        """
        pictures = [picture_of(image) for image in images]
        sizes = {(picture.height, picture.width) for picture in pictures}
        if len(sizes) == 1 and not self.is_large(*next(iter(sizes)), len(pictures)):
            return self._at_once(pictures)
        return [self._alone(picture) for picture in pictures]

    def is_large(self, height: int, width: int, images: int = 1) -> bool:
        """Whether the logits of so many images of a size take more room than there should be."""
        view = self.bundle.view
        pixels = max([height * width, *(scale**2 * self._shown(height, width) for scale in view.scales)])
        return images * len(self.classes) * pixels * 4 > MOST_WHOLE

    def watch(self) -> Watch:
        """What sees one image and says how far it is from those that are known."""
        return Watch(self._network, self.known)

    @property
    def pooled_dim(self) -> int:
        """How many numbers `pooled` gives."""
        return pooled_dim(network_with_tokens(self._network))

    @torch.inference_mode()
    def pooled(self, picture: Picture) -> Tensor:
        """The tokens of an image, pooled (1, 2 C): what its distances are of."""
        noting = Noting(network_with_tokens(self._network), nothing)
        batch_logits(noting, _shown(picture, self.bundle).unsqueeze(0).to(self.device), self._settings(1))
        return noting.pooled()

    @torch.inference_mode()
    def strips(self, picture: Rows, size: tuple[int, int], watch: Watch) -> Iterator[tuple[int, Tensor]]:
        """Scores (K, rows, width) of an image at a size, strip by strip from the top, each with its first row.

        Args:
            picture: after the first step of the protocol (`Picture.scaled`).
            watch: what sees it.
        """
        rows = logit_rows(watch.network, picture, self.bundle.view, self._settings(1), self.device, size)
        step = max(1, STRIP // (len(self.classes) * size[1] * 4))
        for top in range(0, size[0], step):
            yield top, rows.rows(top, min(top + step, size[0]))

    @torch.inference_mode()
    def _at_once(self, pictures: Sequence[Picture]) -> list[Answer]:
        began = time.perf_counter()
        size = pictures[0].height, pictures[0].width
        seen = torch.stack([_shown(picture, self.bundle) for picture in pictures]).to(self.device)
        settings, watch = self._settings(len(pictures)), self.watch()
        scores = resized_batch(batch_logits(watch.network, seen, settings), size)
        strips = [judged(each, self._additive) for each in scores]
        distances = watch.distances(len(pictures), windows_by_pass(seen.shape[-2], seen.shape[-1], settings))
        seconds = (time.perf_counter() - began) / len(pictures)
        return [
            self._answer(picture, [strip], seconds, partial(_whole, each), far)
            for picture, strip, each, far in zip(pictures, strips, scores, distances, strict=True)
        ]

    def _alone(self, picture: Picture) -> Answer:
        large = self.is_large(picture.height, picture.width)
        return self._strip_by_strip(picture) if large else self._at_once([picture])[0]

    def _strip_by_strip(self, picture: Picture) -> Answer:
        began = time.perf_counter()
        size, view = (picture.height, picture.width), self.bundle.view

        def scores(watch: Watch) -> Iterator[tuple[int, Tensor]]:
            return self.strips(picture.scaled(view.protocol), size, watch)

        watch = self.watch()
        strips = [judged(each, self._additive, top) for top, each in scores(watch)]
        seconds = time.perf_counter() - began
        return self._answer(picture, strips, seconds, lambda: scores(self.watch()), watch.distances()[0])

    def _answer(
        self,
        picture: Picture,
        strips: Sequence[Strip],
        seconds: float,
        scores: Callable[[], Iterator[tuple[int, Tensor]]],
        distances: Mapping[PartName, Distance],
    ) -> Answer:
        labels = np.concatenate([strip.labels for strip in strips])
        return Answer(
            labels=labels,
            confidence=np.concatenate([strip.confidence for strip in strips]),
            entropy=sum(strip.entropy for strip in strips) / labels.size,
            classes=self.classes,
            colors=self.colors,
            seconds=seconds,
            _picture=picture,
            _scores=scores,
            _additive=self._additive,
            distances=distances,
        )

    def _settings(self, images: int) -> EvaluateSettings:
        return self.bundle.view.settings(images)

    def _shown(self, height: int, width: int) -> int:
        rows, columns = self.bundle.view.protocol.input_size(height, width)
        return rows * columns


def _whole(scores: Tensor) -> Iterator[tuple[int, Tensor]]:
    """The scores of all of an image as one strip."""
    yield 0, scores


def _shown(picture: Picture, bundle: Bundle) -> Tensor:
    """An image as the protocol shows it, (3, h, w)."""
    scaled = picture.scaled(bundle.view.protocol)
    size = bundle.view.protocol.input_size(picture.height, picture.width)
    return resized_batch(scaled.rows(0, scaled.height).unsqueeze(0), size)[0]


def device_named(name: str) -> torch.device:
    """A device by its name; `SettingsError` where torch knows none of that name, or finds none here."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, ValueError, AssertionError, NotImplementedError, ImportError) as error:
        raise SettingsError(
            f"device: '{shown(name, 40)}' cannot be used here ({one_line(error, 120)}); give cpu, cuda, cuda:1 or auto"
        ) from None
    return device
