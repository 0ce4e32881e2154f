"""`python -m tools.prepare init`: from images and masks of your own to a config and split files.

`init.run` uses the modules in this order:

- match, divide: names of files -> samples and their splits
- survey, with images and masks: content of the files, each of which is read once
- guess: values or colours of masks -> names of classes, or a question (`AmbiguousMasks`)
- classes: names -> class indices, palette, shares of the pixels
- settings: network and schedule for these images and this machine
- config, report: files to write, findings to print
"""
