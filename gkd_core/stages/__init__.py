"""The stages of the recipe: `recipe` declares them, the other files are what each one does."""

from gkd_core.stages.recipe import find_run, plan
from gkd_core.stages.run import StageRun, params_of, run_folder, run_stage

__all__ = ["StageRun", "find_run", "params_of", "plan", "run_folder", "run_stage"]
