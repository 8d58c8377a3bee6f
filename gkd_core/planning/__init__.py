"""What a run will cost, before it is begun: images, FLOPs, GPU-hours; and a rehearsal of it in small."""
