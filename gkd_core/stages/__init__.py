"""The stages of the recipe: `recipe` declares them, `work` runs one, the other files are what each one does."""

from gkd_core.stages.recipe import Recipe
from gkd_core.stages.run import StageRun, params_of, run_folder
from gkd_core.stages.work import run_stage

__all__ = ["Recipe", "StageRun", "params_of", "run_folder", "run_stage"]
