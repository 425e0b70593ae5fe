"""What runs through the rooms: recorded traces of real programs, and scenarios written by hand."""
