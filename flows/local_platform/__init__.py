"""The local platform: Prefect's server, MLflow's server and a worker, supervised, on loopback."""
