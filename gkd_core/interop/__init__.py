"""Other people's checkpoints in, ours out: the authors' released files read by name, a student written for timm alone."""
