"""`python -m tools.check_data`: check all data of a config.

- inspect, with image_stats: content and faults of each file
- problems: what would break or spoil training
- report: numbers for JSON, text for the terminal
- html_report, with outliers and thumbnails: the page with pictures
"""
