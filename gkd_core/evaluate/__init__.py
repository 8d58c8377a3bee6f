"""Measuring a segmentor on domains that it never saw."""
