"""Prefect flows: they decide when and where the recipe runs."""

from gkd_core.system.environment import prepare_environment

prepare_environment()  # also where a worker imports a flow, with no command line of ours before
