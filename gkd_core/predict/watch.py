"""What a network sees of an image as a whole: the tokens that its decoder is given, pooled over windows.

They are noted while the network answers, so that `gkd predict` computes no token twice; or alone, without the decoder.
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


class Noting(nn.Module):
    """A network whose encoder sees windows (B, 3, H, W) as ever; what its decoder is given is noted, a vector a window.

    The vector is the mean over the places of the coarsest map, which are the tokens of the encoder's last block.
    """

    def __init__(self, network: Network, decode: Decode) -> None:
        super().__init__()
        self._network, self._decode = network, decode
        self._rows: list[Tensor] = []

    def forward(self, windows: Tensor) -> Tensor:
        maps = self._network.features(windows)
        self._rows.append(maps[-1].float().mean(dim=(2, 3)))
        return self._decode(maps, windows)

    def pooled(self, images: int = 1, windows_by_pass: Sequence[int] | None = None) -> Tensor:
        """The mean over its windows of each image, (images, C).

        Args:
            windows_by_pass: windows of an image in each pass over all images, where there are several.
        """
        rows = torch.cat(self._rows)
        if windows_by_pass is None:
            return rows.mean(dim=0, keepdim=True)
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
