"""Pretrained weights of backbones: where to get them, what a file holds, and its conversion."""
