"""Which image comes when."""
