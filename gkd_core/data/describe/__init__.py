"""A folder of images and labels, looked at, and the catalog entry that it seems to ask for."""
