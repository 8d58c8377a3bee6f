"""`gkd data prepare`: datasets as they unpack, written as tar shards with an index."""
