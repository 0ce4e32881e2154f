"""Pretrained weights of backbones: sources, identification and conversion of files."""
