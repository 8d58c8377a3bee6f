"""The attention over the updates of stage 1a, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gkd_core.files import atomic_file

PANELS = {
    "attention_entropy": "entropy of the attention, share of log N",
    "matching_weight": "weight on the matching token",
}
Curve = tuple[str, Sequence[Mapping[str, float]]]


def save_curves(curves: Sequence[Curve], path: Path) -> None:
    """One panel a figure, one line a run, one colour a variant; runs without attention are left out."""
    shown = [(variant, steps) for variant, steps in curves if any("matching_weight" in line for line in steps)]
    variants = list(dict.fromkeys(variant for variant, _ in shown))
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (metric, title) in zip(figure.subplots(1, len(PANELS)), PANELS.items(), strict=True):
        for variant, steps in shown:
            first = not any(line.get_label() == variant for line in axes.get_lines())
            lines = [line for line in steps if metric in line]
            axes.plot(
                [line["step"] for line in lines],
                [line[metric] for line in lines],
                color=colormaps["tab10"](variants.index(variant)),
                label=variant if first else None,
                linewidth=1.4,
            )
        axes.set(title=title, xlabel="update of stage 1a", ylim=(0, 1))
        axes.spines[["top", "right"]].set_visible(False)
    if shown:
        axes.legend(frameon=False, fontsize=8)
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=90, format="png", metadata={"Software": None})
