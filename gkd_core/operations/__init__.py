"""What keeps the platform well: doctor, backup, bootstrap, metrics, keys."""
