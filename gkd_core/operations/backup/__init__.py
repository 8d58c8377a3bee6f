"""Backup and restore of the platform's records: databases, buckets and folders, to an `s3://` prefix or a folder.

A backup is a manifest, written last, that names contents by their SHA-256. Contents lie once for all backups of a place, so a
backup copies only what none before it has copied, and each of them is nevertheless whole.
"""
