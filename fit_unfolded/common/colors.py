"""The colors of all figures.

Each has a contrast of at least 3:1 on white, so that a thin line survives a projector (WCAG 2.2,
success criterion 1.4.11), and they also differ in gray.
"""

FIT = "#4292c6"
LOOP = "#252525"
MISTAKE = "#a63603"
GUIDE = "#767676"  # lines that connect, error bars
