"""Scripts to begin research with."""
