"""What is wrong with the datasets of a run: every image and label read, all findings in one report."""
