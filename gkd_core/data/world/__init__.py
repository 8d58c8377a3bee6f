"""The embedded world: procedural street and aerial scenes, written in the layouts of the real datasets."""
