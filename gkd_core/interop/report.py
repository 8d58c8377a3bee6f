"""What an import did with each tensor, in words."""

from __future__ import annotations

from collections.abc import Sequence

from gkd_core.interop.importing import OPTIONAL, Imported

EXAMPLES = 3


def describe(imported: Imported) -> list[str]:
    """Lines for the terminal: what was mapped, set aside and unknown, by count and by name."""
    checkpoint, renamed, coverage = imported.checkpoint, imported.renamed, imported.coverage
    encoder = imported.encoder
    lines = [
        f"{checkpoint.path}: {checkpoint.kind}, {len(checkpoint.tensors)} tensors",
        f"encoder   {encoder.arch}, patch {encoder.patch_size}, laid out for {encoder.image_size} × {encoder.image_size} pixels",
        f"mapped    {len(renamed.mapped)} tensors to {len(renamed.tensors)} of the model's {len(coverage.loaded)}",
    ]
    lines += [f"          {part}: {count}" for part, count in _parts(tuple(renamed.tensors)).items()]
    kept = [name for name in OPTIONAL if name in coverage.loaded and name not in renamed.tensors]
    lines += [f"kept      {name}: not in the checkpoint, not needed after stage one" for name in kept]
    lines += [f"left out  {len(names)}: {reason} ({_some(names)})" for reason, names in renamed.aside.items()]
    lines += [f"unknown   {name}" for name in renamed.unknown]
    if checkpoint.unread:
        lines.append(f"not read  {', '.join(checkpoint.unread)}")
    return lines


def _parts(names: Sequence[str]) -> dict[str, int]:
    """Number of names under each of the model's parts, such as `student` or `decoder.pixel_decoder`."""
    counts: dict[str, int] = {}
    for name in names:
        words = name.split(".")
        part = ".".join(words[: 2 if words[0] == "decoder" else 1])
        counts[part] = counts.get(part, 0) + 1
    return counts


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:EXAMPLES]) + (", …" if len(names) > EXAMPLES else "")
