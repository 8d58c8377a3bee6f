"""A load test of the platform: many flow runs of one deployment, of which a few may run at once."""
