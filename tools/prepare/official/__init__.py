"""Official downloads in the project's layout.

archives.py reads downloads; the module of a dataset plans files (`Dataset`); run.py makes them, and
output.py keeps what is there. A new dataset is a module and a line in tools/prepare/__main__.py.
"""
