"""Encoders over timm, decoders, and the segmentor made of both."""
