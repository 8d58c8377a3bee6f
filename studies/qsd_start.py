"""How should query-based soft distillation start? Variants of GKD and two-stage MSE at one budget, three seeds each.

    python -m studies.qsd_start demo            # the embedded world, little training
    python -m studies.qsd_start demo-whole      # the same, with all the training of `make demo`
    python -m studies.qsd_start camvid          # CamVid by day to dusk, BSDS500 as the proxy; --data names their folder

Every run goes through the recipe's own stages in a workspace of its own; what is finished is not run again, and what was
stopped goes on. `docs/qsd-start.md` holds the results and what they mean.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gkd_core.files import atomic_file
from gkd_core.paths import DATA, REPORT
from gkd_core.records import Score, ScoreTable
from gkd_core.reports.rows import source_mean, spread, target_mean
from gkd_core.settings import Settings, dump_settings, load_settings
from gkd_core.stages import Recipe, run_folder, run_stage
from gkd_core.training.metrics import MetricsFollower
from studies.figures import save_curves


@dataclass(frozen=True)
class Study:
    """A profile at a budget that every variant gets.

    Attributes:
        seeds: training seeds.
        overrides: settings on top of the profile, for every variant alike.
    """

    profile: str
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]


STAGES = ("distill_proxy", "distill_source")
IN_ONE_PROCESS = ("compute.workers=0", "compute.threads=1", "compute.device=cpu")
BENCHMARKS = "data.benchmarks=[G2C, G2B, G2M, P2R]"
# The same for every variant. `demo` and `camvid` are far less than the profiles give: an eighth of the images of stage one, a
# seventh of the pixels. `demo-whole` is the profile's own budget, some hours of a core.
STUDIES = {
    "demo-whole": Study("demo", (0, 1, 2), (BENCHMARKS,)),
    "demo": Study(
        "demo",
        (0, 1, 2),
        (
            BENCHMARKS,
            "distill_proxy.updates=600",
            "distill_proxy.batch_size=4",
            "distill_proxy.log_every=25",
            "distill_source.updates=60",
            "distill_source.batch_size=8",
            "learn_task.updates=100",
            "learn_task.batch_size=16",
        ),
    ),
    "camvid": Study(
        "camvid",
        (0, 1, 2),
        (
            "distill_proxy.updates=160",
            "distill_proxy.log_every=10",
            "distill_proxy.image_size=[160, 224]",
            "distill_source.updates=80",
            "distill_source.image_size=[160, 224]",
            "learn_task.updates=100",
            "learn_task.image_size=[160, 224]",
        ),
    ),
}
WARM_SHARE = 0.75  # of the updates of stage 1a


def variants_of(study: Study, ablations: bool) -> dict[str, tuple[str, ...]]:
    """Settings of each variant by its name; every one says all that the profile might set otherwise."""
    updates = {stage: getattr(load_settings(profile=study.profile, overrides=study.overrides), stage).updates for stage in STAGES}
    warm = f"distill_proxy.warm_start.updates={round(WARM_SHARE * updates['distill_proxy'])}"
    matching = ("method=gkd", warm, "distill_proxy.warm_start.queries=matching")
    variants = {
        "two-stage MSE": ("method=two-stage-mse",),
        "QSD, published": ("method=gkd", "distill_proxy.warm_start.updates=0"),
        "QSD, warm start by regression": ("method=gkd", warm, "distill_proxy.warm_start.queries=regression"),
        "QSD, warm start by matching": matching,
    }
    if ablations:
        alone = ("cls_weight=0", "mask_weight=0", "mask_probability=0")
        variants |= {
            "QSD by matching, no mask, no cls": (*matching, *(f"{stage}.{setting}" for stage in STAGES for setting in alone)),
            # A warm start that never ends: the values alone, so plain MSE, with the method's mask and cls losses.
            "MSE + mask + cls": (*matching, *(f"{stage}.warm_start.updates={updates[stage]}" for stage in STAGES)),
        }
    return variants


@dataclass(frozen=True)
class Outcome:
    """What one run came to: its scores, and the attention over the updates of its stage 1a."""

    variant: str
    seed: int
    scores: tuple[Score, ...]
    steps: tuple[Mapping[str, float], ...]


def main() -> None:
    """Run what is missing, then write `scores.csv`, `table.md` and `attention.png`."""
    arguments = _arguments()
    study = STUDIES[arguments.study]
    folder = arguments.output.resolve() / arguments.study
    data = _data_overrides(study, arguments, folder)
    seeds = arguments.seeds or study.seeds
    # Seed by seed, so that a study that was stopped early has compared all variants on fewer seeds.
    variants = variants_of(study, arguments.ablations)
    if arguments.variants:
        variants = {name: overrides for name, overrides in variants.items() if name in arguments.variants}
    outcomes = [
        _outcome(study, variant, (*overrides, *data), seed, folder) for seed in seeds for variant, overrides in variants.items()
    ]
    write_csv(outcomes, folder / "scores.csv")
    with atomic_file(folder / "table.md") as temporary:
        temporary.write_text(table(outcomes), encoding="utf-8")
    save_curves([(o.variant, o.steps) for o in outcomes], folder / "attention.png")
    print((folder / "table.md").read_text(encoding="utf-8"))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=sorted(STUDIES))
    parser.add_argument("--output", type=Path, default=Path("artifacts/qsd-start"), help="folder of runs and results")
    parser.add_argument("--world-seed", type=int, default=7, help="seed of the embedded world (7 is the one reported)")
    parser.add_argument("--seeds", type=lambda text: tuple(map(int, text.split(","))), help="training seeds, such as 0,1,2")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="folder that holds camvid/ and bsds500/")
    parser.add_argument("--variants", nargs="+", help="names of the variants to run; all if left out")
    parser.add_argument("--ablations", action="store_true", help="also runs that set mask and cls apart from attention")
    return parser.parse_args()


def _data_overrides(study: Study, arguments: argparse.Namespace, folder: Path) -> tuple[str, ...]:
    """Where the images lie. The world is rendered once, for all runs, and then read as any dataset on disk is."""
    if load_settings(profile=study.profile).data.world is None:
        return (f"data.root={arguments.data.resolve()}",)
    world = folder / f"world-{arguments.world_seed}"
    settings = load_settings(profile=study.profile, overrides=[*study.overrides, f"data.world.seed={arguments.world_seed}"])
    if not (world / DATA).exists():
        run_stage(Recipe.of(settings), Recipe.of(settings).find("prepare-data"), world)
    return ("data.world=null", f"data.root={world / DATA}")


def _outcome(study: Study, variant: str, own: Sequence[str], seed: int, folder: Path) -> Outcome:
    """Run one variant with one seed, or what is still to do of it, and read what it came to."""
    overrides = [*IN_ONE_PROCESS, *study.overrides, *own, f"seed={seed}"]
    settings = load_settings(profile=study.profile, overrides=overrides)
    workspace = folder / "runs" / _name(variant, seed, settings)
    steps: tuple[Mapping[str, float], ...] = ()
    for run in Recipe.of(settings).plan:
        if not (workspace / run.output).exists():
            run_stage(Recipe.of(settings), run, workspace)
        if run.stage == "distill-proxy":
            steps = tuple(MetricsFollower(run_folder(settings, run, workspace)).read())
    return Outcome(variant, seed, ScoreTable.read(workspace / REPORT / "matrix.json").scores, steps)


def _name(variant: str, seed: int, settings: Settings) -> str:
    """A folder's name that changes with every setting, so that a finished run is only ever taken for its equal."""
    digest = hashlib.sha256(dump_settings(settings).encode()).hexdigest()[:8]
    return f"{variant.replace(',', '').replace(' ', '-')}-{seed}-{digest}"


def write_csv(outcomes: Sequence[Outcome], path: Path) -> None:
    """One line a score; mIoU in percent."""
    with atomic_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("variant", "seed", "benchmark", "domain", "miou"))
        for outcome in outcomes:
            for score in outcome.scores:
                writer.writerow((outcome.variant, outcome.seed, score.benchmark, score.domain, f"{score.miou:.2f}"))


def table(outcomes: Sequence[Outcome]) -> str:
    """Variants by in-domain mIoU, targets, benchmarks and the attention at the end of 1a, as Markdown."""
    benchmarks = list(dict.fromkeys(score.benchmark for outcome in outcomes for score in outcome.scores))
    head = ["start", "in-domain", "targets, mean", *benchmarks, "matching weight", "entropy"]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for variant in dict.fromkeys(outcome.variant for outcome in outcomes):
        own = [outcome for outcome in outcomes if outcome.variant == variant]
        cells = [spread([source_mean(o.scores) for o in own]), spread([target_mean(o.scores) for o in own])]
        cells += [spread([_benchmark_mean(o.scores, name) for o in own]) for name in benchmarks]
        cells += [_last(own, "matching_weight"), _last(own, "attention_entropy")]
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _benchmark_mean(scores: Sequence[Score], benchmark: str) -> float:
    return target_mean([score for score in scores if score.benchmark == benchmark])


def _last(outcomes: Sequence[Outcome], metric: str) -> str:
    """A figure of the attention at the end of stage 1a, its mean over seeds."""
    values = [outcome.steps[-1][metric] for outcome in outcomes if outcome.steps and metric in outcome.steps[-1]]
    return f"{statistics.fmean(values):.2f}" if values else "–"


if __name__ == "__main__":
    main()
