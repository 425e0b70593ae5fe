"""What is seen: histograms, series, records of cycles, timelines; and the forms others read them in.

They record and format; they neither print nor know a file.
"""
