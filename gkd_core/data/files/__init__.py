"""Images and labels as files, in folders or shards."""
