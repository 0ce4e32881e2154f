"""Masks from annotation files.

find.py detects the format, whose reader (coco.py, labelme.py, ...) returns `Annotations`, which
types.py defines. match.py finds the images; draw.py numbers the classes and draws masks, by
shapes.py; write.py has the options, files and report. A new format is a reader and a line in
find.py.
"""
