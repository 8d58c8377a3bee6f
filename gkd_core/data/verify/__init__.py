"""What is wrong with the datasets of a run: every image and label read, all faults in one report."""
