"""The demo's teacher: a small ViT that has seen broad random styles, as a foundation model has seen the world.

Scenes are drawn on the fly in random palettes, textures, lights and band mixes, never in the style of a benchmark's
domain; street and aerial scenes have a head each. Only the encoder is kept.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gkd_core.data.augment.transforms import to_float
from gkd_core.data.world.render import render_labelled
from gkd_core.models.build import build_encoder
from gkd_core.models.decoders import segmentation_loss
from gkd_core.models.encoder import Encoder
from gkd_core.models.tensor_files import write_tensors
from gkd_core.seeding import seed_of
from gkd_core.settings import EncoderSettings, Section
from gkd_core.training.checkpoint import FolderStore
from gkd_core.training.loop import Training, train
from gkd_core.training.metrics import file_sink
from gkd_core.training.optimization import cosine, decay_groups
from gkd_core.training.progress import progress

DEMO_TEACHER_ARCH = EncoderSettings(
    arch="vit_tiny_patch16_224", patch_size=8, image_size=64, options={"embed_dim": 128, "depth": 5, "num_heads": 4}
)
STREET_CLASSES, AERIAL_CLASSES = 19, 6


class TeacherSettings(Section):
    """How the shipped teacher was trained."""

    updates: int = 2000
    batch_size: int = 32
    lr: float = 1e-3
    weight_decay: float = 0.05
    side: int = 64
    seed: int = 0
    threads: int = 1


class BroadStyles(nn.Module):
    """Dense supervision from the final tokens, upsampled: the tokens themselves must say what is where."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.street = nn.Linear(encoder.dim, STREET_CLASSES * 4)
        self.aerial = nn.Linear(encoder.dim, AERIAL_CLASSES * 4)

    def forward(self, batch: tuple[Tensor, Tensor, int]) -> dict[str, Tensor]:
        """A batch is images (B, 3, H, W), targets (B, H, W), and the number of street scenes, which come first."""
        images, target, streets = batch
        cls, patches = self.encoder.tokens(images)
        # The cls token has no task of its own here; added to every patch it carries what holds for the whole scene.
        joined = patches + cls.unsqueeze(1)
        rows, columns = self.encoder.grid(*images.shape[-2:])
        street = segmentation_loss(_fold(self.street(joined[:streets]), rows, columns), target[:streets])
        aerial = segmentation_loss(_fold(self.aerial(joined[streets:]), rows, columns), target[streets:])
        return {"loss": street + aerial, "loss_street": street.detach(), "loss_aerial": aerial.detach()}


def train_demo_teacher(settings: TeacherSettings, run_folder: Path, output: Path) -> None:
    """Train the demo's teacher and write its encoder, in half precision, to `output` (.safetensors).

    On one thread of the same processor and with the same torch the file is the same, bit for bit.
    """
    torch.set_num_threads(settings.threads)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of("demo-teacher", settings.seed))
        model = BroadStyles(build_encoder(DEMO_TEACHER_ARCH, seed_of("demo-teacher", settings.seed)))
    groups = decay_groups(model, settings.weight_decay)
    rate = cosine(settings.lr, settings.lr / 100, settings.updates, warmup=settings.updates // 20)
    training = Training(
        model=model,
        optimizer=torch.optim.AdamW(groups, lr=settings.lr),
        schedules=[rate] * len(groups),
        batch=lambda update: _batch(settings, update),
        updates=settings.updates,
        images_per_update=settings.batch_size,
        observe=lambda batch: {},
        clip_norm=1.0,
        checkpoint_every=500,
    )
    with progress("train the demo teacher", settings.updates) as advance:
        train(training, FolderStore(run_folder), file_sink(run_folder), advance)
    write_tensors({name: tensor.half() for name, tensor in model.encoder.state_dict().items()}, output)


def _batch(settings: TeacherSettings, update: int) -> tuple[Tensor, Tensor, int]:
    streets = settings.batch_size * 2 // 3
    images, targets = [], []
    for index in range(settings.batch_size):
        seed = np.random.SeedSequence([seed_of("demo-teacher", settings.seed, update, index)])
        image, label = (
            _street(seed, settings.side) if index < streets else render_labelled("aerial", seed, (settings.side, settings.side))
        )
        images.append(to_float(image))
        targets.append(torch.from_numpy(label).long())
    return torch.stack(images), torch.stack(targets), streets


def _street(seed: np.random.SeedSequence, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A square, at a random place, of a street scene twice as wide as high."""
    image, label = render_labelled("street", seed, (side, 2 * side))
    left = int(np.random.default_rng(seed.spawn(1)[0]).integers(side + 1))
    return image[:, left : left + side], label[:, left : left + side]


def _fold(logits: Tensor, rows: int, columns: int) -> Tensor:
    """(B, N, K · 4) to (B, K, 2 · rows, 2 · columns): four sub-pixels a token."""
    batch = logits.shape[0]
    grid = logits.transpose(1, 2).reshape(batch, -1, rows, columns)
    return nn.functional.pixel_shuffle(grid, 2)
