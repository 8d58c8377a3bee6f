"""Buckets that speak S3, by boto3: their bootstrap, checked transfers, and shards streamed into a bounded cache."""
