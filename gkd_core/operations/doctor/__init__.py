"""`gkd doctor`: what of this machine and its services would stop a run, and what to do about each."""

from gkd_core.operations.doctor.examine import CHECKS, examine
from gkd_core.operations.doctor.finding import Finding, Level
from gkd_core.operations.doctor.machine import Machine, this_machine

__all__ = ["CHECKS", "Finding", "Level", "Machine", "examine", "this_machine"]
