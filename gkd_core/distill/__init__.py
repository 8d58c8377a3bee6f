"""Stage one: distillation of features, without labels."""
