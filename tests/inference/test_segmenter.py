"""Segmenter: a trained network in a Python program."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from inference import Segmenter
from supervised import SupOnly
from tests.conftest import REPOSITORY
from tests.own_images import TINY
from util.errors import UserError


@pytest.fixture
def trained(toy, train):
    folder = toy.folder / "run"
    train(SupOnly, toy.argv(folder, "--set", *TINY))
    return folder


def test_files_arrays_and_pil_images_give_the_same_prediction(trained, toy):
    segmenter = Segmenter.load(trained, device="cpu")
    file = toy.root / "images/l0.jpg"
    image = Image.open(file)
    found = segmenter.predict(file)
    assert found.mask.shape == image.size[::-1] and found.mask.dtype == np.uint8
    assert (found.probabilities.argmax(0) == found.mask).all()
    np.testing.assert_allclose(found.probabilities.sum(0), 1, atol=1e-5)
    assert found.classes == segmenter.config.data.classes
    for other in (str(file), image, np.asarray(image.convert("RGB"))):
        np.testing.assert_array_equal(segmenter.predict(other).mask, found.mask)
    masks = [one.mask for one in segmenter.predict_many([file, image])]
    assert len(masks) == 2 and (masks[0] == masks[1]).all()


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA"])
def test_pil_images_of_every_mode_are_read_like_files(mode, trained, toy, tmp_path):
    segmenter = Segmenter.load(trained, device="cpu")
    Image.open(toy.root / "images/l0.jpg").convert(mode).save(tmp_path / "image.png")
    image = Image.open(tmp_path / "image.png")
    for bands in ("rgb", "grey", (1, 1, 1)):
        data = segmenter.config.data.model_copy(update={"bands": bands})
        segmenter.config = segmenter.config.model_copy(update={"data": data})
        try:
            expected = segmenter._pixels(tmp_path / "image.png")
        except UserError:
            with pytest.raises(UserError):
                segmenter._pixels(image)
        else:
            np.testing.assert_array_equal(segmenter._pixels(image), expected)


def test_what_the_network_cannot_take_is_refused(trained, toy):
    segmenter = Segmenter.load(trained / "best.pth", device="cpu")
    with pytest.raises(UserError, match="no such checkpoint"):
        Segmenter.load(toy.folder / "none.pth")
    with pytest.raises(UserError, match="5 bands"):
        segmenter.predict(np.zeros((9, 9, 5), np.uint8))


def test_from_another_working_directory(trained, toy, tmp_path):
    code = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY)!r})\n"
        f"from inference import Segmenter; segmenter = Segmenter.load({str(trained)!r})\n"
        f"print(segmenter.predict({str(toy.root / 'images/l0.jpg')!r}).mask.shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.startswith("("), done.stderr
