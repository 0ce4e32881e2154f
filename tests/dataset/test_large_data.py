"""What grows with the number or the size of files: memory, opened files, questions to the disk."""

import numpy as np

from dataset.mask_files import read_mask
from dataset.mask_kinds import value_colours
from tests.own_images import put, with_palette


def test_masks_share_their_colours(tmp_path):
    for number in range(6):
        put(np.full((4, 4), number, np.uint8), tmp_path / f"grey{number}.png")
        mask = with_palette(np.full((4, 4), number, np.uint8), np.full((256, 3), number // 3))
        put(mask, tmp_path / f"palette{number}.png")
    masks = [read_mask(path, 1) for path in sorted(tmp_path.iterdir())]
    colours = [value_colours(mask, [0]) for mask in masks]
    assert len({id(one) for one in colours}) == 3
    assert colours[0] == {value: value * 0x010101 for value in range(256)}
    assert colours[-1] == dict.fromkeys(range(256), 0x010101)
