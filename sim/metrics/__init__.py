"""What is seen: histograms, counters and ledgers. They record; they neither print nor know a file."""
