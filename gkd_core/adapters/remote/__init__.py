"""A stage of the recipe on a Ray cluster elsewhere, reached by its Jobs API alone."""
