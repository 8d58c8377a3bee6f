"""The stages of the recipe: `recipe` declares them, the other files are what each one does."""

from gkd_core.stages.recipe import ARTIFACTS, DATA, REPORT, RUNS, StageRun, find_run, params_of, plan, run_folder, run_stage

__all__ = ["ARTIFACTS", "DATA", "REPORT", "RUNS", "StageRun", "find_run", "params_of", "plan", "run_folder", "run_stage"]
