"""The model card of a bundle: what the student is, what it knows, how it scores and how it is used, as Markdown."""

from __future__ import annotations

from jinja2 import Environment, StrictUndefined

from gkd_core.predict.latency import COLUMNS, UNKNOWN, Latency, conditions_of, ratio, rows_of, three_digits
from gkd_core.predict.manifest import Bundle, View

CARD = "MODEL_CARD.md"
TEMPLATE = """\
# {{ model.encoder.arch }} from {{ model.source }}

A {{ model.encoder.arch }} student with a {{ model.decoder }} decoder for semantic segmentation, learnt from labels of \
**{{ model.source }}** alone by the method `{{ model.method }}`\
{% if model.teacher %}, its features from {{ model.teacher }}{% endif %}. It is meant to generalise to domains whose labels it \
never saw.
{% if model.field %}
{{ model.field.images }} images from the field joined the unlabelled images that its features were distilled on \
(sha256 `{{ model.field.sha256 }}`): **a domain that they show is no unseen domain**.
{% endif %}
## Use

```sh
gkd predict student.gkd photographs -o masks    # with the path of this folder in the place of student.gkd
```

```python
from gkd_core import Segmentor

answer = Segmentor.open("student.gkd").predict("photograph.jpg")
answer.labels, answer.confidence, answer.overlay()
```

## What it knows

| train id | class | colour |{{ " id in %s |" % bundle.ids.dataset if bundle.ids }}
|---|---|---|{{ "---|" if bundle.ids }}
{% for row in rows %}| {{ row | join(" | ") }} |
{% endfor %}
A class that {{ model.source }} does not show is not known. Nothing here says how it fails where it fails: not to be the only \
eye of anything that can hurt people.

## How it sees an image

{{ seen }}. Normalisation (mean {{ bundle.mean | join(", ") }}; deviation {{ bundle.std | join(", ") }}, of images in 0..1) \
is part of the network.
{% if bundle.scores %}
## Scores

mIoU in %, seed {{ model.seed }}. A domain that was used to choose this student is no longer unseen.

| benchmark | domain | mIoU | images |
|---|---|---|---|
{% for score in bundle.scores %}| {{ score.benchmark }} | {{ score.domain }}{{ " (at home)" if score.in_domain }} | \
{{ "%.2f" | format(score.miou) }} | {{ score.images }} |
{% endfor %}{% endif %}{% if bundle.size or bundle.latency %}
## What it takes
{% endif %}{% if bundle.size %}
One window of {{ bundle.size.window[0] }} × {{ bundle.size.window[1] }} pixels, with the decoder\
{% if bundle.size.teacher_parameters %}; the teacher's encoder is counted under the same one{% endif %}:

| | parameters, M | GFLOP |
|---|---|---|
{% for row in sizes %}| {{ row | join(" | ") }} |
{% endfor %}{% if not bundle.latency %}
Nobody has measured its latency here: `gkd latency` does, on your machine.
{% endif %}{% endif %}{% if bundle.latency %}
For {{ conditions }}. {% if bundle.latency.against %}Beside it **{{ bundle.latency.against.words }}**. {% endif %}\
Peak memory: weights, and what a pass takes beside them.

| | {{ columns | join(" | ") }} |
|---|{{ "---|" * (columns | length) }}
{% for row in takes %}| {{ row | join(" | ") }} |
{% endfor %}{% endif %}{% if bundle.programs %}
## Programs for other runtimes

Each was held against PyTorch on real images. B images in a batch, K classes; normalisation is inside.

{% for program in bundle.programs %}- `{{ program.file }}` \
({{ program.format }}{{ ", opset %d" % program.opset if program.opset }}, {{ program.precision }}): \
{{ "uint8 (B, H, W, 3) to classes (B, H, W)" if program.takes == "classes-of-bytes" else \
"float32 (B, 3, H, W) in 0..1 to logits (B, K, H, W)" }}, \
{{ "%d × %d pixels alone" % program.size if program.size else \
"sides that are multiples of %d, from %d on" % (program.multiple, program.smallest) }}
{% endfor %}{% endif %}{% if bundle.known %}
## Is an image like what it knows?

`gkd predict` tells how far each image is from those below, without labels: the Mahalanobis distance of its pooled tokens, 1 \
where it is that of the held-out images in the median. A far image is a reason to look, a near one no promise.

| part | statistics of | images | judged by | images |
|---|---|---|---|---|
{% for part in bundle.known.parts %}| {{ part.name }} | {{ part.images }} | {{ part.count }} | {{ part.held_out }} | \
{{ part.held }} |
{% endfor %}{% endif %}
## Licences

- this student: {{ bundle.licences.student }}
- weights of the teacher: {{ bundle.licences.teacher or "there was no teacher" }}
- data: those of the datasets that it learnt from; this card does not know them.

Weights: sha256 `{{ model.sha256 }}`, {{ model.updates }} updates of stage two; written by gkd {{ bundle.version }}.
"""


def render_card(bundle: Bundle) -> str:
    """The card of a bundle."""
    # Markdown, not HTML: nothing is escaped. Names of classes hold no markup, the rest is the writer's own.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    ids = () if bundle.ids is None else bundle.ids.values
    rows = [
        [str(index), name, "#{:02x}{:02x}{:02x}".format(*color), *(_id(value) for value in ids[index : index + 1])]
        for index, (name, color) in enumerate(zip(bundle.classes, bundle.colors, strict=True))
    ]
    return environment.from_string(TEMPLATE).render(
        bundle=bundle, model=bundle.model, rows=rows, seen=seen_by(bundle.view), columns=COLUMNS,
        sizes=_sizes(bundle), **_latency(bundle.latency),
    )  # fmt: skip


def seen_by(view: View) -> str:
    """How an image is seen, in words."""
    protocol = view.protocol
    steps = [f"scaled by {protocol.scale:g}"] if protocol.scale != 1 else []
    if protocol.max_size is not None:
        steps.append(f"shrunk into {protocol.max_size[0]} × {protocol.max_size[1]} where it is larger")
    steps.append(f"seen through windows of {view.window[0]} × {view.window[1]} every {view.stride[0]} × {view.stride[1]} pixels")
    if view.scales != (1.0,):
        steps.append(f"at the scales {', '.join(f'{scale:g}' for scale in view.scales)}")
    if view.flip:
        steps.append("mirrored too")
    return f"An image is {', '.join(steps)}, in {view.precision}"


def _sizes(bundle: Bundle) -> list[list[str]]:
    """Parameters and FLOPs: of the student; of its teacher, and over the student's, where there is one."""
    size = bundle.size
    if size is None:
        return []
    own, teacher = (size.parameters, size.flops), (size.teacher_parameters, size.teacher_flops)
    rows = [["this student", *_in_units(*own)]]
    if size.teacher_parameters is not None:
        rows.append([bundle.model.teacher or "teacher", *_in_units(*teacher)])
        rows.append(["ratio, second to first", *map(ratio, own, teacher)])
    return rows


def _in_units(parameters: float | None, flops: float | None) -> list[str]:
    return [UNKNOWN if value is None else three_digits(value / unit) for value, unit in ((parameters, 1e6), (flops, 1e9))]


def _latency(latency: Latency | None) -> dict[str, object]:
    """What the card says of speed; nothing where none was measured."""
    if latency is None:
        return {}
    other = "" if latency.against is None else latency.against.words
    return {"conditions": conditions_of(latency), "takes": rows_of(latency, "this student", other)}


def _id(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)
