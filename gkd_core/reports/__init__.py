"""Everything that draws, prints or compares results."""
