"""Ray: the local cluster, distributed training and evaluation, jobs on a remote cluster."""
