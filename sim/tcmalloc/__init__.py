"""TCMalloc, after gperftools 2.10 and the classic document: its rooms, under the library's own names."""
