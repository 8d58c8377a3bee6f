"""Generalizable knowledge distillation: a vision foundation model into a small segmentation model."""
