"""S3 transfers, the shard cache, and the files of MLflow's store."""
