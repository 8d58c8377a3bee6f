"""What a run will cost, before it starts: images, FLOPs, GPU-hours; and a rehearsal of it in small."""
