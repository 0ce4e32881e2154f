"""`tools.prepare init --annotations`: masks from the files of each annotation tool."""

import base64
import json
import re
import shutil
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from scipy.io import savemat

from tests.miniature import encoded, rectangle, run_lengths
from tests.own_images import exif_with_orientation, with_palette
from tools.prepare import __main__ as prepare
from tools.prepare.annotations.draw import class_table
from tools.prepare.annotations.label_images import VOC, voc_colour
from tools.prepare.annotations.match import ImageFolder, match_annotations
from tools.prepare.annotations.matlab import read_matlab
from tools.prepare.annotations.types import Annotations, ImageAnnotation
from tools.prepare.own import config
from tools.prepare.own import init as own_init
from util.config.loading import load_config
from util.errors import UserError
from util.io import write_once

W, H = 40, 32
BIG, SMALL = (4, 6, 24, 22), (10, 12, 18, 20)
"""Boxes x, y, x2, y2: a field, and a tree in it."""
COLOURS = {"background": (0, 0, 0), "field": (0, 128, 0), "tree": (255, 0, 10)}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Make photos/ with four images, the last without annotation; annotations go to notes/."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(["a/one.jpg", "a/two.jpg", "b/three.JPG", "b/four.png"]):
        path = Path("photos", name)
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 255, (H, W, 3), np.uint8)
        Image.fromarray(noise).save(path)
    Path("notes").mkdir()
    return tmp_path


@pytest.fixture
def init(run, data):
    def command(path="notes", *more):
        return run(prepare, "init", "--images", "photos", "--annotations", path, "--val", "0.34",
                   "--out", "configs/mine.yaml", *more)  # fmt: skip

    return command


def expected(small=True, rest=0, names=("field", "tree")):
    mask = np.full((H, W), rest, np.uint8)
    for name, (x, y, x2, y2) in {"field": BIG, "tree": SMALL}.items():
        if name == "field" or small:
            mask[y:y2, x:x2] = names.index(name) + 1
    return mask


def covered(x, y, x2, y2):
    mask = np.zeros((H, W), np.uint8)
    mask[y:y2, x:x2] = 1
    return mask


def pairs(flat):
    return [list(pair) for pair in zip(flat[::2], flat[1::2], strict=True)]


def note(name):
    path = Path("notes", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def write(name, content):
    note(name).write_text(content if isinstance(content, str) else json.dumps(content))


def base64_png(mask):
    return base64.b64encode(encoded(mask)).decode()


def assert_mask(want, path="photos_masks/a/one.png"):
    np.testing.assert_array_equal(np.array(Image.open(path)), want, err_msg=str(path))


IMAGES = ["a/one", "a/two", "b/three"]


POLYGONS = [rectangle(*SMALL)], [rectangle(*BIG)]


def coco_tree(shapes=POLYGONS, crowd=0):
    """Return three images, each with a tree that is listed before the field around the tree."""
    names = {1: "a/one.jpg", 2: "a/two.jpg", 3: "b/three.JPG"}
    return {
        "images": [{"id": i, "file_name": names[i], "width": W, "height": H} for i in names],
        "categories": [{"id": 3, "name": "tree"}, {"id": 1, "name": "field"}],
        "annotations": [
            {"id": 2 * i + k, "image_id": i, "category_id": (3, 1)[k], "segmentation": shapes[k],
             "iscrowd": crowd, "bbox": [0, 0, 1, 1], "area": 1}
            for i in names
            for k in (0, 1)
        ],
    }  # fmt: skip


def compressed(mask):
    found = rle.encode(np.asfortranarray(mask))
    return {"size": found["size"], "counts": found["counts"].decode()}


def coco_polygons():
    tree = coco_tree()
    del tree["images"][1]["width"], tree["images"][1]["height"]  # some exports have none
    tree["images"].append({"id": 9, "file_name": "b/four.png", "width": W, "height": H})
    tree["images"].append({"id": 10, "file_name": "gone.jpg", "width": W, "height": H})
    common = {"image_id": 9, "category_id": 1, "iscrowd": 0}
    tree["annotations"] += [{**common, "id": 90, "segmentation": [[1, 1, 5, 5]]},
                            {**common, "id": 91, "bbox": [1, 1, 5, 5]}]  # fmt: skip
    write("instances.json", tree)


def coco_panoptic():
    tree = coco_tree([0, 0])
    values = np.zeros((H, W, 3), np.uint8)
    values[BIG[1] : BIG[3], BIG[0] : BIG[2]] = (5, 1, 0)
    values[SMALL[1] : SMALL[3], SMALL[0] : SMALL[2]] = (7, 0, 1)
    tree["annotations"] = []
    for i, name in enumerate(IMAGES, 1):
        file = f"{Path(name).name}.png"
        Image.fromarray(values).save(note(f"panoptic_x/{file}"))
        segments = [{"id": 5 + 256, "category_id": 1, "iscrowd": 0, "area": 1},
                    {"id": 7 + 65536, "category_id": 3, "iscrowd": 0, "area": 1}]  # fmt: skip
        tree["annotations"].append({"image_id": i, "file_name": file, "segments_info": segments})
    write("panoptic_x.json", tree)


def labelme():
    mask = {"label": "tree", "shape_type": "mask", "points": [[10, 12], [17, 19]],
            "mask": base64_png(np.ones((8, 8), bool))}  # fmt: skip
    small = [
        {"label": "tree", "shape_type": "rectangle", "points": [[18, 20], [10, 12]]},
        {"label": "tree", "points": pairs(rectangle(*SMALL)), "shape_type": "polygon", "flags": {}},
        mask,
    ]
    lines = [{"label": "tree", "shape_type": "line", "points": [[1, 2], [3, 4]]},
             {"label": "tree", "shape_type": "point", "points": [[1, 2]]}]  # fmt: skip
    for name, shape in zip(IMAGES, small, strict=True):
        field = {"label": "field", "points": pairs(rectangle(*BIG)), "shape_type": "polygon"}
        write(f"{name}.json", {
            "version": "5.4.1", "flags": {}, "shapes": [shape, field, *lines],
            "imagePath": f"..\\..\\photos\\{Path(name).name}.jpg", "imageData": None,
            "imageHeight": H, "imageWidth": W,
        })  # fmt: skip


def cvat_masks(mode="RGB"):
    write("labelmap.txt", "# label:color_rgb:parts:actions\n" + "".join(
        f"{name}:{','.join(map(str, colour))}::\n" for name, colour in COLOURS.items()
    ))  # fmt: skip
    for name in IMAGES:
        path = note(f"SegmentationClass/{name}.png")
        colours = np.array(list(COLOURS.values()), np.uint8)
        if mode == "RGB":
            Image.fromarray(colours[expected()]).save(path)
        else:
            with_palette(expected(), np.pad(colours, ((0, 253), (0, 0)))).save(path)
        Image.fromarray(colours[expected()]).save(note("SegmentationObject/one.png"))


def pack(values):
    """Encode Label Studio's run lengths: each run holds literal values or repeats one value."""
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 9, 16))
    changes = np.flatnonzero(np.diff(values)) + 1
    for number, run in enumerate(np.split(values, changes)):
        for part in np.split(run, range(65536, len(run), 65536)):
            if number % 2 and len(part) <= 512:
                bits += f"0{2:02b}{len(part) - 1:09b}" + "".join(f"{v:08b}" for v in part)
            else:
                bits += f"1{3:02b}{len(part) - 1:016b}{part[0]:08b}"
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def studio_results():
    size = {"original_width": W, "original_height": H, "image_rotation": 0}
    share = [v * 100 / (W, H)[i % 2] for i, v in enumerate(rectangle(*BIG))]
    x, y, x2, y2 = SMALL
    rgba = np.repeat(covered(*SMALL)[..., None] * np.uint8(255), 4, 2).ravel()
    value = {"points": pairs(share), "closed": True, "polygonlabels": ["field"]}
    field = {"type": "polygonlabels", **size, "value": value}
    tree = [
        {"type": "brushlabels", **size,
         "value": {"format": "rle", "rle": pack(rgba), "brushlabels": ["tree"]}},
        {"type": "rectanglelabels", **size,
         "value": {"x": 100 * x / W, "y": 100 * y / H, "width": 100 * (x2 - x) / W,
                   "height": 100 * (y2 - y) / H, "rotation": 0, "rectanglelabels": ["tree"]}},
        {"type": "polygonlabels", **size,
         "value": {"points": [[100 * a / W, 100 * b / H] for a, b in pairs(rectangle(*SMALL))],
                   "polygonlabels": ["tree"]}},
    ]  # fmt: skip
    return field, tree


def label_studio():
    field, trees = studio_results()
    point = {"type": "keypointlabels", "original_width": W, "original_height": H,
             "value": {"x": 1, "y": 1, "width": 0.5, "keypointlabels": ["tree"]}}  # fmt: skip
    names = [
        "/data/upload/3/0fe31ab2-one.jpg",
        "/data/local-files/?d=x/a/two.jpg",
        "s3://b/three.JPG",
    ]
    old = {"id": 1, "updated_at": "2024-01-01", "result": [], "was_cancelled": False}
    made = {"id": 2, "updated_at": "2024-05-01"}
    write("project.json", [
        {"id": i, "data": {"image": name}, "predictions": [],
         "annotations": [{**made, "result": [tree, field, point]}, old]}
        for i, (name, tree) in enumerate(zip(names, trees, strict=True))
    ] + [{"id": 9, "data": {"image": "four.png"}, "annotations": []}])  # fmt: skip


def bitmask(shape, size=(H, W)):
    """Build a BitmaskLabels export: black on transparent pixels."""
    pixels = np.zeros((*size, 4), np.uint8)
    pixels[..., 3][: shape.shape[0], : shape.shape[1]] = 255 * shape
    url = f"data:image/png;base64,{base64_png(pixels)}"
    value = {"imageDataURL": url, "bitmasklabels": ["tree"]}
    return {"type": "bitmasklabels", "original_width": W, "original_height": H,
            "image_rotation": 0, "value": value}  # fmt: skip


def label_studio_bitmasks(**changes):
    field, _ = studio_results()
    tree = bitmask(covered(*SMALL))
    tree["value"] |= changes
    write("project.json", [
        {"id": i, "data": {"image": f"{name}.jpg"}, "annotations": [{"result": [field, tree]}]}
        for i, name in enumerate(IMAGES)
    ])  # fmt: skip


def label_studio_min():
    field, trees = studio_results()
    names = ["one.jpg", "two.jpg", "/data/upload/1/00000000-three.JPG"]

    def flat(result):
        value = {**result, **result["value"]}
        return {key: value[key] for key in value if key not in ("value", "type")}

    write("min.json", [
        {"id": i, "image": name, "tag": [flat(tree), flat(field)], "annotator": 1,
         "annotation_id": i, "created_at": "2024"}
        for i, (name, tree) in enumerate(zip(names, trees, strict=True))
    ])  # fmt: skip


def label_studio_pngs():
    for number, name in enumerate(IMAGES, 11):
        path = next(Path("photos").glob(f"{name}.*"))
        path.rename(path.with_name(f"task-{number}.jpg"))
        for label, shape in (("tree", SMALL), ("field", BIG)):
            file = f"task-{number}-annotation-{number}-by-1-tag-{label}-0.png"
            Image.fromarray(covered(*shape) * np.uint8(255)).save(f"notes/{file}")


def via():
    x, y, x2, y2 = SMALL
    corners = rectangle(*BIG)
    field = {"name": "polygon", "all_points_x": corners[::2], "all_points_y": corners[1::2]}
    tree = {"name": "rect", "x": x, "y": y, "width": x2 - x, "height": y2 - y}
    names = ["one.jpg", "two.jpg", "three.JPG", "four.png"]
    entries = {
        f"{name}123": {
            "filename": name, "size": 123, "file_attributes": {},
            "regions": [{"shape_attributes": shape, "region_attributes": {"class": label, "x": ""}}
                        for label, shape in (("tree", tree), ("field", field))
                        if name != "four.png"],
        }
        for name in names
    }  # fmt: skip
    options = {"field": "", "tree": ""}
    write("via.json", {
        "_via_settings": {}, "_via_img_metadata": entries, "_via_image_id_list": list(entries),
        "_via_attributes": {"region": {"class": {"type": "dropdown", "options": options}}},
    })  # fmt: skip


def yolo():
    for name in IMAGES:
        lines = [" ".join(map(str, [c, *(v / (W, H)[i % 2] for i, v in enumerate(rectangle(*b)))]))
                 for c, b in ((1, SMALL), (0, BIG))]  # fmt: skip
        write(f"labels/{name}.txt", "\n".join([*lines, "1 0.5 0.5 0.2 0.2", ""]))
    write("data.yaml", "path: .\ntrain: images\nnames:\n  0: field\n  1: tree\n")


def yolo_classes():
    yolo()
    Path("notes/data.yaml").unlink()
    write("classes.txt", "field\ntree\n")


def voc():
    table = np.array([voc_colour(i) for i in range(256)], np.uint8)
    values = np.array([0, VOC.index("cow"), VOC.index("tvmonitor")], np.uint8)[expected()]
    values[0] = 255
    for name in IMAGES:
        with_palette(values, table).save(note(f"{name}.png"))


def named_palette():
    """Write masks of a palette of their own; two names cannot be arguments of --classes."""
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, 1)
    for name in IMAGES:
        with_palette(expected(), grey).save(note(f"{name}.png"))
    write("class_names.txt", "sky\nlight, red\na=b\n")


def matlab():
    for number, name in enumerate(IMAGES):
        values = expected().astype((np.uint16, np.float64, np.uint8)[number])
        savemat(note(f"{name}.mat"), {"LabelMap": values, "thumbnail": np.ones((2, 2))})


def matlab73(links=False):
    """Write files as `save -v7.3` does: a header, then HDF5 with transposed arrays."""
    for number, name in enumerate(IMAGES):
        path = note(f"{name}.mat")
        with h5py.File(path, "w", userblock_size=512) as file:
            values = expected().astype((np.uint16, np.float64, np.uint8)[number])
            struct = file.create_group("GTcls")
            key, group = (("gt", file), ("Segmentation", struct), ("mask", file))[number]
            group[key] = values.T
            file["comment"] = np.full((7, 9), ord("x"), np.uint16)
            file["comment"].attrs["MATLAB_class"] = np.bytes_("char")
            file["#refs#/a"] = values
            if links:
                del group[key]
                group[key] = h5py.ExternalLink("two.mat", "/GTcls/Segmentation")
        with path.open("r+b") as file:
            file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\0\2IM")


OBJECTS = ["background", "field", "tree"]
# Writer of the annotations, classes, parts of the report.
CASES = {
    "COCO polygons": (coco_polygons, OBJECTS, [
        "COCO instances", "polygons of 1 or 2 points: 1; boxes without segmentation: 1",
        "1 annotated, but not in --images: gone.jpg", "1 without objects, unlabelled",
        "192 pixels (5.00%)", "the smaller object is on top"]),
    "COCO compressed": (
        lambda: write("x.json", coco_tree([compressed(covered(*b)) for b in (SMALL, BIG)])),
        OBJECTS, ["1 without annotation: b/four.png"]),
    "CVAT's COCO": (
        lambda: write("annotations/instances_default.json",
                      coco_tree([[rectangle(*SMALL)], run_lengths(covered(*BIG))], crowd=1)),
        OBJECTS, []),
    "COCO panoptic": (coco_panoptic, ["field", "tree"], ["COCO panoptic"]),
    "LabelMe": (labelme, OBJECTS, ["shapes of type line: 3; shapes of type point: 3"]),
    "CVAT masks": (cvat_masks, OBJECTS, ["labelmap.txt"]),
    "CVAT palettes": (lambda: cvat_masks("P"), OBJECTS, []),
    "Label Studio": (label_studio, OBJECTS, [
        "further annotations of one task: 3", "regions of type keypointlabels: 3",
        "1 without objects"]),
    "Label Studio's bitmasks": (label_studio_bitmasks, OBJECTS, ["images: 3, objects: 6"]),
    "Label Studio's JSON-MIN": (label_studio_min, OBJECTS, []),
    "Label Studio's PNGs": (label_studio_pngs, OBJECTS, ["one PNG per class"]),
    "VIA": (via, OBJECTS, ["1 without objects, unlabelled"]),
    "YOLO": (yolo, OBJECTS, ["boxes: 3"]),
    "YOLO's classes.txt": (yolo_classes, OBJECTS, []),
    "VOC": (voc, ["background", "cow", "tvmonitor"], ["Pascal VOC's palette and class names"]),
    "palette masks": (named_palette, ["sky", "light, red", "a=b"], [
        "palette masks; images: 3", "--classes 0=sky,1=light/red,2=a/b"]),
    "MATLAB": (matlab, ["class_0", "class_1", "class_2"], []),
    "MATLAB 7.3": (matlab73, ["class_0", "class_1", "class_2"], []),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_from_annotations_to_masks(case, init):
    writer, names, texts = CASES[case]
    writer()
    out = init().output()
    for text in (*texts, "2 labeled, 1 unlabeled, 1 val"):
        assert text in out, out
    assert load_config("configs/mine.yaml").data.classes == names
    want = expected()
    if case == "COCO panoptic":
        want = want - np.uint8(1)  # what is in no segment becomes 255
    if case == "VOC":
        want[0] = 255
    masks = sorted(Path("photos_masks").rglob("*.png"))
    assert [path.parent.name for path in masks] == ["a", "a", "b"]
    for path in masks:
        assert_mask(want, path)


def coco(of="annotations", number=0, **changes):
    """Return a writer of COCO polygons with other keys in one of the annotations or images."""

    def writer():
        tree = coco_tree()
        tree[of][number] |= changes
        write("x.json", tree)

    return writer


def lines(text):
    return lambda: (yolo(), write("labels/a/one.txt", text))


def labelme_shape(**changes):
    def writer():
        labelme()
        tree = json.loads(Path("notes/a/one.json").read_text())
        write("a/one.json", {**tree, "shapes": [{**tree["shapes"][0], **changes}]})

    return writer


def changed(writer, *texts):
    """Return a writer that then replaces texts (old, new, old, new) in the first JSON file."""

    def write_changed():
        writer()
        path = min(Path("notes").rglob("*.json"))
        content = path.read_text()
        for old, new in zip(texts[::2], texts[1::2], strict=True):
            assert old in content
            content = content.replace(old, new, 1)
        path.write_text(content)

    return write_changed


def named(kind, image):
    text = f'"type": "{kind}labels"'
    return text, f'"to_name": "{image}", {text}'


def ambiguous():
    for folder in "ab":
        shutil.copy("photos/b/four.png", f"photos/{folder}/same.png")
    coco("images", file_name="same.png")()


def exif_orientation():
    coco()()
    image = Image.open("photos/a/one.jpg")
    image.save("photos/a/one.jpg", exif=exif_with_orientation(6))


def via_without_project():
    changed(via, '"width"', '"w"')()
    write("via.json", json.loads(Path("notes/via.json").read_text())["_via_img_metadata"])


def two_attributes():
    via()
    text = Path("notes/via.json").read_text()
    write("via.json", text.replace('"class": "', '"colour": "red", "age": "'))


# Writer of faulty annotations, and part of the message.
FAULTS = {
    "no such path": (lambda: Path("notes").rmdir(), "notes: no such file or folder"),
    "nothing": (lambda: write("x.xml", "<a/>"), "found 1 .xml; expected COCO, LabelMe"),
    "other JSON": (lambda: write("x.json", {"info": 1}), "1 .json (x.json has info); expected"),
    "no JSON": (lambda: write("x.json", "{"), "x.json: not JSON"),
    "no category": (coco(category_id=None), "x.json: annotations[0].category_id: missing"),
    "another category": (coco(category_id=7), "annotations[0].category_id: 7 is the id of no"),
    "another image": (coco(image_id=77), "annotations[0].image_id: 77 is the id of no"),
    "pairs": (coco(segmentation=[[[1, 2], [3, 4], [5, 6]]]),
              "annotations[0].segmentation[0][0]: found [1, 2]; expected a valid number"),
    "odd coordinates": (coco(segmentation=[[1, 2, 3, 4, 5, 6, 7]]),
                        "annotations[0].segmentation: 7 coordinates"),
    "text": (coco(segmentation=[[1, 2, 3, 4, 5, "6"]]), "[0][5]: found '6'; expected a"),
    "nan": (coco(segmentation=[[1, 2, 3, float("nan"), 5, 6]]), "[0][3]: found nan; expected"),
    "far out": (coco(segmentation=[rectangle(0, 0, 10**9, 5)]), "x is 1e+09; expected 0 to 40"),
    "short runs": (coco(segmentation={"size": [H, W], "counts": [5, 9]}), "counts do not add up"),
    "damaged runs": (coco(segmentation={"size": [H, W], "counts": "0é"}), "counts do not add up"),
    "runs of another size": (coco(segmentation={"size": [W, H], "counts": [W * H]}),
                             "annotations[0].segmentation: size [40, 32]; expected"),
    "image id twice": (coco("images", 1, id=1), "images[1].id: 1 is the id of images[0] too"),
    "category id twice": (coco("categories", 1, id=3), "[1].id: 3 is the id of categories[0]"),
    "other size": (coco("images", width=80, height=64), "x.json: 'a/one.jpg' has 80x64 pixels, "),
    "size before it was turned": (
        exif_orientation,
        "a/one.jpg has 32x40; its EXIF orientation turns the image. Fix: remove the orientation, "
        "or turn the annotation",
    ),
    "one name twice": (ambiguous, "x.json: 'same.png' may be"),
    "one image twice": (lambda: (labelme(), shutil.copy("notes/a/one.json", "notes/a/copy.json")),
                        "a/one.jpg is annotated in"),
    "no image": (lambda: write("x/y.json", {"shapes": [], "imagePath": "z.jpg"}),
                 "--annotations notes: none is of an image in photos; expected names such as "
                 "a/one.jpg, found x/z.jpg"),
    "another image's name": (changed(labelme, "one.jpg", "two.jpg"), "Fix: correct imagePath"),
    "two images in a task": (
        changed(label_studio, *named("brush", "before"), *named("polygon", "after")),
        "[0]: regions of several images (after, before); expected one image in a task",
    ),
    "circle": (labelme_shape(shape_type="circle", points=[[1, 2], [3, 4], [5, 6]]),
               "one.json: shapes[0].points: 3 points; expected 2 (circle)"),
    "no label": (labelme_shape(label=None), "one.json: shapes[0].label: missing"),
    "no bitmask": (lambda: label_studio_bitmasks(imageDataURL="data:image/png;base64,AAAA"),
                   "[0].annotations[0].result[1].value: imageDataURL: no image; expected a PNG"),
    "other bitmask": (
        lambda: label_studio_bitmasks(**bitmask(covered(*SMALL), (H + 1, W))["value"]),
        "result[1].value: imageDataURL: 40x33 pixels; expected 40x32"),
    "letters": (lines("0 a b c d e f"), "one.txt: line 1: expected numbers"),
    "unknown class": (lines("0 0 0 1 0 1 1\n2 0 0 1 0 1 1"), "line 2: class 2; expected 0 to 1"),
    "pixels": (lines("0 0 0 30 0 30 20"), "line 1: coordinate 30; expected shares, 0 to 1"),
    "no names": (lambda: write("labels/a/one.txt", "0 0 0 1 0 1 1"), "no file names the classes"),
    "poses": (lambda: (yolo(), write("data.yaml", "names: [a, b]\nkpt_shape: [3, 2]")),
              "data.yaml: kpt_shape: labels are keypoints; expected polygons"),
    "an image that was resized": (changed(via, '"width"', '"width": 50, "w"'), "x is 60; expected"),
    "VIA's annotations alone": (
        via_without_project,
        "via.json: [one.jpg123].regions[0].shape_attributes.width: missing",
    ),
    "no list of annotations": (
        lambda: write("x.json", [{"data": {"image": "one.jpg"}, "annotations": None}]),
        "x.json: [0].annotations: found None; expected a list",
    ),
    "names": (lambda: (yolo(), write("data.yaml", "names: [yes, no]")),
              "data.yaml: names: found [True, False]; expected texts"),
    "archive": (lambda: write("x.zip", "PK"), "unpack the archive"),
    "unknown colour": (lambda: (cvat_masks(), write("labelmap.txt", "field:0,0,0::\na:0,128,0::")),
                       "colour 255,0,10 is not in labelmap.txt"),
    "labelmap": (lambda: (cvat_masks(), write("labelmap.txt", "a:1,2::")),
                 "labelmap.txt: line 1: expected name:red,green,blue::"),
    "two formats": (lambda: (labelme(), via()), "expected one format"),
    "attributes": (two_attributes, "region_attributes: found age, colour, x; expected"),
    "a link in MATLAB 7.3": (lambda: matlab73(links=True),
                             "one.mat: found 0 arrays of whole numbers (); expected one"),
    "MATLAB": (lambda: write("a/one.mat", "MATLAB"), "one.mat: not a readable .mat file"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_faults_are_one_line_and_leave_nothing(case, init):
    writer, message = FAULTS[case]
    writer()
    before = sorted(Path().rglob("*"))
    done = init()
    assert message in done.out + done.mistake()
    assert sorted(Path().rglob("*")) == before


def test_matlab_cells_are_no_masks(data):
    classes, cell = expected() * 2, np.empty((1, 1), object)
    cell[0, 0] = covered(*SMALL)  # the mask of one object
    savemat(note("one.mat"), {"GT": {"classes": classes, "mask": cell}})
    (annotation,) = read_matlab([Path("notes/one.mat")], Path("notes")).per_image
    np.testing.assert_array_equal(annotation.read_label_image().values, classes)


def test_matlab73_needs_h5py(init, monkeypatch):
    matlab73()
    monkeypatch.setitem(sys.modules, "h5py", None)
    code, out, _ = init()
    assert code == 2
    assert "one.mat: MATLAB 7.3 needs h5py. Fix: pip install -r requirements-extra.txt" in out


def test_matlab73_opens_no_cells(data, monkeypatch):
    matlab73()
    opened, get = [], h5py.Group.__getitem__

    def noted(group, name):
        opened.append(f"{group.name}/{name}")
        return get(group, name)

    monkeypatch.setattr(h5py.Group, "__getitem__", noted)
    files = [Path("notes", f"{name}.mat") for name in IMAGES]
    for annotation in read_matlab(files, Path("notes")).per_image:
        np.testing.assert_array_equal(annotation.read_label_image().values, expected())
    assert opened and not any("#" in name for name in opened)


def test_label_studio_pngs_name_a_file_of_theirs(init):
    label_studio_pngs()
    Image.new("L", (W, H)).save("notes/another.png")
    init().output()
    for path in Path("photos").rglob("task-*.jpg"):
        path.rename(path.with_name(f"photo{path.name}"))
    err = init("notes", "--force").mistake()
    assert "notes/task-11-annotation-11-by-1-tag-" in err
    assert "expected images named such as task-11.jpg" in err


def test_faults_of_several_files_are_named_at_once(init):
    yolo()
    for name in IMAGES[:2]:
        write(f"labels/{name}.txt", "0 0 0 1 0 1 0.5 0.5")
    code, out, err = init("notes", "--skip-bad")
    assert code == 2 and "a/one.txt: line 1" in out and "a/two.txt: line 1" in out
    assert "2 annotations cannot be used, see above. Fix: correct or remove bad ann" in err
    assert "--skip-bad" not in err  # leaves out images, not annotations
    write(f"labels/{IMAGES[0]}.txt", "0 0 0 1 0 1 0.5")
    code, out, err = init("notes")
    assert "a/two.txt: line 1" in err and err.count("Fix: ") == 1


def test_masks_go_to_a_new_folder(init):
    yolo()
    Path("photos_masks").mkdir()
    Path("photos_masks/mine.png").touch()
    err = init("notes", "--masks", "photos_masks").mistake()
    assert "--masks photos_masks: exists already" in err
    init("notes/data.yaml", "--val", "nowhere").mistake()  # fails after they are written
    assert not Path("photos_masks_2").exists()
    out = init().output()
    assert len(list(Path("photos_masks_2").rglob("*.png"))) == 3
    assert [path.name for path in Path("photos_masks").iterdir()] == ["mine.png"]
    again = next(line for line in out.splitlines() if line.startswith("names "))
    assert "--masks photos_masks_2" in again and "--annotations" not in again
    init("notes", "--force", "--masks", "other/masks").output()
    assert Path("other/masks/a/one.png").exists()
    err = init("notes", "--force", "--classes", "a,b").mistake()
    assert "classes come from --annotations" in err


@pytest.mark.parametrize("module, where, error, code", [
    (config, "write_split_files", KeyboardInterrupt(), 130),
    (own_init, "load_config", UserError("spoilt"), 2),
    (own_init, "schedule_for", UserError("too short"), 2),
    (own_init, "schedule_for", KeyboardInterrupt(), 130),
])  # fmt: skip
def test_masks_stay_once_a_config_names_them(module, where, error, code, init, monkeypatch):
    def fail(*_):
        if module is config:
            write_once(Path("splits/mine/labeled.txt"), b"the first of the lists")
        raise error

    yolo()
    monkeypatch.setattr(module, where, fail)
    assert init("notes", "--time-budget", "1min")[0] == code
    written = Path("photos_masks"), Path("configs/mine.yaml"), Path("splits/mine/labeled.txt")
    assert {path.exists() for path in written} == {module is own_init}


@pytest.mark.parametrize("option, value, names, masks", [
    ("--unannotated", "ignore", ["field", "tree"], 3),
    ("--empty", "background", OBJECTS, 4),
])  # fmt: skip
def test_unannotated_pixels_and_images(option, value, names, masks, init):
    coco_polygons()
    init("notes", option, value).output()
    assert load_config("configs/mine.yaml").data.classes == names
    assert len(list(Path("photos_masks").rglob("*.png"))) == masks
    if value == "ignore":
        assert_mask(expected() - np.uint8(1))  # 0 becomes 255
    else:
        assert not np.array(Image.open("photos_masks/b/four.png")).any()


def test_classes_named_background_and_ignore_and_unused_ones(init):
    tree = coco_tree()
    tree["categories"] += [{"id": 8, "name": "Background"}, {"id": 9, "name": "__ignore__"},
                           {"id": 10, "name": "never"}]  # fmt: skip
    common = {"image_id": 1, "iscrowd": 0}
    tree["annotations"] += [
        {"id": 90, "category_id": 8, "segmentation": [rectangle(10, 12, 12, 14)], **common},
        {"id": 91, "category_id": 9, "segmentation": [rectangle(0, 0, 2, 2)], **common},
    ]
    write("x.json", tree)
    assert "unused     1 declared, without objects, no class: masks" in init().output()
    assert load_config("configs/mine.yaml").data.classes == ["Background", "field", "tree"]
    want = expected()
    want[12:14, 10:12], want[:2, :2] = 0, 255
    assert_mask(want)


def test_the_last_of_many_annotations_is_read(init):
    """Read the last annotation by number, not by text, as these have no date."""
    field, (_, tree, _) = studio_results()
    none = [{"result": []} for _ in range(10)]
    write("project.json", [
        {"id": i, "data": {"image": f"{name}.jpg"},
         "annotations": [*none, {"result": [field, tree]}]}
        for i, name in enumerate(IMAGES)
    ])  # fmt: skip
    assert "objects: 6" in init().output()


def test_the_last_annotation_of_a_task_in_json_min(init):
    label_studio_min()
    tasks = json.loads(Path("notes/min.json").read_text())
    older = [{**task, "tag": [], "updated_at": "2023", "annotation_id": 9} for task in tasks]
    newer = [{**task, "updated_at": "2024"} for task in tasks]
    write("min.json", newer + older)
    out = init().output()
    assert "objects: 6" in out and "annotations of one task: 3" in out


@pytest.mark.parametrize("points, size, shown", [
    ([[30, 10], [W, 20]], (10, 11), np.s_[10:21, 30:]),  # the end, as some versions write it
    ([[20.5, 10.5], [29.5, 20.5]], (10, 11), np.s_[10:21, 20:30]),  # dragged at 200 % zoom
    ([[-0.6, 0], [8.4, 9]], (10, 10), np.s_[:10, :9]),
])  # fmt: skip
def test_masks_of_labelme_begin_at_their_first_pixel(points, size, shown, init):
    mask = base64_png(np.ones(size[::-1], bool))
    labelme_shape(label="field", shape_type="mask", points=points, mask=mask)()
    tree = json.loads(Path("notes/a/one.json").read_text())
    write("a/one.json", tree | {"shapes": tree["shapes"][:1], "imagePath": ""})
    init().output()
    want = np.zeros((H, W), np.uint8)
    want[shown] = 1
    assert_mask(want)


def test_ignored_pixels_in_masks_for_validation(init):
    """With --val IMAGES MASKS, 255 is ignored, even where no drawn mask has it."""
    coco_polygons()
    for name in IMAGES:
        path = Path("val", "masks", f"{Path(name).name}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Path("val/images").mkdir(exist_ok=True)
        shutil.copy(next(Path("photos").glob(f"{name}.*")), "val/images")
        mask = expected() % 3
        mask[0] = 255
        Image.fromarray(mask).save(path)
    out = init("notes", "--val", "val/images", "val/masks").output()
    assert re.search(r"255 +\(ignored\) .* 3\n", out)
    assert load_config("configs/mine.yaml").data.classes == ["background", "field", "tree"]


@pytest.mark.parametrize("count", [254, 255])
def test_at_most_254_classes(count):
    names = {f"class {number}" for number in range(count)}
    found = Annotations("", [ImageAnnotation(Path("x.mat"), ("x",))])
    with nullcontext() if count == 254 else pytest.raises(UserError, match="at most 254"):
        assert max(class_table(found, [names], "background").indices.values()) == 253


def test_circles_and_ellipses(init):
    y, x = np.mgrid[:H, :W] + 0.5
    turned = {"name": "ellipse", "cx": 20, "cy": 16, "rx": 12, "ry": 4, "theta": np.pi / 2}
    round_ = {"name": "circle", "cx": 20, "cy": 16, "r": 3}
    line = {"name": "polyline", "all_points_x": [1, 2, 3], "all_points_y": [1, 2, 3]}
    write("via.json", {
        name: {"filename": name, "size": 1, "regions": {
            str(i): {"shape_attributes": shape, "region_attributes": {"kind": kind}}
            for i, (shape, kind) in enumerate([(round_, "b"), (turned, "a"), (line, "a")])}}
        for name in ("one.jpg", "two.jpg", "three.jpg")
    })  # fmt: skip
    assert "regions of type polyline: 3" in init("notes/via.json").output()
    want = (((x - 20) / 4) ** 2 + ((y - 16) / 12) ** 2 <= 1).astype(np.uint8)
    want[(x - 20) ** 2 + (y - 16) ** 2 <= 9] = 2
    assert_mask(want)


@pytest.mark.parametrize("name, found", [
    ("a/one.jpg", ["a/one"]),
    ("photos/a/one.png", ["a/one"]),
    ("C:\\data\\a\\one.jpg", ["a/one"]),
    ("two", ["b/two"]),
    ("images/0123abcd-two.jpg", []),
    ("one.jpg", ["a/one", "b/one"]),
    ("c/two.jpg", []),
    ("/elsewhere/c/two.jpg", ["b/two"]),
    ("data/x.y.z", ["x.y.z"]),
    ("none.jpg", []),
    ("", []),
])  # fmt: skip
def test_images_are_found_by_the_ends_of_their_paths(name, found):
    stems = ["a/one", "b/one", "b/two", "x.y.z"]
    images = {s: Path("/data/photos", f"{s}.jpg") for s in stems}
    assert ImageFolder(Path("/data/photos"), images, []).find(name) == found


@pytest.mark.parametrize("names, found", [
    (["clip1/one.jpg", "clip2/two.jpg"], {"one": "clip1/one.jpg"}),
    (["clips/clip1/one.jpg", "old/clip1/two.jpg"], {"one": "clips/clip1/one.jpg"}),
    (["/clips/clip1/one.jpg", "D:\\batch\\two.jpg"],
     {"one": "/clips/clip1/one.jpg", "two": "D:\\batch\\two.jpg"}),
    (["0123abcd-one.jpg", "20240102-three.jpg"], {"one": "0123abcd-one.jpg"}),
    (["images/one.jpg", "images/two.jpg"], {"one": "images/one.jpg", "two": "images/two.jpg"}),
    (["0123abcd-one.jpg", "u/12345678-two.jpg"],
     {"one": "0123abcd-one.jpg", "two": "u/12345678-two.jpg"}),
    (["20240101-one.jpg", "20240101-three.jpg"], {"20240101-three": "20240101-three.jpg"}),
    (["x/four.jpeg.png"], {"four.jpeg": "x/four.jpeg.png"}),
    (["four.jpeg"], {"four.jpeg": "four.jpeg"}),
])  # fmt: skip
def test_names_that_contradict_the_images_folder_are_of_others(names, found):
    folder = Path("/clips/clip1")
    stems = ["one", "two", "20240101-three", "four.jpeg"]
    images = {stem: folder / f"{stem}.jpg" for stem in stems}
    annotations = [ImageAnnotation(Path("a.json"), (name,)) for name in names]
    matched, lost = match_annotations(annotations, folder, images)
    assert {key: annotation.names[0] for key, annotation in matched.items()} == found
    assert len(lost) == len(names) - len(found)


@pytest.mark.parametrize("images, name, found", [
    (["Wall 8.jpg", "Wall 9.jpg"], "1234abd5-Wall_8.jpg", ["Wall 8.jpg"]),
    (["a/Rißs\u0308 (2)#100%.v2.14.JPG"], "up/1234abd5-Rißs_2100.v2.14.JPG",
     ["a/Rißs\u0308 (2)#100%.v2.14.JPG"]),  # ¨ is a mark, which is dropped
    (["\u00e4 1.jpg"], "1234abd5-\u00e4_1", ["\u00e4 1.jpg"]),
    (["Wall 8.jpg", "Wall_8.jpg"], "1234abd5-Wall_8.jpg", ["Wall_8.jpg"]),
    (["Wall 8.jpg"], "Wall_8.jpg", []),
    (["Wall 8.jpg", "Wall, 8.jpg"], "1234abd5-Wall_8.jpg", None),
])  # fmt: skip
def test_names_that_label_studio_stores(images, name, found, capsys):
    """Match upload names, in which spaces are `_` and other special characters are missing."""
    annotations = [ImageAnnotation(Path("a.json"), (name,))]
    match = partial(match_annotations, annotations, Path("/p"), {n: Path("/p", n) for n in images})
    if found is None:
        with pytest.raises(UserError, match="may be /p/Wall 8.jpg and /p/Wall, 8.jpg"):
            match()
    else:
        assert list(match()[0]) == found


@pytest.mark.parametrize(("content", "masks"), [("", 4), ("1 0.5 0.5 0.2 0.2", 3)])
def test_an_empty_label_file_is_background_but_not_one_of_boxes_alone(content, masks, init):
    yolo()
    write("labels/b/four.txt", content)
    out = init().output()
    assert len(list(Path("photos_masks").rglob("*.png"))) == masks
    assert ("1 without objects, unlabelled" in out) == (masks == 3)
