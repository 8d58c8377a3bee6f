"""What a Prometheus may ask of the platform: progress of stages, the last matrix, the champion, Prefect's runs and workers."""
