"""Which images and labels a run reads."""

from __future__ import annotations

from pydantic import Field, model_validator

from gkd_core.settings.base import LocalPath, NonNegativeInt, PositiveInt, Section


class WorldSettings(Section):
    """Sizes of the embedded world that `prepare-data` renders."""

    seed: NonNegativeInt = Field(7, description="Seed of every scene and style; the world is a pure function of this section.")
    street_size: tuple[PositiveInt, PositiveInt] = Field((64, 128), description="Street images, (height, width) in pixels.")
    aerial_size: tuple[PositiveInt, PositiveInt] = Field((64, 64), description="Aerial tiles, (height, width) in pixels.")
    proxy_images: PositiveInt = Field(640, description="Unlabelled proxy images (street and aerial, broad random styles).")
    train_images: PositiveInt = Field(160, description="Labelled training images of each source domain.")
    val_images: PositiveInt = Field(40, description="Labelled validation images of each source domain.")
    target_images: PositiveInt = Field(40, description="Labelled images of each target domain.")


class StreamingSettings(Section):
    """An order of training that reads shards one after the other, so that each machine needs few of them at a time."""

    lanes: PositiveInt = Field(
        description="Streams that the shards are dealt to; a multiple of compute.workers, and a divisor of every batch size."
    )
    window: PositiveInt = Field(4, description="Shards of a lane whose images are shuffled together.")


class DataSettings(Section):
    """Which datasets take part, and where they lie. Read by `prepare-data` and by every stage that reads images."""

    world: WorldSettings | None = Field(
        default=WorldSettings(), description="The embedded world to render; null when real datasets are used."
    )
    root: LocalPath | None = Field(None, description="Folder that holds the real datasets as they unpack; null when not used.")
    shards: LocalPath | None = Field(
        None, description="Shards that `gkd data prepare` wrote: their folder, or s3://bucket/prefix; null when not used."
    )
    streaming: StreamingSettings | None = Field(
        None, description="Training reads shards one after the other; null shuffles the whole dataset. Part of the result."
    )
    catalogs: tuple[LocalPath, ...] = Field(
        (), description="YAML files with further dataset entries; a bare name is one shipped with the package."
    )
    proxy: str = Field("proxy/all", description="Unlabelled proxy images of stage 1a, as dataset/split of the catalog.")
    field: LocalPath | None = Field(
        None,
        description="Folder of unlabelled images from the field that join the proxy in stage 1a, each seen as often as any "
        "other; null: none do.",
    )
    benchmarks: tuple[str, ...] = Field(
        ("G2C", "G2B", "G2M", "C2A", "P2R"),
        min_length=1,
        description="Benchmarks to evaluate; their sources are what is learnt from.",
    )

    @property
    def shards_in_bucket(self) -> bool:
        """Whether the shards lie in a bucket."""
        return self.shards is not None and self.shards.startswith("s3://")

    @model_validator(mode="after")
    def _one_origin(self) -> DataSettings:
        given = [name for name in ("world", "root", "shards") if getattr(self, name) is not None]
        if len(given) != 1:
            what = " and ".join(given) or "none"
            raise ValueError(f"given {what}; exactly one of world, root and shards must be set, the others null")
        if self.streaming is not None and self.shards is None:
            raise ValueError("streaming needs shards; set shards too, or streaming to null")
        if self.streaming is not None and self.field is not None:
            raise ValueError("field: its images lie in no shard that could be streamed; set streaming to null, or field")
        return self
