"""Stage two: learning the task on the source domain."""
