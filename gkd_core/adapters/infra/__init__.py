"""What a cluster's stores need before anything runs: databases with owners of their own, and buckets."""
