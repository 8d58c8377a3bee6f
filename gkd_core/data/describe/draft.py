"""The text of a catalog file with comments that say what was seen, what was guessed, and what is to be filled in."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

from gkd_core.data.catalog.taxonomy import IGNORE
from gkd_core.data.describe.labels import Counts, distinct_colors
from gkd_core.documents import dump_yaml
from gkd_core.messages import shown

SECTIONS = ("taxonomies", "encodings", "datasets")
LONGEST = 8000  # characters of a comment: a command to be copied must be whole


@dataclass
class Draft:
    """Sections of a catalog file, with comments.

    Attributes:
        gaps: what could not be guessed, and is to be filled in or mended by hand.
        benchmark: one to begin from, which is printed as a comment.
    """

    head: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    sections: dict[str, dict[str, Any]] = field(default_factory=lambda: {section: {} for section in SECTIONS})
    notes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    benchmark: dict[str, Any] | None = None

    def add(self, section: str, name: str, item: dict[str, Any]) -> None:
        """Put an entry into a section."""
        self.sections[section][name] = item

    def note(self, section: str, line: str) -> None:
        """Put a comment above a section."""
        self.notes[section].append(line)

    def gap(self, line: str) -> None:
        """Say what is to be filled in, or mended."""
        if line not in self.gaps:
            self.gaps.append(line)

    def add_values(self, taxonomy: str, encoding: str, counts: Counts) -> None:
        """Classes for the values of label files, and the table from one to the other."""
        ignored = counts.ignored()
        classes = [value for value in counts.values if value not in ignored]
        colored = counts.form == "color"
        texts = {value: f"#{value:06x}" if colored else str(value) for value in counts.values}
        names = {value: f"class {texts[value].lstrip('#')}" for value in classes}
        drawn = {value: value for value in classes} if colored else counts.palette
        spare = distinct_colors(len(classes))
        colors = [_channels(drawn[value]) if value in drawn else spare[at] for at, value in enumerate(classes)]
        self.add("taxonomies", taxonomy, {"classes": list(names.values()), "colors": colors})
        self.note("taxonomies", f"{taxonomy}: names to be given, in this order; colours are those of pictures")
        table: dict[str, Any] = {"taxonomy": taxonomy}
        if colored:
            table["colors"] = {texts[value]: names.get(value) for value in counts.values}
        else:
            table |= {} if counts.form == "index" else {"form": counts.form}
            table["ids"] = {value: classes.index(value) if value in names else IGNORE for value in counts.values}
        self.add("encodings", encoding, table)
        whole = "all" if counts.is_whole else "a sample, so that others may have more values:"
        self.note("encodings", f"{encoding}: counted in {whole} {counts.read} of {counts.of} label files")
        for value in counts.values:
            meaning = "ignored: a guess" if value in ignored else f"-> {names[value]}"
            share = f"{100 * counts.share(value):.2f} % of pixels, in {counts.files[value]} files"
            self.note("encodings", f"  {texts[value]}: {share} {meaning}")

    @property
    def text(self) -> str:
        """The file. Comments hold foreign names: none has a line's end in it."""
        lines = [*map(_comment, self.head), *(_comment(f"FILL IN: {gap}") for gap in self.gaps)]
        for section, items in self.sections.items():
            if items:
                lines += ["", *map(_comment, self.notes[section]), dump_yaml({section: items}).rstrip("\n")]
        if self.benchmark is not None:
            lines += ["", _comment("To train and measure, a benchmark is needed; which split is a target is yours to say:")]
            lines += [_comment(line) for line in dump_yaml({"benchmarks": self.benchmark}).splitlines()]
        return "\n".join(lines) + "\n"


def _comment(line: str) -> str:
    return f"# {shown(line, LONGEST)}"


def _channels(color: int) -> list[int]:
    return [color >> 16, color >> 8 & 255, color & 255]
