"""The model card: what a student is, where it comes from, how it scores, and how it is loaded, as Markdown."""

from __future__ import annotations

from typing import Literal

from jinja2 import Environment, StrictUndefined

from gkd_core.records import Record
from gkd_core.registry.gate import Standing, Verdict
from gkd_core.settings import EncoderSettings

FILE = "MODEL_CARD.md"


class DataUse(Record):
    """A dataset split that the student or its scores come from. `part` is proxy, source, validation or target."""

    reference: str
    part: str
    digest: str
    pinned: bool


class ModelFacts(Record):
    """What the card says of one student, the gate's verdict apart.

    Attributes:
        updates: optimizer updates of each of its stages, in their order.
        window: (height, width) in pixels that its pt2 program takes.
        standing: its scores, and those of the other seeds of its recipe.
    """

    kind: Literal["model-facts"] = "model-facts"
    model: str
    source: str
    method: str
    method_summary: str
    seed: int
    teacher: EncoderSettings
    student: EncoderSettings
    decoder: str
    classes: tuple[str, ...]
    parameters: int
    encoder_frozen: bool
    updates: dict[str, int]
    sha256: str
    window: tuple[int, int]
    data: tuple[DataUse, ...]
    standing: Standing
    teacher_licence: str
    student_licence: str
    fingerprint: str
    revision: str
    dirty: str
    flow_run: str
    mlflow_run: str


TEMPLATE = """\
# {{ facts.model }}

A {{ facts.student.arch }} student with a {{ facts.decoder }} decoder for semantic segmentation, \
learnt from labels of **{{ facts.source }}** alone and meant to generalise to domains whose labels it never saw.
{% if verdict %}
**Gate: {{ "promoted" if verdict.promote else verdict.decision }}.**
{% for reason in verdict.reasons %}
- {{ reason }}
{%- endfor %}
{% else %}
**Gate: not asked yet.**
{% endif %}
## Use and limits

- Takes RGB images in 0..1, gives one logit a class and pixel; normalisation is part of the model. \
Classes ({{ facts.classes | length }}): {{ facts.classes | join(", ") }}.
- Made for images like those below. On anything else measure first; a class that {{ facts.source }} does not show is not known.
- Nothing here says how it fails where it fails. Not to be the only eye of anything that can hurt people.
- The target scores below were used to decide on this model's promotion: **they are no longer scores on unseen data**. For an \
unbiased figure measure on a domain that the gate never looked at.

## Scores

mIoU in %, {% if facts.standing.seeds | length > 1 %}mean over seeds{% else %}seed{% endif %} {{ seeds }}; \
this file is seed {{ facts.seed }}{% if facts.standing.seeds | length > 1 %}, chosen by the source's validation{% endif %}.

| benchmark | domain | mIoU |{% for entry in facts.standing.seeds %} seed {{ entry.seed }} |{% endfor %}
|---|---|---|{% for entry in facts.standing.seeds %}---|{% endfor %}
{% for row in rows %}| {{ row.benchmark }} | {{ row.domain }} | {{ "%.2f" | format(row.mean) }} |\
{% for value in row.each %} {{ "%.2f" | format(value) }} |{% endfor %}
{% endfor %}| **mean** | **targets** | **{{ "%.2f" | format(target_mean) }}** |\
{% for value in target_means %} {{ "%.2f" | format(value) }} |{% endfor %}

Protocol: {% for protocol in protocols %}{{ protocol }}{{ "; " if not loop.last }}{% endfor %}.

## Where it comes from

| | |
|---|---|
| method | {{ facts.method }}: {{ facts.method_summary }} |
| teacher | {{ facts.teacher.arch }}, weights {{ facts.teacher.weights }} |
| student | {{ facts.student.arch }}, started from {{ facts.student.weights }}, {{ "{:,}".format(facts.parameters) }} parameters \
with the decoder{{ ", encoder frozen in stage two" if facts.encoder_frozen }} |
| updates | {% for stage, count in facts.updates.items() %}{{ stage }} {{ "{:,}".format(count) }}\
{{ ", " if not loop.last }}{% endfor %} |
| recipe and data | fingerprint `{{ facts.fingerprint }}` (fingerprint.json) |
| code | git `{{ facts.revision }}`{{ " with changes that are not committed" if facts.dirty == "true" }} |
| runs | MLflow `{{ facts.mlflow_run }}`, flow run `{{ facts.flow_run }}` |
| weights | sha256 `{{ facts.sha256 }}` |

| data | part | digest (MD5 by DVC) | pinned |
|---|---|---|---|
{% for use in facts.data %}| {{ use.reference }} | {{ use.part }} | `{{ use.digest }}` | {{ "yes" if use.pinned else "no" }} |
{% endfor %}
## Licences

- weights of the teacher: {{ facts.teacher_licence }}
- this student: {{ facts.student_licence }}
- data: those of the datasets above; this card does not know them.

## Loading it

Where gkd is installed, `mlflow models serve --env-manager local -m models:/{{ facts.model }}@champion` \
answers images of any size with label maps, and so does a program:

```python
model = mlflow.pyfunc.load_model("models:/{{ facts.model }}@champion")
label_map = model.predict([{"image": base64_of_a_file}])[0]["label_map"]  # a PNG of train ids, in base64
```

The pt2 program runs without this project's code, on batches of images ({{ facts.window[0] }} × {{ facts.window[1] }}):

```python
model = mlflow.pytorch.load_model("models:/{{ facts.model }}@champion")
logits = model(images)  # float32 (B, 3, {{ facts.window[0] }}, {{ facts.window[1] }}) in 0..1
```

To go on from it: `checkpoint/` beside it has the safetensors and their manifest
(`gkd_core.models.segmentor.load_segmentor`); as weights of an encoder: `models:/{{ facts.model }}@champion`.
"""


def render_card(facts: ModelFacts, verdict: Verdict | None) -> str:
    """The card of a student, with the gate's verdict where it was asked."""
    # Markdown, not HTML: nothing is escaped; what is filled in comes from settings and records, not from strangers.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    standing = facts.standing
    scores = {(score.benchmark, score.domain): score for score in standing.seeds[0].scores}
    values: dict[tuple[str, str], list[float]] = {
        cell: [score.miou for entry in standing.seeds for score in entry.scores if (score.benchmark, score.domain) == cell]
        for cell in scores
    }
    means = standing.cells()
    rows = [
        {"benchmark": benchmark, "domain": domain, "mean": means[benchmark, domain], "each": values[benchmark, domain]}
        for benchmark, domain in scores
    ]
    target_means = standing.target_means()
    return environment.from_string(TEMPLATE).render(
        facts=facts,
        verdict=verdict,
        rows=rows,
        seeds=", ".join(str(entry.seed) for entry in standing.seeds),
        target_mean=sum(target_means) / len(target_means),
        target_means=target_means,
        protocols=_protocols(standing),
    )


def summary_of(card: str, limit: int) -> str:
    """The card, or as many of its paragraphs from the beginning as `limit` characters have room for."""
    if len(card) <= limit:
        return card
    end = f"\n\nCut here: the whole card is {FILE} among the model's artifacts.\n"
    return card[: limit - len(end)].rpartition("\n\n")[0] + end


def _protocols(standing: Standing) -> list[str]:
    """Each way in which its domains were measured, once."""
    found: dict[str, list[str]] = {}
    for score in standing.seeds[0].scores:
        protocol = score.protocol
        size = "" if protocol.max_size is None else f", shrunk into {protocol.max_size[0]} × {protocol.max_size[1]}"
        views = f"scales {', '.join(f'{scale:g}' for scale in protocol.scales)}" + (" and mirrored" if protocol.flip else "")
        text = (
            f"images × {protocol.scale:g}{size}, window {protocol.window[0]} × {protocol.window[1]}, stride "
            f"{protocol.stride[0]} × {protocol.stride[1]}, {views}, {protocol.precision}, {protocol.selection}"
        )
        found.setdefault(text, []).append(f"{score.benchmark} {score.domain}")
    return list(found) if len(found) == 1 else [f"{text} ({', '.join(domains)})" for text, domains in found.items()]
