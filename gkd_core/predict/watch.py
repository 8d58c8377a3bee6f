"""What a network sees of an image as a whole: the tokens that its decoder is given, pooled over windows.

Of each channel the mean and the deviation over all places: together they say what an image's style is (Huang and Belongie 2017),
while the mean alone is that of calm areas for a noisy image too. They are noted while the network answers, so that `gkd predict`
computes no token twice; or alone, without the decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from gkd_core.models.segmentor import Segmentor as Network
from gkd_core.predict.known import Distance, Known, PartName

Decode = Callable[[Sequence[Tensor], Tensor], Tensor]


def nothing(maps: Sequence[Tensor], images: Tensor) -> Tensor:
    """In the place of a decoder, (B, 1, H, W): where tokens alone are wanted."""
    return images.new_zeros(len(images), 1, *images.shape[-2:])


def network_with_tokens(network: nn.Module) -> Network:
    """A network as one whose tokens can be looked at; `TypeError` where it is another."""
    if not isinstance(network, Network):
        raise TypeError(f"a {type(network).__name__} has no tokens to look at")
    return network


def pooled_dim(network: Network) -> int:
    """How many numbers a network's pooled tokens are."""
    return 2 * network.coarsest_dim


class Noting(nn.Module):
    """A network whose encoder sees windows (B, 3, H, W) as ever; what its decoder is given is noted.

    That is mean and variance over the places of the coarsest map, the tokens of the encoder's last block, of each window.
    """

    def __init__(self, network: Network, decode: Decode) -> None:
        super().__init__()
        self._network, self._decode = network, decode
        self._rows: list[Tensor] = []

    def forward(self, windows: Tensor) -> Tensor:
        maps = self._network.features(windows)
        variance, mean = torch.var_mean(maps[-1].float(), dim=(2, 3), correction=0)
        self._rows.append(torch.stack([mean, variance], dim=1))
        return self._decode(maps, windows)

    def pooled(self, images: int = 1, windows_by_pass: Sequence[int] | None = None) -> Tensor:
        """Mean and deviation of each of C channels over all windows of each image, (images, 2 C), in double precision.

        Args:
            windows_by_pass: windows of an image in each pass over all images, where there are several.
        """
        mean, variance = torch.cat(self._rows).to("cpu", torch.float64).unbind(dim=1)
        passes = [len(mean)] if windows_by_pass is None else windows_by_pass
        first, second = (_by_image(rows, images, passes) for rows in (mean, variance + mean.square()))
        return torch.cat([first, (second - first.square()).clamp_min(0).sqrt()], dim=1)


def _by_image(rows: Tensor, images: int, windows_by_pass: Sequence[int]) -> Tensor:
    """The mean of the rows (R, C) of each image, (images, C): every pass has those of one image after those of another."""
    passes = rows.split([images * count for count in windows_by_pass])
    total = torch.stack([each.unflatten(0, (images, -1)).sum(dim=1) for each in passes]).sum(dim=0)
    return total / sum(windows_by_pass)


class Watch:
    """What sees some images, and says afterwards how far they are from what is known: nothing, where there are no statistics.

    Attributes:
        network: sees windows (B, 3, H, W) and answers with scores.
    """

    def __init__(self, network: nn.Module, known: Known | None) -> None:
        self._known = known
        self._noting: Noting | None = None
        if known is not None:
            seen = network_with_tokens(network)
            self._noting = Noting(seen, seen.logits)
        self.network = network if self._noting is None else self._noting

    def distances(self, images: int = 1, windows_by_pass: Sequence[int] | None = None) -> list[dict[PartName, Distance]]:
        """How far each of the images is, by part; `windows_by_pass` as of `Noting.pooled`."""
        if self._known is None or self._noting is None:
            return [{} for _ in range(images)]
        return self._known.distances(self._noting.pooled(images, windows_by_pass))
